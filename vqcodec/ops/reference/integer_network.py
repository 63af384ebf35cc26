"""Integer networks and the autoencoder's pixels in NumPy: the definition that every backend is tested against.

Readable, exact and slow; whole planes are held at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import (
    PIXELS_IN,
    PIXELS_OUT,
    Activation,
    Add,
    Concatenate,
    Convolution,
    IntegerNetwork,
    Kernel,
    Layer,
    Residual,
    Unshuffle,
    sources,
)
from vqcodec.ops.reference.prior import rounding_shift, saturate


def activate(x: np.ndarray, activation: Activation) -> np.ndarray:
    """leaky has the slope 1/8 below zero, rounded: -5 -> -1, -4 -> 0."""
    if activation == "relu":
        return np.maximum(x, 0)
    return np.where(x < 0, (x + 4) >> 3, x) if activation == "leaky" else x


def convolve(x: np.ndarray, kernel: Kernel, stride: int = 1, upscale: int = 1) -> np.ndarray:
    """Rounded sums of an H x W x C plane: int64, before activation and saturation.

    Coordinates are clamped to the plane: outside, its edge goes on.
    """
    rows, columns = x.shape[0] // stride, x.shape[1] // stride
    made = np.empty((rows, upscale, columns, upscale, kernel.outputs), np.int64)
    for phase, taps in enumerate(kernel.offsets):
        sums = np.broadcast_to(kernel.bias[phase].astype(np.int64), (rows, columns, kernel.outputs)).copy()
        for tap, (dy, dx) in enumerate(taps):
            y = np.clip(np.arange(rows) * stride + dy, 0, x.shape[0] - 1)
            z = np.clip(np.arange(columns) * stride + dx, 0, x.shape[1] - 1)
            # float64 holds these integers exactly, and multiplies matrices faster than int64.
            sums += (x[y[:, None], z].astype(np.float64) @ kernel.weight[phase, :, tap].T.astype(np.float64)).astype(
                np.int64
            )
        made[:, phase // upscale, :, phase % upscale] = rounding_shift(sums, kernel.shift[phase].astype(np.int64))
    return made.reshape(rows * upscale, columns * upscale, kernel.outputs)


def apply(layer: Layer, read: Sequence[np.ndarray]) -> np.ndarray:
    """The plane that a layer makes from those that it reads, all int16, H x W x C."""
    if isinstance(layer, Unshuffle):
        (x,), f = read, layer.factor
        h, w, c = x.shape
        return x.reshape(h // f, f, w // f, f, c).transpose(0, 2, 1, 3, 4).reshape(h // f, w // f, f * f * c)
    if isinstance(layer, Convolution):
        return saturate(
            activate(convolve(read[0], layer.kernel, layer.stride, layer.upscale), layer.activation), np.int16
        )
    if isinstance(layer, Residual):
        inner = saturate(activate(convolve(read[0], layer.first), "leaky"), np.int16)
        return saturate(activate(read[0] + convolve(inner, layer.second), layer.activation), np.int16)
    if isinstance(layer, Concatenate):
        return np.concatenate(read, 2)
    a, b = (x.astype(np.int64) for x in read)
    return saturate(a + b if isinstance(layer, Add) else a - b, np.int16)


def run(network: IntegerNetwork, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a network for its inputs, all H x W x C int16.

    Raises :class:`ValueError` unless there are as many planes as the network has inputs, of its channels and of
    sizes that are those of one image.
    """
    check_planes(network, planes)
    made = list(planes)
    for layer in network.layers:
        made.append(apply(layer, [made[source] for source in sources(layer)]))
    return [made[output] for output in network.outputs]


def check_planes(network: IntegerNetwork, planes: Sequence[np.ndarray]) -> None:
    """Raise :class:`ValueError` unless ``planes`` are what a network takes."""
    if len(planes) != len(network.inputs) or any(x.dtype != np.int16 or x.ndim != 3 for x in planes):
        raise ValueError(
            f"expected {len(network.inputs)} planes, height x width x channels, int16, "
            f"got {[(str(x.dtype), x.shape) for x in planes]}"
        )
    height, width = (size * network.inputs[0].stride for size in planes[0].shape[:2])
    expected = network.sizes(height, width)[: len(planes)]
    if not height or not width or [x.shape for x in planes] != expected:
        raise ValueError(f"expected planes of {expected}, not empty, got {[x.shape for x in planes]}")


def pixel_plane(pixels: np.ndarray) -> np.ndarray:
    """What enters the analysis, H x W x 3 int16, from H x W x 3 uint8."""
    return pixels.astype(np.int16) - 2 ** (PIXELS_IN - 1)


def pixels(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """H x W x 3 uint8 from what the synthesis makes: one or two planes, H x W x 3 int16."""
    total = a.astype(np.int32) if b is None else a.astype(np.int32) + b
    shift = PIXELS_OUT - PIXELS_IN
    return np.clip(((total + (1 << shift >> 1)) >> shift) + 2 ** (PIXELS_IN - 1), 0, 255).astype(np.uint8)


def vectors(autoencoder: IntegerAutoencoder, maps: Sequence[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """The vectors of each stride, coarse to fine, H/stride x W/stride x D int16, from code maps.

    height, width: of the padded image. maps: H/stride x W/stride each. The maps of a stride lie side
    by side; those that refine add to the channels of others. Maps that are missing count as zero vectors.
    """
    config, found = autoencoder.config, []
    for stride in config.strides:
        total = np.zeros((height // stride, width // stride, config.latent_dim(stride)), np.int16)
        for number, channels in enumerate(config.channels(stride), config.maps_before(stride)):
            if number < len(maps):
                sums = total[..., channels].astype(np.int32) + autoencoder.codebooks[number][maps[number]]
                total[..., channels] = saturate(sums, np.int16)
        found.append(total)
    return found


def decode(autoencoder: IntegerAutoencoder, maps: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pixels of a whole padded image, height x width x 3 uint8, from its code maps."""
    return pixels(*run(autoencoder.synthesis, vectors(autoencoder, maps, height, width)))
