"""The functions that users call. Each is a line or two over :class:`vqcodec.codec.Codec`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec import codec, container, images
from vqcodec.codec import Codec, Critic, check_effort, check_quality
from vqcodec.errors import InvalidArgument
from vqcodec.models.file import Model

if TYPE_CHECKING:
    import PIL.Image

    ModelLike = Model | str | os.PathLike[str] | None
    Image = PIL.Image.Image | str | os.PathLike[str] | np.ndarray | Any


def compress(image: Image, *, quality: float = 50, effort: int = 3, class_id: int | str | None = None, model: ModelLike = None,
             device: str = "cpu") -> bytes:
    """Compress a picture into the bytes of a ``.vqc`` file.

    ``image``: PIL image, path, uint8 array (H x W, H x W x 3 or x 4) or torch tensor
    (3 x H x W, uint8 or float in [0, 1]). ``quality``: 0 (smallest) to 100. ``effort``: 0 (fastest) to 9,
    how many candidates are compared for every code. ``class_id``:
    number or name of a class of the model, if known; it only saves bits. ``model``: a
    model file, a loaded model, or None for the shipped one. ``device``: "cpu", "cuda" or "cuda:1",
    see :class:`~vqcodec.Codec`.

    Raises :class:`~vqcodec.errors.ImageError` for an unusable picture,
    :class:`~vqcodec.errors.InvalidArgument` for the rest.

        >>> data = vqcodec.compress("photo.png", quality=50)
        >>> vqcodec.decompress(data).save("back.png")
    """
    return Codec(model, device=device).compress(images.to_array(image), quality=quality, effort=effort, class_id=class_id)


def decompress(data: bytes, *, model: ModelLike = None, partial: bool = False, device: str = "cpu") -> PIL.Image.Image:
    """The picture in ``data``. Mode RGB or L, with A if the file has alpha; metadata in ``.info``.

    ``partial`` accepts a truncated or damaged file and returns the coarser picture of the
    maps that are whole. Otherwise any damage raises a
    :class:`~vqcodec.errors.FormatError` that names the chunk.
    """
    data = _bytes(data)
    return images.to_pil(Codec(model, device=device).decompress(data, partial=partial))


def decode_maps(data: bytes, *, model: ModelLike = None, partial: bool = False, device: str = "cpu") -> list[np.ndarray]:
    """The code maps in ``data``, coarse to fine: int32, h x w each. The same on every machine."""
    data = _bytes(data)
    return Codec(model, device=device).read(data, partial=partial)[1]


def encode_maps(image: Image, *, quality: float = 50, effort: int = 3, class_id: int | str | None = None,
                model: ModelLike = None, device: str = "cpu") -> list[np.ndarray]:
    """The code maps that :func:`compress` would store: int32, h x w each, coarse to fine."""
    codec = Codec(model, device=device)
    return codec.encode_maps(images.to_array(image).pixels, check_quality(quality), effort=check_effort(effort),
                             class_id=codec.model.config.class_number(class_id))


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
        >>> best = vqcodec.sample("flower-roses", candidates=64, keep=4)
    """
    pictures = Codec(model, device=device).sample(class_id, n, size=size, seed=seed, temperature=temperature,
                                                  top_p=top_p, candidates=candidates, keep=keep, critic=critic)
    return [images.to_pil(picture) for picture in pictures]


def info(data: bytes) -> dict[str, Any]:
    """What the header and the chunks of a file say, without decoding it (and without torch)."""
    return container.describe(_bytes(data))


def set_num_threads(n: int) -> None:
    """Use ``n`` threads from now on. Code maps and files do not depend on it."""
    codec.set_num_threads(n)


def _bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise InvalidArgument(f"data must be bytes, got {type(data).__name__}")
