"""Golden maps and planes: what every device must compute before it may code or decode.

The networks are small, random with a fixed seed, and have every part that a prior can have
(attention, conditioning on two strides, an output stack). The device computes the frequencies of a
known map, and decodes and samples a hierarchy of three maps, more images at once than it has
multiprocessors, so that maps wait for each other and tasks queue. It runs a network that has every
kind of layer, and an autoencoder. All results are compared with hashes from the NumPy reference
(tests/ops/test_cuda.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.config import AutoencoderConfig, CodeMap, PriorConfig
from vqcodec.model.fixed_point import causal_offsets, window_offsets
from vqcodec.model.integer_network import (
    Add,
    Concatenate,
    Convolution,
    IntegerNetwork,
    Kernel,
    Offsets,
    PlaneShape,
    Residual,
    Subtract,
    Unshuffle,
    square_offsets,
    upscale_offsets,
)
from vqcodec.model.prior import Condition, IntegerPrior, Tables, load_prior
from vqcodec.ops.jobs import DecodeJob, SampleJob
from vqcodec.ops.reference.backend import Reference
from vqcodec.tiling import Box

if TYPE_CHECKING:
    from vqcodec.ops.backend import Backend
    from vqcodec.ops.cuda import Device

MAPS = (CodeMap(16, 1, 96), CodeMap(8, 1, 64), CodeMap(8, 1, 160))
CONFIG = PriorConfig(
    hidden=48,
    residual=24,
    layers=3,
    attention_layers=2,
    heads=3,
    output_layers=1,
    embedding=12,
    condition_embedding=7,
    condition_blocks=2,
    condition_residual=40,
)
#: For the known map, and for the maps that are decoded and sampled.
SHAPE, SHAPES = (22, 26), [(5, 7), (10, 14), (10, 14)]
CONDITION, SHARPNESS, NUCLEUS = Condition(class_id=1, level=1), 205, 62000
#: Number of images with their own streams and words; a batch repeats them.
IMAGES = 2
#: SHA-256 of start and frequency (int64) of the known map, and of all maps (int32) of each image.
FREQUENCIES = "59f6b7da35b8e12f07aced71d7187a6265e0d75e3850d08536fd802bc96a50e0"
DECODED: tuple[str, ...] = (
    "cabae630a6f395d1b0cd2be2c741f668c34df9055b08ba1bc3974387b384495d",
    "98641efc641895bccdef8d545d4f6dc2220023ba14de38b50ce6fea6903c589d",
)
SAMPLED: tuple[str, ...] = (
    "b58de3c58499e36fc474961ead37d0f503457c7da64fafadf6de96979dbb03da",
    "2d9e9ba7d6a104857fc379686f99f8c107408479fa6d203656be72c12f411ce5",
)
#: Of the pixels (uint8), features and latents (int16) of the golden autoencoder.
AUTOENCODER = "3dcf17c4616b4520fd9b899402f3f0f033d298a3fe9f8dfe8be259aaaffd078f"
#: Of the planes that the golden network makes (int16), and of golden candidates and their costs (int32).
PLANES = "58247fe9639233771f459a032e373cbc38785272b0fc86f9b0144c65e5d6c2e7"
CANDIDATES = "e8b69e039d641dbb6fa11f61baaa177e1efac98e9ad9f1152d2780c42398eaef"


def failure(device: Device) -> str | None:
    """None, or what the device got wrong."""
    priors = golden_priors()
    coarser, codes = golden_map()
    if digest(*device.prior_frequencies(priors[-1], codes, coarser, CONDITION)) != FREQUENCIES:
        return "its frequencies of the golden map are wrong"
    streams, words = golden_streams()
    images = [i % IMAGES for i in range(2 * device.multiprocessors() + 2)]

    def wrong(expected: tuple[str, ...], found: list[list[np.ndarray]]) -> bool:
        return [digest(*maps) for maps in found] != [expected[i] for i in images]

    if wrong(DECODED, device.decode(priors, [DecodeJob(SHAPES, streams[i], CONDITION) for i in images])[0]):
        return "it decodes golden streams wrongly"
    if wrong(
        SAMPLED, device.sample(priors, [SampleJob(SHAPES, words[i], CONDITION) for i in images], SHARPNESS, NUCLEUS)
    ):
        return "its golden samples are wrong"
    network, planes = golden_network()
    if digest(*device.run_network(network, planes)) != PLANES:
        return "its golden network is wrong"
    if digest(*coded(device)) != AUTOENCODER:
        return "its golden autoencoder is wrong"
    return None


def coded(backend: Backend) -> list[np.ndarray]:
    """What a backend makes of the golden autoencoder: pixels, pixels of the first map alone, features, latents."""
    autoencoder, maps, pixels = golden_autoencoder()
    height, width = pixels.shape[:2]
    made = [backend.autoencoder_pixels(autoencoder, maps, height, width, Box(0, 0, width, height))]
    made.append(backend.autoencoder_pixels(autoencoder, maps[:1], height, width, Box(5, 3, width - 7, height)))
    features = backend.autoencoder_features(autoencoder, pixels)
    for stride, plane in zip(autoencoder.config.strides, features):
        coarser = maps[: autoencoder.config.maps_before(stride)]
        made += [plane, backend.autoencoder_latents(autoencoder, stride, plane, coarser)]
    return made


def golden_priors() -> list[IntegerPrior]:
    """The networks of the three maps, from a counter-based generator that is stable across NumPy versions."""
    return [_golden_prior(m) for m in range(len(MAPS))]


def _golden_prior(m: int) -> IntegerPrior:
    draw = _Draw(10 + m)
    hidden, config, maps = CONFIG.hidden, CONFIG, MAPS[: m + 1]
    tensors: dict[str, np.ndarray] = {
        "embedding": draw.int8(96, maps[-1].codes, config.embedding),
        "class": draw.int8(100, 2, hidden).astype(np.int16) * 2,
        "level": draw.int8(100, 2, hidden).astype(np.int16) * 2,
    }
    for j, coarser in enumerate(maps[:-1]):
        factor = coarser.stride // maps[-1].stride
        tensors[f"coarser.{j}"] = draw.int8(80, coarser.codes, factor**2 * config.condition_embedding)

    def conv(name: str, inputs: int, outputs: int, taps: int, shift: int) -> None:
        tensors[f"{name}.weight"] = draw.int8(100, outputs, taps, inputs)
        tensors[f"{name}.bias"] = draw.int8(127, outputs).astype(np.int32) * 32
        tensors[f"{name}.shift"] = (shift + draw.int8(1, outputs)).astype(np.uint8)

    causal, window = len(causal_offsets(3, center=True)), len(window_offsets(3))
    conv("first", config.embedding, hidden, len(causal_offsets(5, center=False)), 6)
    if m:
        conv("condition.in", m * config.condition_embedding, hidden, window, 6)
    for i in range(config.condition_blocks if m else 0):
        conv(f"condition.{i}.conv", hidden, config.condition_residual, window, 10)
        conv(f"condition.{i}.out", config.condition_residual, hidden, 1, 6)
    for i in range(config.layers):
        conv(f"block.{i}.gate", hidden, 2 * config.residual, causal, 9)
        conv(f"block.{i}.out", config.residual, hidden, 1, 6)
        if config.attends_after(i):
            conv(f"attention.{i}.qkv", hidden, 3 * hidden, 1, 8)
            conv(f"attention.{i}.out", hidden, hidden, 1, 6)
    for i in range(config.output_layers):
        conv(f"output.{i}.gate", hidden, 2 * config.residual, 1, 8)
        conv(f"output.{i}.out", config.residual, hidden, 1, 6)
    conv("logits", hidden, maps[-1].codes, 1, 11)
    return load_prior(CONFIG, maps, 1, 2, tensors, Tables.standard())


def golden_map() -> tuple[list[np.ndarray], np.ndarray]:
    """The coarser maps and the known map."""
    draw = _Draw(1)
    height, width = SHAPE
    shapes = [(height // 2, width // 2), SHAPE, SHAPE]
    *coarser, codes = [(draw.words(h * w) % m.codes).astype(np.int32).reshape(h, w) for m, (h, w) in zip(MAPS, shapes)]
    return coarser, codes


def golden_streams() -> tuple[list[list[bytes]], list[list[np.ndarray]]]:
    """For every image and map, bytes to decode (any bytes are a stream) and words to sample from."""
    draw = _Draw(2)
    streams = [[draw.words(h * w).astype(np.uint8).tobytes() for h, w in SHAPES] for _ in range(IMAGES)]
    return streams, [[draw.words(h * w) for h, w in SHAPES] for _ in range(IMAGES)]


def golden_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Vectors (600 x 40) and a codebook (128 x 40), float32: many rows lie almost halfway between two codes."""
    draw = _Draw(3)
    codebook = (draw.int8(100, 128, 40) / np.float32(64)).astype(np.float32)
    pairs = draw.words(1200).reshape(600, 2) % 128
    noise = draw.int8(100, 600, 40) * np.float32(2.0**-20)
    return (codebook[pairs[:, 0]] + codebook[pairs[:, 1]]) / 2 + noise, codebook


