"""vqcodec and its peers, each with one setting that controls quality.

Images are PIL images of mode RGB. Libraries are imported when a codec is created, so that a process that
measures memory loads only the one it measures.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image, features

if TYPE_CHECKING:
    Made = tuple[str, Callable[[Image.Image, float], bytes], Callable[[bytes], Image.Image], Callable[[int], None]]


class Codec:
    """One codec.

    name: of the format. detail: library, version and settings. unit: what a setting is called.
    settings: the points of the curves, smallest files first; every value from the first to the last works.
    missing: why the codec is not available, or "". threads: whether it can use more than one.
    """

    missing = ""

    def __init__(
        self, name: str, unit: str, settings: Sequence[float], make: Callable[[], Made], *, threads: bool = False
    ) -> None:
        self.name, self.unit, self.settings, self.threads = name, unit, tuple(settings), threads
        self.detail = ""
        try:
            self.detail, self._encode, self._decode, self._use = make()
        except (ImportError, OSError) as error:
            self.missing = str(error)

    def encode(self, picture: Image.Image, setting: float) -> bytes:
        return self._encode(picture, setting)

    def decode(self, data: bytes) -> Image.Image:
        return self._decode(data)

    def use(self, threads: int) -> None:
        """Set the number of threads from now on (if the codec supports it)."""
        self._use(threads)

    def try_out(self) -> None:
        """Code a small image; if that fails, the codec counts as missing."""
        picture = Image.linear_gradient("L").convert("RGB")
        try:
            for setting in {self.settings[0], self.settings[-1]} if not self.missing else ():
                if self.decode(self.encode(picture, setting)).size != picture.size:
                    raise ValueError("the image comes back in another size")
        except Exception as error:  # a broken library may raise anything
            self.missing = f"does not work here: {error}"


def every(model: Any = None, device: str = "cpu", effort: int = 3, only: str | None = None) -> list[Codec]:
    """vqcodec, then its peers; or only the one with this name."""
    makers: dict[str, Callable[[], Codec]] = {
        "vqcodec": lambda: Codec("vqcodec", "quality", (*range(0, 91, 10), 95), lambda: _vqcodec(model, device, effort), threads=True),
        "JPEG": lambda: Codec("JPEG", "quality", (2, 5, 8, 12, 16, 20, 30, 40, 50, 60, 70, 80), lambda: _pillow(
            "JPEG", "jpg", "optimised, progressive", lambda q: {"optimize": True, "progressive": True, "quality": round(q)})),
        "JPEG 2000": lambda: Codec("JPEG 2000", "bits per pixel", (0.08, 0.12, 0.16, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.2),
                                   lambda: _pillow("JPEG2000", "jpg_2000", "irreversible", lambda bpp: {
                "quality_mode": "rates", "quality_layers": [24 / bpp], "irreversible": True})),
        "WebP": lambda: Codec("WebP", "quality", (0, 3, 6, 10, 15, 20, 30, 40, 50, 60, 70, 80), lambda: _pillow(
            "WEBP", "webp", "method 6", lambda q: {"method": 6, "quality": round(q)})),
        "AVIF": lambda: Codec("AVIF", "quality", (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65), lambda: _pillow(
            "AVIF", "avif", "speed 6, 4:2:0", lambda q: {"speed": 6, "quality": round(q)}), threads=True),
        "JPEG XL": lambda: Codec("JPEG XL", "quality", (0, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80), _jpeg_xl, threads=True),
    }  # fmt: skip
    return [make() for name, make in makers.items() if only in (None, name)]


# -- makers: detail, encode, decode, use -------------------------------------------------


def _vqcodec(model: Any, device: str, effort: int) -> Made:
    import vqcodec

    codec = vqcodec.Codec(model, device=device)

    def encode(picture: Image.Image, quality: float) -> bytes:
        return vqcodec.compress(picture, quality=quality, effort=effort, model=codec.model, device=device)

    def decode(data: bytes) -> Image.Image:
        return vqcodec.decompress(data, model=codec.model, device=device).convert("RGB")

    detail = f"vqcodec {vqcodec.__version__}, model {codec.model.fingerprint.hex()[:8]}, effort {effort}"
    return detail + ("" if device == "cpu" else f", {device}"), encode, decode, vqcodec.set_num_threads


def _pillow(format: str, feature: str, how: str, options: Callable[[float], dict[str, Any]]) -> Made:
    import PIL

    if not features.check(feature):
        raise ImportError(f"this Pillow ({PIL.__version__}) was built without it")
    more: dict[str, int] = {}

    def use(threads: int) -> None:
        if format == "AVIF":  # the only one of Pillow's that can
            more["max_threads"] = threads
            vars(importlib.import_module("PIL.AvifImagePlugin"))["DEFAULT_MAX_THREADS"] = threads

    def encode(picture: Image.Image, setting: float) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, format, **options(setting), **more)
        return stream.getvalue()

    turbo = "libjpeg-turbo " if feature == "jpg" and features.check("libjpeg_turbo") else ""
    library = {"jpg": turbo or "libjpeg ", "jpg_2000": "OpenJPEG ", "webp": "libwebp ", "avif": "libavif "}[feature]
    version = features.version("libjpeg_turbo" if turbo else feature)
    return f"{library}{version} (Pillow {PIL.__version__}), {how}", encode, _opened, use


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _jpeg_xl() -> Made:
    try:
        import imagecodecs  # type: ignore[import-not-found,unused-ignore]
        import numpy as np
    except ImportError as error:
        raise ImportError(f"not installed: pip install 'vqcodec[bench]' ({error})") from error
    if not imagecodecs.JPEGXL.available:
        raise ImportError(f"this imagecodecs ({imagecodecs.__version__}) was built without it")
    threads = [1]

    def encode(picture: Image.Image, quality: float) -> bytes:
        return bytes(
            imagecodecs.jpegxl_encode(np.asarray(picture), distance=_distance(quality), effort=7, numthreads=threads[0])
        )

    def decode(data: bytes) -> Image.Image:
        return Image.fromarray(imagecodecs.jpegxl_decode(data, numthreads=threads[0]))

    detail = f"{imagecodecs.jpegxl_version()} (imagecodecs {imagecodecs.__version__}), effort 7"
    return detail, encode, decode, lambda count: threads.__setitem__(0, count)


def _distance(quality: float) -> float:
    """The distance that cjxl derives from its ``--quality``, below 100."""
    return 0.1 + (100 - quality) * 0.09 if quality >= 30 else 53 / 3000 * quality**2 - 23 / 20 * quality + 25
