"""A golden map: what every device must compute before it may code or decode.

The network is small and random, of fixed seed, and has every part that a prior can have
(attention, conditioning on two strides, an output stack). Its frequencies and a sampled map are
compared with hashes that the NumPy reference gives (tests/test_cuda.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.models.arithmetic import causal_offsets, window_offsets
from vqcodec.models.config import CodeMap, PriorConfig
from vqcodec.models.integer import IntegerPrior, Tables, load_prior

if TYPE_CHECKING:
    from vqcodec.ops.cuda import Device

MAPS = (CodeMap(16, 1, 96), CodeMap(8, 1, 64), CodeMap(8, 1, 160))
CONFIG = PriorConfig(hidden=48, residual=24, layers=3, attention_layers=2, heads=3, output_layers=1, embedding=12,
                     condition_embedding=7, condition_blocks=2, condition_residual=40)
SHAPE = (22, 26)
CLASS, LEVEL, SHARPNESS, NUCLEUS = 1, 1, 205, 62000
#: SHA-256 of start and frequency (int64) of the golden map, and of the map that is sampled (int32).
FREQUENCIES = "705600de2f3d609622cccd95c82249ef188c6c5acf46e8a38781591a223a9f0b"
SAMPLE = "4459d449be00e1beaf39a547df60f36c9bbf43858ed0ece0326828c313dbee5e"


def failure(device: Device) -> str | None:
    """None, or what the device does wrong."""
    from vqcodec.ops.prior import tensors_of

    prior = golden_prior()
    coarser, codes, words = golden_maps()
    network = device.load_prior(**tensors_of(prior))
    if digest(*device.prior_frequencies(network, codes, coarser, CLASS, LEVEL)) != FREQUENCIES:
        return "its frequencies of the golden map are wrong"
    jobs = [(CLASS, LEVEL, coarser, [SHAPE], [words])]
    if digest(device.wavefront_sample([network], jobs, SHARPNESS, NUCLEUS)[0][0][0]) != SAMPLE:
        return "its sample of the golden map is wrong"
    return None


def golden_prior() -> IntegerPrior:
    """The network, from a counter-based generator that NumPy will not change."""
    draw = _Draw()
    hidden, config = CONFIG.hidden, CONFIG
    tensors: dict[str, np.ndarray] = {
        "embedding": draw.int8(96, MAPS[-1].codes, config.embedding),
        "class": draw.int8(100, 2, hidden).astype(np.int16) * 2,
        "level": draw.int8(100, 2, hidden).astype(np.int16) * 2,
        "coarser.0": draw.int8(80, MAPS[0].codes, 4 * config.condition_embedding),
        "coarser.1": draw.int8(80, MAPS[1].codes, config.condition_embedding),
    }

    def conv(name: str, inputs: int, outputs: int, taps: int, shift: int) -> None:
        tensors[f"{name}.weight"] = draw.int8(100, outputs, taps, inputs)
        tensors[f"{name}.bias"] = draw.int8(127, outputs).astype(np.int32) * 32
        tensors[f"{name}.shift"] = (shift + draw.int8(1, outputs)).astype(np.uint8)

    causal, window = len(causal_offsets(3, center=True)), len(window_offsets(3))
    conv("first", config.embedding, hidden, len(causal_offsets(5, center=False)), 6)
    conv("condition.in", 2 * config.condition_embedding, hidden, window, 6)
    for i in range(config.condition_blocks):
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
    conv("logits", hidden, MAPS[-1].codes, 1, 11)
    return load_prior(CONFIG, MAPS, 1, 2, tensors, Tables.standard())


def golden_maps() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Coarser maps, the golden map, and words to sample it anew."""
    draw = _Draw(1)
    height, width = SHAPE
    shapes = [(height // 2, width // 2), SHAPE, SHAPE]
    *coarser, codes = [(draw.words(h * w) % m.codes).astype(np.int32).reshape(h, w) for m, (h, w) in zip(MAPS, shapes)]
    return coarser, codes, draw.words(height * width)


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the arrays' bytes, little-endian."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
    return found.hexdigest()


class _Draw:
    """Numbers of the Philox counter generator."""

    def __init__(self, key: int = 0) -> None:
        self._generator = np.random.Philox(key=key)

    def words(self, size: int) -> np.ndarray:
        """uint32 below 2**24."""
        return (self._generator.random_raw(size) >> np.uint64(40)).astype(np.uint32)

    def int8(self, largest: int, *shape: int) -> np.ndarray:
        """int8 in -largest .. largest."""
        words = self.words(int(np.prod(shape, dtype=int))).astype(np.int64)
        return (words % (2 * largest + 1) - largest).astype(np.int8).reshape(shape)


def measure() -> dict[str, Any]:
    """What the constants above must be, by the NumPy reference."""
    from vqcodec import ops

    prior, (coarser, codes, words) = golden_prior(), golden_maps()
    found = ops.prior_frequencies(prior, codes, coarser, CLASS, LEVEL, backend="reference")
    sample = ops.wavefront_sample([prior], [SHAPE], [words], CLASS, LEVEL, sharpness=SHARPNESS, nucleus=NUCLEUS, given=coarser,
                                  backend="reference")
    return {"FREQUENCIES": digest(*found), "SAMPLE": digest(sample[0]), "frequency": found[1], "sample": sample[0]}
