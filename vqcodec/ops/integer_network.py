"""Running integer networks, and the autoencoder that is made of them.

Every op takes ``backend`` as those of `vqcodec.ops.prior` do; all give the same integers, on any number of
threads. A GPU has no kernels for them yet: the compiled core of the CPU computes there.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.ops import cpu
from vqcodec.ops.reference import integer_network as reference

if TYPE_CHECKING:
    from vqcodec.model.autoencoder import IntegerAutoencoder
    from vqcodec.model.integer_network import IntegerNetwork, Kernel, Layer

__all__ = ["autoencoder_features", "autoencoder_latents", "autoencoder_pixels", "run_network"]


def run_network(network: IntegerNetwork, planes: Sequence[np.ndarray], *, backend: str | None = None) -> list[np.ndarray]:
    """The outputs of a network, height x width x channels each, int16, from its input planes.

    Raises InvalidArgument unless there are as many planes as inputs, of their channels, and of sizes that are
    those of one image.
    """
    for number, plane in enumerate(planes):
        if not isinstance(plane, np.ndarray) or plane.dtype != np.int16 or plane.ndim != 3:
            raise InvalidArgument(f"plane {number} must be height x width x channels, int16")
    variant = cpu_variant(backend)
    if variant is None:
        try:
            return reference.run(network, planes)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
    return cpu.run_network(_packed(network, _load_network), [np.ascontiguousarray(x) for x in planes], variant)


def autoencoder_pixels(
    autoencoder: IntegerAutoencoder,
    maps: Sequence[np.ndarray],
    window: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
    *,
    backend: str | None = None,
) -> np.ndarray:
    """Pixels, height x width x 3 uint8, from code maps, coarse to fine; the last maps may be missing.

    window: height and width of the image, multiples of all strides.
    box: top, left, height and width of the pixels that are wanted, by default all.
    Raises InvalidArgument for maps of other sizes and codes that their codebooks do not have.
    """
    height, width = window
    top, left, rows, columns = box if box is not None else (0, 0, height, width)
    maps = _code_maps(maps)
    variant = cpu_variant(backend)
    if variant is not None:
        return cpu.autoencoder_pixels(_packed(autoencoder, _load_autoencoder), maps, window, (top, left, rows, columns), variant)
    _check_maps(autoencoder, maps, height, width)
    if min(top, left, rows, columns) < 0 or top + rows > height or left + columns > width:
        raise InvalidArgument("the box must lie within the window")
    return reference.decode(autoencoder, maps, height, width)[top : top + rows, left : left + columns].copy()


def autoencoder_features(autoencoder: IntegerAutoencoder, pixels: np.ndarray, *, backend: str | None = None) -> list[np.ndarray]:
    """The analysis: int16 features of every stride, coarse to fine, of height x width x 3 uint8."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InvalidArgument("pixels must be height x width x 3, uint8")
    variant = cpu_variant(backend)
    if variant is None:
        return run_network(autoencoder.analysis, [reference.pixel_plane(pixels)], backend="reference")
    return cpu.autoencoder_features(_packed(autoencoder, _load_autoencoder), np.ascontiguousarray(pixels), variant)


def autoencoder_latents(
    autoencoder: IntegerAutoencoder,
    stride: int,
    features: np.ndarray,
    maps: Sequence[np.ndarray],
    *,
    backend: str | None = None,
) -> np.ndarray:
    """What the maps of ``stride`` quantise, height x width x dim int16, from its features and all coarser maps."""
    number = autoencoder.config.strides.index(stride)
    maps = _code_maps(maps)
    variant = cpu_variant(backend)
    if variant is not None:
        packed = _packed(autoencoder, _load_autoencoder)
        return cpu.autoencoder_latents(packed, number, np.ascontiguousarray(features), maps, variant)
    height, width = (side * stride for side in features.shape[:2])
    _check_maps(autoencoder, maps, height, width)
    above = reference.vectors(autoencoder, maps, height, width)[:number]
    return run_network(autoencoder.latent[stride], [features, *above], backend="reference")[0]


