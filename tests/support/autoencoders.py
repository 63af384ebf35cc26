"""Random small autoencoders for tests: both transforms, every part switched on and off, numbers that saturate."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from training.networks.autoencoder import Autoencoder
from vqcodec.model.autoencoder import IntegerAutoencoder, load_autoencoder
from vqcodec.model.config import AutoencoderConfig, CodeMap
from vqcodec.model.integer_network import Kernel, Offsets
from vqcodec.ops.reference import integer_network as reference


@st.composite
def autoencoder_configs(draw: st.DrawFn) -> AutoencoderConfig:
    """One to three strides, one to three maps at each, some of which refine channels of others."""
    transform = draw(st.sampled_from(["lapped", "conv"]))
    if transform == "lapped":
        strides = [32, 16, 8][-draw(st.integers(1, 3)) :]
    else:
        strides = sorted(draw(st.sets(st.sampled_from([2, 4, 8, 16]), min_size=1, max_size=3)), reverse=True)
    maps: list[CodeMap] = []
    for stride in strides:
        dim = draw(st.integers(1, 4))
        maps.append(CodeMap(stride, dim, draw(st.integers(3, 9))))
        taken = dim
        for _ in range(draw(st.integers(0, 2))):
            dim = draw(st.integers(1, taken))
            refines = draw(st.none() | st.integers(0, taken - dim))
            maps.append(CodeMap(stride, dim, draw(st.integers(3, 9)), refines))
            taken += dim if refines is None else 0
    return AutoencoderConfig(
        maps=tuple(maps),
        transform=transform,
        hidden=draw(st.integers(12, 20)),
        residual=draw(st.integers(1, 9)),
        encoder_blocks=draw(st.integers(0, 2)),
        decoder_blocks=draw(st.integers(0, 2)),
        refine=draw(st.integers(1, 9)),
        refine_blocks=draw(st.integers(0, 2)),
        encoder_kernel=draw(st.sampled_from([1, 3, 5])),
        upsample_kernel=draw(st.sampled_from([2, 4, 6])),
        levels=2,
    )


def random_images(config: AutoencoderConfig, rows: int, columns: int, seed: int) -> np.ndarray:
    """rows x columns units of the coarsest stride: H x W x 3 uint8, black, white and noise."""
    unit = config.strides[0]
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (rows * unit, columns * unit, 3), np.uint8)
    image[: rng.integers(0, rows * unit + 1)] = rng.choice([0, 128, 255])
    return image


def random_autoencoder(config: AutoencoderConfig, seed: int, *, gain: float = 1.5) -> Autoencoder:
    """Quantised, in float64. With ``gain`` 1 values mostly stay within their formats; above, more saturate."""
    torch.manual_seed(seed)
    model = Autoencoder(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            else:
                taps = parameter[0].numel() if parameter.shape[0] else 1
                parameter.normal_(std=taps**-0.5)
        for quantizer in model.quantizers:
            quantizer.codebook.normal_(std=2.0)
            quantizer.usage.uniform_(0.01, 1)
        model.calibrate(torch.rand(1, 3, config.strides[0], 2 * config.strides[0], dtype=torch.float64))
        for parameter in model.parameters():
            parameter.mul_(gain)
    model.quantized = True
    return model


def integer_autoencoder(model: Autoencoder) -> IntegerAutoencoder:
    return load_autoencoder(model.config, model.export())


def random_code_maps(config: AutoencoderConfig, height: int, width: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, m.codes, (height // m.stride, width // m.stride)) for m in config.maps]


def random_kernel(rng: np.random.Generator, inputs: int, outputs: int, offsets: Offsets, *, shift: int = 6) -> Kernel:
    """Weights over their whole range, where sums allow it."""
    phases, taps = len(offsets), len(offsets[0])
    most = min(127, 2**30 // (taps * inputs * 2**15))  # sums must fit int32
    return Kernel(
        rng.integers(-most, most + 1, (phases, outputs, taps, inputs)).astype(np.int8),
        rng.integers(-(2**20), 2**20, (phases, outputs)).astype(np.int32),
        rng.integers(0, shift + 1, (phases, outputs)).astype(np.uint8),
        offsets,
    )


def nearest_codes(autoencoder: IntegerAutoencoder, image: np.ndarray) -> list[np.ndarray]:
    """The nearest codes, whatever their bits, of H x W x 3 uint8 (multiples of the coarsest stride)."""
    config = autoencoder.config
    height, width = image.shape[:2]
    features = reference.run(autoencoder.analysis, [reference.pixel_plane(image)])
    maps: list[np.ndarray] = []
    for number, stride in enumerate(config.strides):
        above = reference.vectors(autoencoder, maps, height, width)[:number]
        left = reference.run(autoencoder.latent[stride], [features[number], *above])[0].astype(np.int64)
        for channels in config.channels(stride):
            book = autoencoder.codebooks[len(maps)].astype(np.int64)
            maps.append(np.square(left[:, :, None, channels] - book).sum(3).argmin(2))
            left[..., channels] -= book[maps[-1]]
    return maps
