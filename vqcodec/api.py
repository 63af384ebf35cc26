"""The functions that users call. Each is a line or two over :class:`vqcodec.codec.Codec`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vqcodec.codec import codec, images
from vqcodec.codec.codec import Codec
from vqcodec.codec.decoder import LIMITS, CodedPicture
from vqcodec.codec.options import check_effort, check_quality, check_tile
from vqcodec.codec.sampler import Critic
from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Limits
from vqcodec.model.file import Model

if TYPE_CHECKING:
    import PIL.Image

    ModelLike = Model | str | os.PathLike[str] | None
    Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
    Image = PIL.Image.Image | str | os.PathLike[str] | np.ndarray | Any


def compress(image: Image, *, quality: float = 50, effort: int = 3, class_id: int | str | None = None,
             target_bytes: int | None = None, target_psnr: float | None = None, tile: int | None = None,
             metadata: bool = True, limits: Limits | None = None, model: ModelLike = None, device: str = "cpu") -> bytes:
    """Compress a picture into the bytes of a ``.vqc`` file.

    ``image``: PIL image, path, uint8 array (H x W, H x W x 3 or x 4; a memory-mapped one is read piece by
    piece) or torch tensor (3 x H x W, uint8 or float in [0, 1]). ``quality``: 0 (smallest) to 100. ``effort``:
    0 (fastest) to 9, how many candidates are compared for every code. ``class_id``:
    number or name of a class of the model, if known; it only saves bits.

    Instead of a quality: ``target_bytes``, the best picture in at most so many bytes, or ``target_psnr``, the
    smallest file with at least so many decibels (of the colours, without alpha); both try several qualities and
    come within 2 % or 0.05 dB, where qualities reach so far.

    ``tile``: side of the tiles in pixels, a multiple of 64, or 0 for one tile. Tiles are what a region is decoded
    from and what processors share; small ones cost bytes. The default: one tile up to 1024 x 1024 pixels, else 512.
    ``metadata``: keep ICC profile, EXIF and XMP. ``limits``: how many pixels a picture may have. ``model``: a model
    file, a loaded model, or None for the shipped one. ``device``: "cpu", "cuda" or "cuda:1", see :class:`~vqcodec.Codec`.

    Pictures become 8-bit RGB or grey, with alpha where they have any: 16-bit grey (integers from 0 to 65535) is divided by
    257 and rounded, palettes, inks and other colour spaces are converted, an orientation in the EXIF is applied to the
    pixels, and of an animation the first frame is taken, with a warning. Float pictures (mode F) are refused.

    Raises :class:`~vqcodec.errors.ImageError` for an unusable picture,
    :class:`~vqcodec.errors.LimitExceeded` for one of more than ``limits`` allow (2**28 pixels),
    :class:`~vqcodec.errors.InvalidArgument` for the rest, such as a target that cannot be reached.

        >>> data = vqcodec.compress("photo.png", quality=50)
        >>> vqcodec.decompress(data).save("back.png")
        >>> small = vqcodec.compress("photo.png", target_bytes=20_000)
    """
    picture = images.to_array(image, (limits or LIMITS).pixels)
    if not metadata:
        picture = dataclasses.replace(picture, metadata={})
    return Codec(model, device=device).compress(
        picture, limits=limits, quality=quality, effort=effort, class_id=class_id, tile=tile, target_bytes=target_bytes,
        target_psnr=target_psnr)


def decompress(data: Source, *, partial: bool = False, region: Sequence[int] | None = None, scale: int = 1,
               maps: int | None = None, complete: str | None = None, seed: int = 0, limits: Limits | None = None,
               model: ModelLike = None, device: str = "cpu") -> PIL.Image.Image:
    """The picture in ``data``: bytes, a path or a seekable binary file.

    Mode RGB or L, with A if the file has alpha; metadata in ``.info``.

    ``region``: (x0, y0, x1, y1) in pixels; only the tiles that it needs are read and decoded. ``scale``: 1, 2, 4, 8
    or 16, how much smaller the picture becomes; only the maps that it needs are read. ``maps``: use so many maps
    only, for a coarser picture of full size.

    ``partial`` accepts a truncated or damaged file and returns the coarser picture of the
    maps that are whole. Otherwise any damage raises a
    :class:`~vqcodec.errors.FormatError` that names the chunk. ``complete="sample"`` draws the maps of the file that are
    missing (because of ``partial`` or ``maps``) from the prior: a picture with details that look right and
    are invented; ``seed`` chooses which.

    ``limits``: :class:`~vqcodec.format.container.Limits` of what a file may ask for (pixels, chunks, bytes, memory).
    """
    with open(data, partial=partial, limits=limits, model=model, device=device) as coded:
        return images.to_pil(coded.picture(region=region, scale=scale, maps=maps, complete=complete, seed=seed))


def open(source: Source, *, partial: bool = False, limits: Limits | None = None, model: ModelLike = None,
         device: str = "cpu") -> CodedPicture:
    """A file whose picture is decoded as far as is asked for: bytes, a path or a seekable binary file.

        >>> with vqcodec.open("map.vqc") as coded:
        ...     print(coded.size, coded.header.quality)
        ...     corner = coded.picture(region=(0, 0, 256, 256)).pixels
        ...     for strip in coded.rows():  # h x W x 3 uint8: any picture in little memory
        ...         sink.write(strip)
    """
    return Codec(model, device=device).open(_source(source), partial=partial, limits=limits)


class Decoder:
    """Decodes a file that is still arriving.

        >>> decoder = vqcodec.Decoder()
        >>> for block in response:
        ...     if preview := decoder.feed(block):
        ...         show(preview)

    Raises what :func:`decompress` raises, as soon as the bytes that are wrong arrive.
    """

    def __init__(self, *, limits: Limits | None = None, model: ModelLike = None, device: str = "cpu") -> None:
        self._progressive = Codec(model, device=device).progressive(limits=limits)

    @property
    def finished(self) -> bool:
        """Whether the whole file has arrived."""
        return self._progressive.finished

    def feed(self, data: bytes) -> PIL.Image.Image | None:
        """Take the next bytes. The picture as far as it is known, if they brought a code map; otherwise None."""
        picture = self._progressive.feed(_bytes(data))
        return None if picture is None else images.to_pil(picture)


def decode_maps(data: Source, *, model: ModelLike = None, partial: bool = False, device: str = "cpu") -> list[np.ndarray]:
    """The code maps in ``data``, coarse to fine: int32, h x w each. The same on every machine."""
    with open(data, partial=partial, model=model, device=device) as coded:
        return coded.code_maps()


def encode_maps(image: Image, *, quality: float = 50, effort: int = 3, class_id: int | str | None = None,
                tile: int | None = None, model: ModelLike = None, device: str = "cpu") -> list[np.ndarray]:
    """The code maps that :func:`compress` would store: int32, h x w each, coarse to fine."""
    codec = Codec(model, device=device)
    return codec.encode_maps(images.to_array(image).pixels, check_quality(quality), effort=check_effort(effort),
                             class_id=codec.model.config.class_number(class_id), tile=check_tile(tile))


def sample(class_id: int | str | None, n: int = 1, *, size: tuple[int, int] = (256, 256), seed: int = 0,
           temperature: float = 1.0, top_p: float = 1.0, candidates: int | None = None, keep: int | None = None,
           critic: Critic | None = None, model: ModelLike = None, device: str = "cpu") -> list[PIL.Image.Image]:
    """``n`` new pictures of a class (number or name; 0 or None for no class).

    ``size`` is (width, height) in pixels. The code maps depend on the arguments alone, not
    on the machine. ``temperature`` below 1 prefers likely codes. ``top_p`` draws every code from
    the likeliest ones that together have this probability (Holtzman et al. 2020).

    ``candidates`` draws so many pictures, scores them, and returns the best ``n``, best first
    (section 3.3): truer to the class, less diverse. ``keep`` is another word for ``n`` there.
    ``critic``: any ``f(pictures, class number) -> one score for each, higher is better``, or None
    for the classifier that ships with the shipped model, which scores how probable the class is.
    Scores are floats: another machine may swap pictures whose scores are as good as equal.

        >>> vqcodec.sample("flower-roses", n=4, seed=1)[0].save("rose.png")
        >>> best = vqcodec.sample("flower-roses", candidates=8, keep=2)
    """
    pictures = Codec(model, device=device).sample(class_id, n, size=size, seed=seed, temperature=temperature,
                                                  top_p=top_p, candidates=candidates, keep=keep, critic=critic)
    return [images.to_pil(picture) for picture in pictures]


def inpaint(image: Image, mask: Any, *, class_id: int | str | None = None, quality: float = 50, seed: int = 0,
            temperature: float = 1.0, model: ModelLike = None, device: str = "cpu") -> PIL.Image.Image:
    """``image`` with what ``mask`` covers drawn anew by the prior, given all that is around it.

    ``mask``: bool array H x W, or a PIL image of which everything that is not black counts. Pixels
    outside stay as they are. ``quality``: how much detail is drawn. Sides up to 2048 pixels.
    """
    picture = images.to_array(image)
    covered = np.asarray(mask.convert("L") if hasattr(mask, "convert") else mask) != 0
    if covered.shape != picture.pixels.shape[:2]:
        raise InvalidArgument(f"mask must be {picture.pixels.shape[:2]} as the image is, got shape {covered.shape}")
    found = Codec(model, device=device).inpaint(picture, covered, class_id=class_id, quality=quality, seed=seed,
                                                temperature=temperature)
    return images.to_pil(found)


def info(data: bytes) -> dict[str, Any]:
    """What the header and the chunks of a file say, without decoding it (and without torch)."""
    return container.describe(_bytes(data))


def set_num_threads(n: int) -> None:
    """Use ``n`` threads from now on. Code maps and files do not depend on it."""
    codec.set_num_threads(n)


def _source(data: Any) -> Any:
    if isinstance(data, (str, os.PathLike)) or hasattr(data, "read"):
        return data
    return _bytes(data)


def _bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise InvalidArgument(f"data must be bytes, a path or a binary file, got {type(data).__name__}")
