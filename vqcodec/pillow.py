"""``import vqcodec.pillow`` teaches Pillow to open and save ``.vqc`` files.

    >>> import vqcodec.pillow
    >>> Image.open("photo.vqc").resize((300, 200)).save("small.vqc", quality=40)

Opening reads the chunks, not the pixels: size, mode and metadata are there at once, and
torch is imported when the pixels are first asked for. Pillow looks for no plugins by itself,
so the import is needed once per process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image, ImageFile

import vqcodec
from vqcodec import container, wire
from vqcodec.container import MAGIC, VERSION, Limits
from vqcodec.errors import FormatError, InvalidArgument, LimitExceeded, VqcodecError

__all__ = ["VqcImageFile", "use"]

FORMAT = "VQC"
EXTENSION = ".vqc"
MIME = "image/x-vqcodec"

_INFO = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
#: What ``Image.save`` passes on to :func:`vqcodec.compress`.
_OPTIONS = {"quality", "effort", "class_id", "model", "device", "tile", "target_bytes", "target_psnr", "metadata"}

_decoder: dict[str, Any] = {}


def use(model: str | os.PathLike[str] | Any = None, device: str = "cpu") -> None:
    """The model and device for pictures that are loaded from now on, see :class:`vqcodec.Codec`."""
    _decoder.update(model=model, device=device)


class VqcImageFile(ImageFile.ImageFile):
    """A ``.vqc`` file as Pillow sees it: modes L, LA, RGB and RGBA.

    With ``ImageFile.LOAD_TRUNCATED_IMAGES`` a damaged file gives the coarser picture of what is whole.
    """

    format = FORMAT
    format_description = "vqcodec image"

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        chunks = container.chunks(data)
        try:
            header = container.Header.from_bytes(next(chunks).payload)
        except FormatError as error:
            raise SyntaxError(str(error)) from error  # so that Pillow tries its other formats
        metadata, alpha = _outline(data, chunks)
        self.info |= {_INFO[name]: content for name, content in metadata.items()}
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * alpha
        self.info["quality"] = header.quality
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]  # tells Pillow that there is something to load

    def load(self) -> Any:
        if self.tile:
            decoded = _pillow_errors(vqcodec.decompress, self._data(), partial=ImageFile.LOAD_TRUNCATED_IMAGES, **_decoder)
            self.im = decoded.convert(self.mode).im  # the mode may not change any more
            self.tile = []
            self.readonly = 0
            self._release()
        return super().load()

    def verify(self) -> None:
        """Check every chunk, without decoding. Raises ``OSError``."""
        _pillow_errors(container.read, self._data())
        self._release()
        super().verify()

    def _data(self) -> bytes:
        if self.fp is None:
            raise ValueError("operation on a closed image")
        self.fp.seek(0)
        return self.fp.read()

    def _release(self) -> None:
        if self._exclusive_fp and self.fp is not None:
            self.fp.close()
        self.fp = None


def _outline(data: bytes, chunks: Iterator[container.Chunk]) -> tuple[dict[str, bytes], bool]:
    """Metadata, and whether there is an alpha plane; of a damaged file, as far as that can be known."""
    metadata, alpha = {}, False
    try:
        for chunk in chunks:
            alpha |= chunk.tag == "A"
            if name := container.METADATA.get(chunk.tag):
                metadata[name] = wire.inflate(chunk.payload, chunk.name, Limits.metadata) or b""
    except FormatError:  # the business of load() and verify()
        with contextlib.suppress(FormatError):
            found = container.read(data, partial=True, limits=Limits(pixels=1 << 28))
            return found.metadata, found.alpha is not None
    return metadata, alpha


def _accept(prefix: bytes) -> bool | str:
    if not prefix.startswith(MAGIC):
        return False
    version = prefix[len(MAGIC) : len(MAGIC) + 1]
    return version == bytes([VERSION]) or f"vqcodec reads format version {VERSION}, found {version.hex() or 'none'}"


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    given = image.encoderinfo
    if metadata := {name: given[name] for name in _INFO.values() if name in given}:
        image = image.copy()
        for name, value in metadata.items():
            image.info[name] = value.tobytes() if isinstance(value, Image.Exif) else value or b""
    file.write(_pillow_errors(vqcodec.compress, image, **{name: given[name] for name in _OPTIONS & set(given)}))


def _pillow_errors(function: Any, *arguments: Any, **options: Any) -> Any:
    """Call ``function``, and raise what users of Pillow expect."""
    try:
        return function(*arguments, **options)
    except LimitExceeded as error:
        raise Image.DecompressionBombError(str(error)) from error
    except InvalidArgument:  # a ValueError, as for Pillow's own formats
        raise
    except VqcodecError as error:
        raise OSError(str(error)) from error


Image.register_open(FORMAT, VqcImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, EXTENSION)
Image.register_mime(FORMAT, MIME)
