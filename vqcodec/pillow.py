"""``import vqcodec.pillow`` teaches Pillow to open and save ``.vqc`` files.

    >>> import vqcodec.pillow
    >>> Image.open("photo.vqc").resize((300, 200)).save("small.vqc", quality=40)

Opening reads only the chunk headers and the metadata: size and mode are available at once, and
torch is imported when the pixels are first accessed. ``draft`` and ``thumbnail`` decode only a
reduced image. Pillow does not discover plugins by itself, so the import is needed once per process.
"""

from __future__ import annotations

import os
from typing import IO, Any

from PIL import Image, ImageFile

import vqcodec
from vqcodec.codec.options import LIMITS, SCALES, EncodeOptions, names
from vqcodec.errors import FormatError, InvalidArgument, LimitExceeded, VqcodecError
from vqcodec.format.framing import MAGIC, VERSION
from vqcodec.format.limits import Limits
from vqcodec.format.reader import Reader

__all__ = ["VqcImageFile", "use"]

FORMAT = "VQC"
EXTENSION = ".vqc"
MIME = "image/x-vqcodec"

_INFO = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
#: What ``Image.save`` passes on to :func:`vqcodec.compress`.
_OPTIONS = {*names(EncodeOptions), "model", "device"}

_decoder: dict[str, Any] = {}


def use(model: str | os.PathLike[str] | Any = None, device: str = "cpu", limits: Limits | None = None) -> None:
    """Set the model, device and limits for images loaded from now on, see :func:`vqcodec.open`.

    Pillow's own limit, ``PIL.Image.MAX_IMAGE_PIXELS``, also applies.
    """
    _decoder.update(model=model, device=device, limits=limits)


class VqcImageFile(ImageFile.ImageFile):
    """A ``.vqc`` file as Pillow sees it: modes L, LA, RGB and RGBA.

    With ``ImageFile.LOAD_TRUNCATED_IMAGES``, a damaged file gives a coarser image from its intact maps.
    """

    format = FORMAT
    format_description = "vqcodec image"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            reader = Reader(self.fp, partial=True, limits=_limits())
        except FormatError as error:
            if isinstance(error, LimitExceeded):
                raise Image.DecompressionBombError(str(error)) from error
            raise SyntaxError(str(error)) from error  # so that Pillow tries its other formats
        header = reader.header
        self.info |= {_INFO[name]: content for name, content in reader.metadata().items()}
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * reader.has_alpha
        if header.deep and self._mode == "L":
            self._mode = "I;16"
        self.info["quality"] = header.quality
        self._scale = 1
        self.tile = [
            ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)
        ]  # tells Pillow that there is something to load

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Load the image reduced by 2, 4, 8 or 16, but no smaller than ``size``. The mode is kept."""
        if not self.tile or self._scale > 1 or size is None:
            return None
        width, height = self.size
        self._scale = max(
            scale for scale in SCALES if scale == 1 or width >= scale * size[0] and height >= scale * size[1]
        )
        self._size = -(-width // self._scale), -(-height // self._scale)
        return self.mode, (0, 0, width / self._scale, height / self._scale)

    def load(self) -> Any:
        if self.tile:
            file = self._file()
            decoded = _pillow_errors(
                vqcodec.decompress, file, partial=ImageFile.LOAD_TRUNCATED_IMAGES, scale=self._scale, **_decoder
            )
            self.im = decoded.convert(self.mode).im  # the mode must not change now
            self.tile = []
            self.readonly = 0
            self._release()
        return super().load()

    def verify(self) -> None:
        """Check every chunk, without decoding. Raises ``OSError``."""
        file = self._file()
        _pillow_errors(lambda: Reader(file, limits=_limits()).verify())
        self._release()
        super().verify()

    def _file(self) -> IO[bytes]:
        if self.fp is None:
            raise ValueError("operation on a closed image")
        return self.fp

    def _release(self) -> None:
        if self._exclusive_fp and self.fp is not None:
            self.fp.close()
        self.fp = None


def _limits() -> Limits:
    return _decoder.get("limits") or LIMITS


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
    """Call ``function``, and raise the errors that users of Pillow expect."""
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
