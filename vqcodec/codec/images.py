"""Conversion between the kinds of images that users have and ``RasterImage``. Imports no torch.

Where Pillow leaves a choice:

- The EXIF orientation is applied to the pixels, and the EXIF that is kept then says
  "upright". Nothing else in it changes.
- 16-bit grey becomes 8-bit, unless all bits are asked for: round(v / 257). (Pillow itself reduces 16-bit colour to 8 bits.)
- CMYK and LAB become sRGB, using the ICC profile if there is one. The profile,
  which no longer describes the pixels, is dropped.
- If there are several frames, a file gives the first and an opened PIL image its current one,
  with a warning. (The additional images of an MPO file, as written by cameras, are not frames.)
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from vqcodec.errors import ImageError, InvalidArgument, LimitExceeded, VqcodecError
from vqcodec.locks import Lock

_EXIF_HEADER = b"Exif\0\0"
_ORIENTATION = ExifTags.Base.Orientation
_UPRIGHT = 1
_STRIP = 1024  # rows
_LIFTING = Lock()  # Pillow's limit is global
# The TIFF tags worth keeping; the others describe how the pixels are stored.
_DESCRIPTIVE = {
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
    ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RasterImage:
    """Pixels and the data that belong to them.

    pixels: uint8 (or uint16, where that was asked for), H x W x 3, sRGB unless an ICC profile says otherwise.
    grey: the image has one channel, so those of ``pixels`` are equal.
    alpha: uint8, H x W, 255 is opaque; or None.
    metadata: any of "icc", "exif" (with its "Exif" header) and "xmp".
    """

    pixels: np.ndarray
    grey: bool = False
    alpha: np.ndarray | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)


def to_array(image: Any, most: int | None = None, *, lift: bool = False, deep: bool = False) -> RasterImage:
    """Read ``image``.

    image: a path, a binary file object or the bytes of an image file that Pillow can read; a PIL
    image; a NumPy array, H x W, or H x W x 1, 3 or 4 (alpha last), or a torch tensor, H x W, or
    1, 3 or 4 x H x W, uint8, uint16 or float in [0, 1].
    most: pixels; a file with more raises ``LimitExceeded`` before they are decoded.
    deep: keep the bits of 16-bit images, whose pixels are then uint16.
    lift: instead of Pillow's own limit, ``PIL.Image.MAX_IMAGE_PIXELS``, which applies otherwise.

    Raises ``ImageError`` for an image that cannot be read or is of an unsupported kind,
    ``InvalidArgument`` for another type, shape or dtype, and ``FileNotFoundError``.
    """
    if isinstance(image, Image.Image):
        with _reading("the image"):
            return _from_pil(image, most, deep)
    if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
        return _from_file(image, most, lift, deep)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(image), most, lift, deep)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_tensor(image, deep)
    if isinstance(image, np.ndarray):
        return _from_array(image, deep)
    raise InvalidArgument(
        "image must be a PIL image, a path, a binary file or its bytes, a NumPy array or a torch tensor, "
        f"got {type(image).__name__}"
    )


def to_pil(raster: RasterImage) -> Image.Image:
    """A PIL image of mode RGB, L, RGBA or LA; metadata in ``.info``, where Pillow's writers look.

    16-bit grey has mode I;16 if it has no alpha. Pillow has no mode for more: it is reduced to 8 bits, with a warning.
    """
    pixels = raster.pixels
    if pixels.dtype == np.uint16 and not (raster.grey and raster.alpha is None):
        warnings.warn("Pillow's images have no 16-bit colour: it is reduced to 8 bits", stacklevel=3)
        pixels = _eight_bits(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if raster.grey else pixels)
    if raster.alpha is not None:
        image.putalpha(Image.fromarray(raster.alpha))
    describe(image, raster.metadata)
    return image


def describe(image: Image.Image, metadata: dict[str, bytes]) -> None:
    """Put metadata where Pillow's writers look."""
    names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
    image.info |= {names[name]: content for name, content in metadata.items()}


# -- files and PIL images ----------------------------------------------------------------


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns any error of Pillow into an ``ImageError`` about ``name``."""
    try:
        yield
    except (VqcodecError, MemoryError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: must be an image that Pillow can read, found something else") from error
    except Exception as error:  # damaged files can raise almost any error inside Pillow's readers
        raise ImageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _from_file(file: Any, most: int | None, lift: bool, deep: bool) -> RasterImage:
    name = "the image" if hasattr(file, "read") else os.fspath(file)
    with _reading(name), _opened(file, lift) as image:
        return _from_pil(image, most, deep)


def _opened(file: Any, lift: bool) -> Image.Image:
    if not lift:
        return Image.open(file)
    with _LIFTING:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)  # reads the size only: _from_pil judges it
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _from_pil(image: Image.Image, most: int | None, deep: bool) -> RasterImage:
    if 0 in image.size:
        raise InvalidArgument(f"the image must have pixels, got {image.width} x {image.height}")
    if most is not None and image.width * image.height > most:
        raise LimitExceeded(f"at most {most} pixels are allowed, found {image.width} x {image.height}")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", "several")
        warnings.warn(f"only one of the image's {frames} frames is used", stacklevel=4)
    if deep and not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        raise ImageError("16-bit colours are reduced to 8 bits by Pillow: pass a uint16 array to store all of them")
    image.load()
    image, metadata = _upright(image)
    if image.mode == "F":
        raise ImageError("float images (mode F) have no agreed range: convert the image to 8 or 16 bits first")
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, metadata, deep)
    if image.mode in ("CMYK", "LAB"):
        return RasterImage(_array(_to_srgb(image, metadata.pop("icc", None))), metadata=metadata)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode == "La":
        image = image.convert("LA")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return RasterImage(_array(image), grey, alpha, metadata)


def _array(image: Image.Image) -> np.ndarray:
    """The colours of an image. Done in strips, because Pillow would make complete copies."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for y in range(0, image.height, _STRIP):
        strip = image.crop((0, y, image.width, min(y + _STRIP, image.height)))
        pixels[y : y + _STRIP] = np.asarray(strip.convert("RGB"))
    return pixels


