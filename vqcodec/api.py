"""The functions that users call: thin wrappers around :class:`vqcodec.codec.Codec`."""

from __future__ import annotations

import builtins
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vqcodec.codec import codec, images, samples
from vqcodec.codec.codec import Codec
from vqcodec.codec.decoder import CodedImage
from vqcodec.codec.options import DecodeOptions, EncodeOptions, SampleOptions, check_limits, whole_number
from vqcodec.codec.sampler import Classifier
from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Limits
from vqcodec.model.file import Model

if TYPE_CHECKING:
    import PIL.Image

    ModelLike = Model | str | os.PathLike[str] | None
    Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
    Image = PIL.Image.Image | str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | Any


def compress(
    image: Image,
    *,
    quality: float = EncodeOptions.quality,
    effort: int = EncodeOptions.effort,
    class_id: int | str | None = None,
    target_bytes: int | None = None,
    target_psnr: float | None = None,
    lossless: bool = False,
    max_error: int | None = None,
    tile: int | None = None,
    metadata: bool = True,
    limits: Limits | None = None,
    model: ModelLike = None,
    device: str = "cpu",
) -> bytes:
    """Compress an image into the bytes of a ``.vqc`` file.

    ``image``: PIL image, path, binary file or its bytes, array (H x W, H x W x 3 or x 4, uint8 or float in [0, 1]; a memory-mapped
    one of uint8 is read piece by piece) or torch tensor (3 x H x W, likewise). ``quality``: 0 (smallest) to 100
    (lossless). ``effort``:
    0 (fastest) to 9, how many candidates are compared for each code. ``class_id``:
    number or name of one of the model's classes, if known; it only saves bits.

    ``lossless=True`` stores the exact pixels, ``max_error=4`` pixels none of whose samples differs by more than 4 (at most 64). They
    need no model, and ignore effort and class. Files of 16-bit colour, which Pillow would reduce, are refused: pass a uint16 array. Qualities above 95 mean a ``max_error`` of 10, 6 (from 96), 4, 2, 1 (from 99).

    Instead of a quality, give ``target_bytes`` for the best image in at most that many bytes, or ``target_psnr`` for the
    smallest file with at least that PSNR in dB (of the colours, without alpha). Both try several qualities and
    come within 2 % or 0.05 dB of the target if some quality reaches it.

    ``tile``: side of the tiles in pixels, a multiple of 64, or 0 for one tile. Tiles allow
    decoding of regions and parallel work; small ones cost bytes. Default: one tile up to 1024 x 1024 pixels, else 512.
    ``metadata``: keep ICC profile, EXIF and XMP. ``limits``: the largest number of pixels
    allowed, by default 2**28 or ``PIL.Image.MAX_IMAGE_PIXELS``, whichever is less. ``model``: a model
    file, a loaded model, or None for the shipped one. ``device``: "cpu", "cuda" or "cuda:1", see :class:`~vqcodec.Codec`.

    Images are converted to 8-bit RGB or grey, with alpha if they have it: 16-bit grey (integers from 0 to 65535) and uint16 arrays are
    divided by 257 and rounded, unless ``lossless`` or ``max_error`` keeps all bits; palettes, CMYK and other colour spaces are converted, the EXIF orientation is applied to the
    pixels, and the first frame of an animation is used, with a warning. Float images (mode F) are rejected.

    Raises :class:`~vqcodec.errors.ImageError` for an unusable image,
    :class:`~vqcodec.errors.LimitExceeded` for one larger than ``limits`` allows, and
    :class:`~vqcodec.errors.InvalidArgument` for anything else, such as a target that cannot be reached. A file that does not
    exist is a ``FileNotFoundError`` here and in all other functions.

        >>> data = vqcodec.compress("photo.png", quality=50)
        >>> vqcodec.decompress(data).save("back.png")
        >>> small = vqcodec.compress("photo.png", target_bytes=20_000)
    """
    asked = EncodeOptions(
        quality=quality,
        effort=effort,
        class_id=class_id,
        target_bytes=target_bytes,
        target_psnr=target_psnr,
        lossless=lossless,
        max_error=max_error,
        tile=tile,
        metadata=metadata,
        limits=check_limits("limits", limits),
    )
    return Codec(model, device=device).compressed(
        images.to_array(image, asked.limits.pixels, lift=limits is not None, deep=asked.exact), asked
    )


