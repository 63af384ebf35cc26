"""Running the integer autoencoder: pixels from code maps, latents from pixels, codes for latents.

Every op takes ``backend``, the name of who computes it (`vqcodec.ops.backend`): all give the same integers. Images
are padded: heights and widths are multiples of the coarsest stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import IntegerNetwork
from vqcodec.ops import backend as backends
from vqcodec.ops.jobs import check_codes, code_map
from vqcodec.ops.reference import integer_network
from vqcodec.tiling import Box


def run_network(
    network: IntegerNetwork, planes: Sequence[np.ndarray], *, backend: str | None = None
) -> list[np.ndarray]:
    """The outputs of a network, height x width x channels each, int16, from its input planes.

    Raises InvalidArgument unless there are as many planes as inputs, of their channels, and of sizes that are
    those of one image.
    """
    planes = [np.ascontiguousarray(x) for x in planes]
    try:
        integer_network.check_planes(network, planes)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    return backends.backend(backend).run_network(network, planes)


def autoencoder_pixels(
    autoencoder: IntegerAutoencoder,
    maps: Sequence[np.ndarray],
    height: int,
    width: int,
    box: Box | None = None,
    *,
    backend: str | None = None,
) -> np.ndarray:
    """Pixels of a box (default: all) of an image of height x width pixels from its code maps: h x w x 3 uint8.

    maps: height/stride x width/stride integers each, coarse to fine. Fewer than the model has give the coarser image: the
    missing ones count as zero vectors.
    Raises InvalidArgument for sizes, maps, codes or a box that do not fit.
    """
    _check_size(autoencoder, height, width)
    known = autoencoder.config.maps[: len(maps)]
    if len(known) < len(maps):
        raise InvalidArgument(f"the model has {len(known)} code maps, got {len(maps)}")
    checked = [
        _checked_map(number, codes, height // m.stride, width // m.stride, m.codes)
        for number, (m, codes) in enumerate(zip(known, maps))
    ]
    whole = Box(0, 0, width, height)
    box = whole if box is None else Box(*box)
    if not (box.x0 < box.x1 and box.y0 < box.y1 and box.within(whole)):
        raise InvalidArgument(f"box must lie in {width} x {height} pixels and hold some, got {tuple(box)}")
    return backends.backend(backend).autoencoder_pixels(autoencoder, checked, height, width, box)


def autoencoder_features(
    autoencoder: IntegerAutoencoder, pixels: np.ndarray, *, backend: str | None = None
) -> list[np.ndarray]:
    """Features of every stride, coarse to fine, height/stride x width/stride x channels int16, of H x W x 3 uint8 pixels.

    Raises InvalidArgument for another type or a size that is not padded.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InvalidArgument(f"pixels must be H x W x 3 uint8, got {pixels.dtype} {pixels.shape}")
    _check_size(autoencoder, *pixels.shape[:2])
    return backends.backend(backend).autoencoder_features(autoencoder, np.ascontiguousarray(pixels))


def autoencoder_latents(
    autoencoder: IntegerAutoencoder,
    stride: int,
    features: np.ndarray,
    maps: Sequence[np.ndarray],
    *,
    backend: str | None = None,
) -> np.ndarray:
    """What the maps of a stride quantise, height/stride x width/stride x D int16, from its features and the coarser maps.

    Raises InvalidArgument for features or maps that do not fit.
    """
    config = autoencoder.config
    if stride not in config.strides:
        raise InvalidArgument(f"stride must be one of {', '.join(map(str, config.strides))}, got {stride}")
    expected = autoencoder.latent[stride].inputs[0].channels
    if features.dtype != np.int16 or features.ndim != 3 or features.shape[2] != expected:
        raise InvalidArgument(f"features must be h x w x {expected} int16, got {features.dtype} {features.shape}")
    height, width = (side * stride for side in features.shape[:2])
    _check_size(autoencoder, height, width)
    coarser = config.maps[: config.maps_before(stride)]
    if len(maps) > len(coarser):
        raise InvalidArgument(f"stride {stride} has {len(coarser)} coarser maps, got {len(maps)}")
    checked = [
        _checked_map(number, codes, height // m.stride, width // m.stride, m.codes)
        for number, (m, codes) in enumerate(zip(coarser, maps))
    ]
    return backends.backend(backend).autoencoder_latents(autoencoder, stride, np.ascontiguousarray(features), checked)


# -- checks --------------------------------------------------------------------------------


def _check_size(autoencoder: IntegerAutoencoder, height: int, width: int) -> None:
    unit = autoencoder.config.strides[0]
    if height < 1 or width < 1 or height % unit or width % unit:
        raise InvalidArgument(f"sizes must be multiples of {unit}, got {width} x {height}")


def _checked_map(number: int, codes: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    codes = code_map(f"map {number}", codes)
    if codes.shape != (height, width):
        raise InvalidArgument(f"map {number} must be {height} x {width}, got {codes.shape}")
    check_codes(f"map {number}", codes, size)
    return codes