def golden_network() -> tuple[IntegerNetwork, list[np.ndarray]]:
    """A network that has every kind of layer, and planes for it: fine 66 x 74 x 5, coarse 33 x 37 x 34."""
    draw = _Draw(4)

    def kernel(inputs: int, outputs: int, offsets: Offsets, shift: int = 9) -> Kernel:
        phases = len(offsets)
        weight = draw.int8(100, phases, outputs, len(offsets[0]), inputs)
        bias = draw.int8(127, phases, outputs).astype(np.int32) * 64
        return Kernel(weight, bias, (shift + draw.int8(2, phases, outputs)).astype(np.uint8), offsets)

    layers = (
        Unshuffle(0, 2),
        Convolution(2, kernel(20, 34, square_offsets(3)), activation="relu"),
        Add(1, 3),
        Residual(4, kernel(34, 18, square_offsets(3)), kernel(18, 34, square_offsets(1)), "leaky"),
        Residual(5, kernel(34, 7, square_offsets(1)), kernel(7, 34, square_offsets(3))),
        Convolution(6, kernel(34, 16, upscale_offsets(4)), upscale=2, activation="leaky"),
        Convolution(6, kernel(34, 3, square_offsets(3) * 4), upscale=2),
        Convolution(7, kernel(16, 34, square_offsets(4, 2)), 2),
        Subtract(9, 6),
        Concatenate((7, 8, 0)),
    )
    planes = [
        draw.words(h * w * c).astype(np.uint16).view(np.int16).reshape(h, w, c)
        for h, w, c in ((66, 74, 5), (33, 37, 34))
    ]
    return IntegerNetwork((PlaneShape(5, 1), PlaneShape(34, 2)), layers, (10, 11)), planes