def decompress(
    data: Source,
    *,
    partial: bool = False,
    region: Sequence[int] | None = None,
    scale: int = 1,
    maps: int | None = None,
    complete: str | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    model: ModelLike = None,
    device: str = "cpu",
) -> PIL.Image.Image:
    """The image in ``data``: bytes, a path or a binary file. One that cannot seek, such as a pipe, is read as a whole.

    Mode RGB or L, with A if the file has alpha; I;16 for 16-bit grey (colours of 16 bits are reduced to 8, with a warning:
    ``open(data).decode().pixels`` has them all). Metadata in ``.info``.

    ``region``: (x0, y0, x1, y1) in pixels; only the tiles it needs are read and decoded. ``scale``: 1, 2, 4, 8
    or 16, the factor by which to shrink the image; only the maps it needs are read. ``maps``: use only this many
    maps, for a coarser image at full size.

    ``partial`` accepts a truncated or damaged file and returns the coarser image given by its intact
    maps, with a warning that names the damage (:func:`open` has it as ``.error``). Otherwise any damage raises a
    :class:`~vqcodec.errors.FormatError` that names the chunk. ``complete="sample"`` draws the missing maps
    (because of ``partial`` or ``maps``) from the prior: the details look plausible but are invented;
    ``seed`` determines them.

    ``limits``: :class:`~vqcodec.format.container.Limits` on what a file may require (pixels, chunks, bytes, memory).
    """
    asked = DecodeOptions(partial, region, scale, maps, complete, seed, check_limits("limits", limits))
    coder = Codec(model, device=device)
    with coder.open(_source(data), partial=asked.partial, limits=asked.limits) as coded:
        image = coded.picture(asked)
        if coded.error:
            warnings.warn(f"the image is not complete: {coded.error}", stacklevel=2)
    return image


def open(
    source: Source, *, partial: bool = False, limits: Limits | None = None, model: ModelLike = None, device: str = "cpu"
) -> CodedImage:
    """Open a file (bytes, a path or a seekable binary file) whose image is decoded on demand.

    >>> with vqcodec.open("map.vqc") as coded:
    ...     print(coded.size, coded.header.quality)
    ...     corner = coded.decode(region=(0, 0, 256, 256)).pixels
    ...     for strip in coded.rows():  # h x W x 3 uint8: any image size, little memory
    ...         sink.write(strip)
    """
    return Codec(model, device=device).open(_source(source), partial=partial, limits=limits)


class Decoder:
    """Decodes a file that is still arriving.

        >>> decoder = vqcodec.Decoder()
        >>> for block in response:
        ...     if preview := decoder.feed(block):
        ...         show(preview)

    Raises the same errors as :func:`decompress`, as soon as the invalid bytes arrive; a file that is too large, or
    that needs another model, with its header. After an error every call raises it again, and ``finished`` stays False.
    """

    def __init__(self, *, limits: Limits | None = None, model: ModelLike = None, device: str = "cpu") -> None:
        self._progressive = Codec(model, device=device).progressive(limits=limits)

    def __repr__(self) -> str:
        return f"<Decoder, {'finished' if self.finished else 'waiting for more'}>"

    @property
    def finished(self) -> bool:
        """Whether the whole file has arrived."""
        return self._progressive.finished

    def feed(self, data: bytes | bytearray | memoryview) -> PIL.Image.Image | None:
        """Take the next bytes. Returns the image as far as it is known if they completed a code map or the file, otherwise None."""
        image = self._progressive.feed(_bytes(data))
        return None if image is None else images.to_pil(image)


def decode_maps(
    data: Source, *, model: ModelLike = None, partial: bool = False, device: str = "cpu"
) -> list[np.ndarray]:
    """The code maps in ``data``, coarse to fine: int32, h x w each. The same on every machine."""
    with open(data, partial=partial, model=model, device=device) as coded:
        return coded.code_maps()


def encode_maps(
    image: Image,
    *,
    quality: float = EncodeOptions.quality,
    effort: int = EncodeOptions.effort,
    class_id: int | str | None = None,
    tile: int | None = None,
    model: ModelLike = None,
    device: str = "cpu",
) -> list[np.ndarray]:
    """The code maps that :func:`compress` would store: int32, h x w each, coarse to fine."""
    asked = EncodeOptions(quality, effort, class_id, tile=tile)
    return Codec(model, device=device).encoded_maps(images.to_array(image).pixels, asked)