def _from_sixteen_bits(image: Image.Image, metadata: dict[str, bytes], deep: bool) -> RasterImage:
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"integer images must lie in 0..65535, found {values.min()}..{values.max()}")
    alpha = None
    if isinstance(key := image.info.get("transparency"), int):
        alpha = np.where(values == key, 0, 255).astype(np.uint8)
    pixels = _three_channels(values.astype(np.uint16))
    return RasterImage(pixels if deep else _eight_bits(pixels), True, alpha, metadata)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """uint16 as uint8."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    converted = None
    if profile and image.mode == "CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ImportError):  # a bad profile, or Pillow without LittleCMS
            warnings.warn("the image's ICC profile cannot be used and is ignored", stacklevel=6)
    return converted or image.convert("RGB")


# -- metadata ----------------------------------------------------------------------------


def _upright(image: Image.Image) -> tuple[Image.Image, dict[str, bytes]]:
    """The image, rotated upright, and its metadata, changed to match."""
    try:
        exif = image.getexif()
        raw = image.info.get("exif") or _described(exif)
        if exif.get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            image = ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF reader may fail on buggy camera output; the pixels are fine
        warnings.warn("the image's EXIF cannot be read and is left out", stacklevel=5)
        raw = b""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    metadata = {
        "icc": image.info.get("icc_profile") or b"",
        "exif": _say_upright(raw),
        "xmp": xmp.encode() if isinstance(xmp, str) else xmp,
    }
    return image, {name: content for name, content in metadata.items() if content}


def _described(exif: Image.Exif) -> bytes:
    """EXIF from tags (of a TIFF file or set by the caller), without those about storage."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in set(ExifTags.IFD) else exif[tag]
    return kept.tobytes() if len(kept) else b""


def _say_upright(exif: bytes) -> bytes:
    """``exif`` with its header and, if there is an orientation tag, the value 1 in it."""
    if not exif:
        return b""
    tiff = bytearray(exif.removeprefix(_EXIF_HEADER))
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION:
                struct.pack_into(f"{order}{'I' if kind == 4 else 'H'}", tiff, entry + 8, _UPRIGHT)
    except struct.error:  # not TIFF, or truncated: nothing to find in it
        pass
    return _EXIF_HEADER + bytes(tiff)


# -- arrays ------------------------------------------------------------------------------


def _three_channels(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2)


def _from_array(array: np.ndarray, deep: bool) -> RasterImage:
    if array.dtype.kind == "f":
        array = _from_float("array", array)
    if array.dtype not in (np.uint8, np.uint16):
        raise InvalidArgument(f"an array must be uint8, uint16 or float, got {array.dtype}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InvalidArgument(f"an array must be H x W, or H x W x 1, 3 or 4, got shape {array.shape}")
    if 0 in array.shape:
        raise InvalidArgument(f"the image must have pixels, got shape {array.shape}")
    if array.ndim == 2 or array.shape[2] == 1:
        array = array.reshape(array.shape[:2])
        return RasterImage(_three_channels(array if deep else _shallow(array)), grey=True)
    alpha = None
    if array.shape[2] == 4:
        if deep and array.dtype == np.uint16:
            raise InvalidArgument("alpha has 8 bits: an array of uint16 with alpha cannot be stored exactly")
        alpha = np.ascontiguousarray(_shallow(array[..., 3]))
    array = array[..., :3]
    return RasterImage(np.ascontiguousarray(array if deep else _shallow(array)), alpha=alpha)


def _shallow(array: np.ndarray) -> np.ndarray:
    return _eight_bits(array) if array.dtype == np.uint16 else array


def _from_float(name: str, array: np.ndarray) -> np.ndarray:
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN fails too
        raise InvalidArgument(f"a float {name} must lie in [0, 1], found {array.min()} to {array.max()}")
    return np.rint(array.astype(np.float64, copy=False) * 255).astype(np.uint8)


def _from_tensor(tensor: Any, deep: bool) -> RasterImage:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3, 4)):
        raise InvalidArgument(f"a tensor must be H x W, or 1, 3 or 4 x H x W, got shape {shape}")
    if str(tensor.layout) != "torch.strided" or tensor.is_meta:
        raise InvalidArgument(f"a tensor must be dense and hold data, got layout {tensor.layout} on {tensor.device}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        array = _from_float("tensor", tensor.double().numpy())
    elif str(tensor.dtype) in ("torch.uint8", "torch.uint16"):
        array = tensor.numpy()
    else:
        raise InvalidArgument(f"a tensor must be uint8, uint16 or float, got {tensor.dtype}")
    return _from_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, deep)


# -- how alike two are -------------------------------------------------------------------


def psnr(a: Any, b: Any) -> float:
    """Peak signal-to-noise ratio in dB of two 8-bit images of the same shape, PIL images or arrays; infinite if they are equal."""
    a, b = np.asarray(a), np.asarray(b)
    squares = sum(
        float(np.square(x.astype(np.float32) - y).sum(dtype=np.float64)) for x, y in zip(a, b)
    )  # row by row: little memory
    return 10 * math.log10(255**2 * a.size / squares) if squares else math.inf