def golden_autoencoder() -> tuple[IntegerAutoencoder, list[np.ndarray], np.ndarray]:
    """Codebooks and networks, code maps of an image of 36 x 44 pixels, and pixels for them."""
    draw = _Draw(6)
    maps = (CodeMap(4, 5, 40), CodeMap(2, 4, 30), CodeMap(2, 3, 20), CodeMap(2, 4, 25, refines=1))

    def kernel(inputs: int, outputs: int, offsets: Offsets) -> Kernel:
        phases = len(offsets)
        weight = draw.int8(100, phases, outputs, len(offsets[0]), inputs)
        bias = draw.int8(127, phases, outputs).astype(np.int32) * 64
        return Kernel(weight, bias, (6 + draw.int8(1, phases, outputs)).astype(np.uint8), offsets)

    coarse, fine = PlaneShape(5, 4), PlaneShape(7, 2)
    analysis = IntegerNetwork(
        (PlaneShape(3, 1),),
        (
            Convolution(0, kernel(3, 9, square_offsets(4, 2)), 2, activation="relu"),
            Convolution(1, kernel(9, 6, square_offsets(2, 2)), 2),
        ),
        (2, 1),
    )
    up = Convolution(0, kernel(5, 7, upscale_offsets(2)), upscale=2)
    latent = {
        4: IntegerNetwork((PlaneShape(6, 4),), (Convolution(0, kernel(6, 5, square_offsets(1))),), (1,)),
        2: IntegerNetwork(
            (PlaneShape(9, 2), coarse),
            (
                Convolution(1, up.kernel, upscale=2),
                Convolution(0, kernel(9, 7, square_offsets(1))),
                Subtract(3, 2),
            ),
            (4,),
        ),
    }
    synthesis = IntegerNetwork(
        (coarse, fine),
        (
            up,
            Add(2, 1),
            Convolution(3, kernel(7, 3, square_offsets(3) * 4), upscale=2),
            Convolution(3, kernel(7, 3, square_offsets(1) * 4), upscale=2, activation="leaky"),
        ),
        (4, 5),
    )
    books = tuple(draw.int8(100, m.codes, m.dim).astype(np.int16) * 20 for m in maps)
    lengths = tuple(np.zeros((1, m.codes), np.uint8) for m in maps)
    codes = [(draw.words(36 * 44 // m.stride**2) % m.codes).astype(np.int32) for m in maps]
    config = AutoencoderConfig(maps=maps, transform="conv", levels=1)
    autoencoder = IntegerAutoencoder(config, books, lengths, analysis, latent, synthesis)
    shaped = [c.reshape(36 // m.stride, 44 // m.stride) for m, c in zip(maps, codes)]
    return autoencoder, shaped, draw.words(36 * 44 * 3).astype(np.uint8).reshape(36, 44, 3)


def golden_choice() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Arguments of code_candidates: latents (200 x 7), a codebook (90 x 7), lengths, exponents, base."""
    draw = _Draw(5)
    z, codebook = (draw.words(n * 7).astype(np.uint16).view(np.int16).reshape(n, 7) for n in (200, 90))
    z[::2] >>= 4  # near enough to 16-bit arithmetic, and too far for it
    return z, codebook >> 4, draw.words(90).astype(np.uint8), (draw.words(200) % 4096).astype(np.int32), 36


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the arrays' bytes, little-endian."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return found.hexdigest()


class _Draw:
    """Numbers of the Philox counter generator."""

    def __init__(self, key: int = 0) -> None:
        self._generator = np.random.Philox(key=key)

    def words(self, size: int) -> np.ndarray:
        """uint32 below 2**24."""
        raw: np.ndarray = self._generator.random_raw(size)
        return (raw >> np.uint64(40)).astype(np.uint32)

    def int8(self, largest: int, *shape: int) -> np.ndarray:
        """int8 in -largest .. largest."""
        words = self.words(int(np.prod(shape, dtype=int))).astype(np.int64)
        return (words % (2 * largest + 1) - largest).astype(np.int8).reshape(shape)


def measure() -> dict[str, Any]:
    """What the constants above must be, according to the NumPy reference."""
    priors, (coarser, codes), (streams, words) = golden_priors(), golden_map(), golden_streams()
    found = Reference().prior_frequencies(priors[-1], codes, coarser, CONDITION)
    decoded = Reference().decode(priors, [DecodeJob(SHAPES, each, CONDITION) for each in streams])[0]
    sampled = Reference().sample(priors, [SampleJob(SHAPES, each, CONDITION) for each in words], SHARPNESS, NUCLEUS)
    network, planes = golden_network()
    candidates = Reference().code_candidates(*golden_choice(), 20)
    return {
        "AUTOENCODER": digest(*coded(Reference())),
        "PLANES": digest(*Reference().run_network(network, planes)),
        "CANDIDATES": digest(*candidates),
        "FREQUENCIES": digest(*found),
        "DECODED": tuple(digest(*maps) for maps in decoded),
        "SAMPLED": tuple(digest(*maps) for maps in sampled),
        "frequency": found[1],
        "samples": sampled,
    }