def upscale(image: Image, factor: int = 2, *, seed: int | None = None, limits: Limits | None = None) -> PIL.Image.Image:
    """An image 2, 4 or 8 times as large: its pixels stay, and those between are found by the model that codes samples
    (Menick and Kalchbrenner 2018, "size upscaling"), as far as it learns it from the image itself.

    ``seed``: draw them, which looks as rough as the image is, or rougher; None takes the predictions, which is about as good as
    bicubic interpolation. No model of what pictures show is behind it: objects do not get details.
    ``limits``: applies to the result. Raises the errors of :func:`compress`.
    """
    if factor not in (2, 4, 8):
        raise InvalidArgument(f"factor must be 2, 4 or 8, got {factor!r}")
    if seed is not None:
        seed = whole_number("seed", seed, 0, 1 << 64)
    most = check_limits("limits", limits).pixels // factor**2
    raster = images.to_array(image, most, lift=limits is not None, deep=True)
    return images.to_pil(samples.upscaled(raster, factor.bit_length() - 1, seed))


def sample(
    class_id: int | str | None,
    n: int = 1,
    *,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    candidates: int | None = None,
    keep: int | None = None,
    classifier: Classifier | None = None,
    model: ModelLike = None,
    device: str = "cpu",
) -> list[PIL.Image.Image]:
    """``n`` new images of a class (number or name; 0 or None for no class).

    ``size`` is (width, height) in pixels. The code maps depend only on the arguments, not
    on the machine. ``temperature`` below 1 favours likely codes. ``top_p`` draws each code from
    the most likely ones that together have this probability (Holtzman et al. 2020).

    ``candidates``: draw this many images, score them, and return the best ``n``, best first
    (section 3.3): truer to the class, but less diverse. ``keep`` is then another name for ``n``.
    ``classifier``: any ``f(images, class number) -> one score per image, higher is better``, or None
    for the classifier of the shipped model, which scores how probable the class is.
    Scores are floats: another machine may swap images whose scores are almost equal.

        >>> vqcodec.sample("flower-roses", n=4, seed=1)[0].save("rose.png")
        >>> best = vqcodec.sample("flower-roses", candidates=8, keep=2)
    """
    asked = SampleOptions(n, size, seed, temperature, top_p, candidates, keep, classifier)
    return [images.to_pil(image) for image in Codec(model, device=device).sampled(class_id, asked)]


def inpaint(
    image: Image,
    mask: Any,
    *,
    class_id: int | str | None = None,
    quality: float = EncodeOptions.quality,
    seed: int = 0,
    temperature: float = 1.0,
    model: ModelLike = None,
    device: str = "cpu",
) -> PIL.Image.Image:
    """``image``, with the area covered by ``mask`` redrawn by the prior, given its surroundings.

    ``mask``: bool array H x W, or a PIL image whose non-black pixels are redrawn. Other pixels
    stay as they are. ``quality``: how much detail is drawn. Sides may be up to 2048 pixels long.
    """
    raster = images.to_array(image)
    covered = np.asarray(mask.convert("L") if hasattr(mask, "convert") else mask) != 0
    if covered.shape != raster.pixels.shape[:2]:
        raise InvalidArgument(f"mask must be {raster.pixels.shape[:2]} as the image is, got shape {covered.shape}")
    found = Codec(model, device=device).inpaint(
        raster, covered, class_id=class_id, quality=quality, seed=seed, temperature=temperature
    )
    return images.to_pil(found)


def info(data: Source, *, limits: Limits | None = None) -> dict[str, Any]:
    """What the header and the chunks of a file contain (bytes, a path or a binary file), without decoding it."""
    source = _source(data)
    if isinstance(source, (str, os.PathLike)):
        with builtins.open(source, "rb") as file:
            source = file.read()
    elif hasattr(source, "read"):
        source = source.read()
    return container.describe(_bytes(source), limits=check_limits("limits", limits))


def set_num_threads(n: int) -> None:
    """Use ``n`` threads from now on. Code maps and files do not depend on ``n``."""
    codec.set_num_threads(n)


def _source(data: Any) -> Any:
    if isinstance(data, (str, os.PathLike)):
        return data
    if hasattr(data, "read"):
        return data if not hasattr(data, "seekable") or data.seekable() else _bytes(data.read())
    return _bytes(data)


def _bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise InvalidArgument(f"data must be bytes, a path or a binary file, got {type(data).__name__}")
