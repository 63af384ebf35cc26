"""Whatever the user calls an image <-> :class:`Picture`. No torch import.

Policies, where Pillow leaves a choice:

* EXIF orientation is applied to the pixels and its tag removed from the EXIF that is kept.
* 16-bit pictures are scaled to 8 bits: round(v / 257).
* Animations: the first frame, with a warning.
* CMYK pictures are converted by Pillow; their ICC profile, which describes inks, is dropped.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vqcodec.errors import ImageError, InvalidArgument

ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """Pixels and what goes with them."""

    pixels: np.ndarray  #: H x W x 3 uint8
    grey: bool = False  #: the picture had one channel
    alpha: np.ndarray | None = None  #: H x W uint8
    metadata: dict[str, bytes] = field(default_factory=dict)  #: "icc", "exif", "xmp"


def to_array(image: Any) -> Picture:
    """Read ``image``: a PIL image, a path, a NumPy array or a torch tensor.

    Arrays: uint8, H x W, H x W x 1, x 3 or x 4 (alpha last). Tensors: uint8 or float in [0, 1],
    H x W, 1 x H x W, 3 x H x W or 4 x H x W.

    Raises :class:`ImageError` if a file or its kind of picture cannot be read, and
    :class:`InvalidArgument` for another type, shape or dtype.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, (str, os.PathLike)):
        return _from_file(image)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_tensor(image, torch)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise InvalidArgument(f"expected a PIL image, a path, a NumPy array or a torch tensor, got {type(image).__name__}")


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image of mode RGB, L, RGBA or LA, with the metadata in ``.info``."""
    image = Image.fromarray(picture.pixels[:, :, 0] if picture.grey else picture.pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
    image.info.update({names[name]: data for name, data in picture.metadata.items()})
    return image


def _from_file(path: str | os.PathLike[str]) -> Picture:
    name = os.fspath(path)
    try:
        with Image.open(path) as image:
            return _from_pil(image)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, EOFError) as error:  # what Pillow's readers raise on damage
        raise ImageError(f"{name}: {error}") from error


def _from_pil(image: Image.Image) -> Picture:
    if getattr(image, "n_frames", 1) > 1:
        warnings.warn(f"the image has {image.n_frames} frames; only the first is used", stacklevel=4)
        image.seek(0)
    try:
        image.load()
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"the image cannot be read: {error}") from error
    metadata = _metadata(image)
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        metadata.pop("icc", None)
    if image.mode.startswith("I") or image.mode == "F":
        return Picture(_grey(_sixteen_to_eight(image)), grey=True, metadata=metadata)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if transparent:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    return Picture(np.array(image.convert("RGB")), grey, alpha, metadata)


def _metadata(image: Image.Image) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if isinstance(image.info.get("icc_profile"), bytes):
        found["icc"] = image.info["icc_profile"]
    exif = image.getexif()
    exif.pop(ORIENTATION, None)
    if len(exif):
        found["exif"] = exif.tobytes()
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if xmp:
        found["xmp"] = xmp.encode() if isinstance(xmp, str) else xmp
    return {name: data for name, data in found.items() if data}


def _sixteen_to_eight(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ImageError("float pictures (mode F) have no defined range; convert to 8 or 16 bits first")
    values = np.asarray(image).astype(np.int64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ImageError(f"integer pictures must lie within 0..65535, found {values.min()}..{values.max()}")
    return ((values + 128) // 257).astype(np.uint8)


def _grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[:, :, None], 3, 2)


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype != np.uint8:
        raise InvalidArgument(f"expected a uint8 array, got {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InvalidArgument(f"expected an array H x W, H x W x 1, x 3 or x 4, got shape {array.shape}")
    if 0 in array.shape:
        raise InvalidArgument(f"the picture has no pixels: shape {array.shape}")
    if array.shape[2] == 1:
        return Picture(_grey(array[:, :, 0]), grey=True)
    alpha = array[:, :, 3].copy() if array.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(array[:, :, :3]), alpha=alpha)


def _from_tensor(tensor: Any, torch: Any) -> Picture:
    if tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4) or tensor.ndim not in (2, 3):
        raise InvalidArgument(f"expected a tensor H x W, 1 x H x W, 3 x H x W or 4 x H x W, got shape {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if tensor.numel() and not (tensor.min() >= 0 and tensor.max() <= 1):  # NaN fails too
            raise InvalidArgument(f"a float tensor must lie in [0, 1], found {float(tensor.min())} to {float(tensor.max())}")
        tensor = tensor.float().mul(255).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise InvalidArgument(f"expected a uint8 or float tensor, got {tensor.dtype}")
    array = tensor.numpy()
    return _from_array(array.transpose(1, 2, 0) if array.ndim == 3 else array)


def read_stream(data: bytes) -> Image.Image:
    """A PIL image from a file's bytes (standard input); :class:`ImageError` if Pillow cannot read it."""
    try:
        return Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ImageError(f"not an image that Pillow can read ({error})") from error