def cpu_variant(backend: str | None) -> str | None:
    """The instruction set, "" for the best; None is the reference."""
    name = backend or os.environ.get("VQCODEC_BACKEND") or "native"
    if name == "reference":
        return None
    return "" if name == "native" or name.startswith("cuda") else name


def _code_maps(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    for number, codes in enumerate(maps):
        if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu" or codes.ndim != 2:
            raise InvalidArgument(f"map {number} must be a height x width array of integers")
        if codes.dtype.itemsize > 4 and codes.size and not -(2**31) <= codes.min() <= codes.max() < 2**31:
            raise InvalidArgument(f"map {number}: codes must be in 0..{2**31 - 1}")
    return [np.ascontiguousarray(codes, np.int32) for codes in maps]


def _check_maps(autoencoder: IntegerAutoencoder, maps: Sequence[np.ndarray], height: int, width: int) -> None:
    """What the compiled core checks, for the reference."""
    if len(maps) > len(autoencoder.config.maps):
        raise InvalidArgument(f"expected at most {len(autoencoder.config.maps)} maps, got {len(maps)}")
    for number, (m, codes) in enumerate(zip(autoencoder.config.maps, maps)):
        if height % m.stride or width % m.stride or codes.shape != (height // m.stride, width // m.stride):
            raise InvalidArgument(f"map {number}: must be {height // m.stride} x {width // m.stride} codes, got {codes.shape}")
        if codes.size and not 0 <= codes.min() <= codes.max() < m.codes:
            raise InvalidArgument(f"map {number}: codes must be in 0..{m.codes - 1}")


_loaded: dict[int, Any] = {}


def _packed(definition: Any, load: Callable[[Any], Any]) -> Any:
    """A network or an autoencoder packed for the core: once, and as long as its definition lives."""
    key = id(definition)
    if key not in _loaded:
        packed = load(definition)
        weakref.finalize(definition, _loaded.pop, key, None)
        _loaded[key] = packed
    return _loaded[key]


def _load_network(network: IntegerNetwork) -> Any:
    inputs = [(shape.channels, shape.stride) for shape in network.inputs]
    return cpu.load_network(inputs, [layer_tuple(layer) for layer in network.layers], list(network.outputs))


def _load_autoencoder(autoencoder: IntegerAutoencoder) -> Any:
    parts = zip(autoencoder.config.maps, autoencoder.codebooks)
    maps = [(m.stride, m.residual, np.ascontiguousarray(book)) for m, book in parts]
    latents = [_load_network(autoencoder.latent[stride]) for stride in autoencoder.config.strides]
    return cpu.load_autoencoder(maps, _load_network(autoencoder.analysis), latents, _load_network(autoencoder.synthesis))


def layer_tuple(layer: Layer) -> tuple[Any, ...]:
    """A layer as the compiled core takes it (csrc/bindings/integer_network.cpp)."""
    from vqcodec.model import integer_network as definition

    match layer:
        case definition.Unshuffle(source, factor):
            return "unshuffle", source, factor
        case definition.Convolution(source, kernel, stride, upscale, activation):
            return "convolution", source, _kernel(kernel), stride, upscale, activation
        case definition.Residual(source, first, second, activation):
            return "residual", source, _kernel(first), _kernel(second), activation
        case definition.Concatenate(sources):
            return "concatenate", list(sources)
        case definition.Add(first, second):
            return "add", first, second
        case definition.Subtract(first, second):
            return "subtract", first, second
    raise TypeError(f"no such layer: {layer!r}")


def _kernel(kernel: Kernel) -> tuple[np.ndarray, ...]:
    arrays = kernel.weight, kernel.bias, kernel.shift, np.array(kernel.offsets, np.int32)
    return tuple(np.ascontiguousarray(array) for array in arrays)
