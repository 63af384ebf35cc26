"""One picture through all codecs. Runs in worker processes, of one thread each: nothing here is timed."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vqcodec.codec import images
from vqcodec.errors import ImageError
from vqcodec.tools import compare
from vqcodec.tools.bench import codecs
from vqcodec.tools.bench.codecs import Codec

#: Names for people.
METRICS = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM, dB", "ssimulacra2": "SSIMULACRA2"}
#: SSIMULACRA2 is not defined for smaller pictures.
SSIMULACRA2_SIDE = 8


@dataclass(frozen=True)
class Measurement:
    """What all pictures go through.

    names: the codecs that work here. metrics: those of ``METRICS`` that do. quick: fewer settings.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    quick: bool
    model: Any = None
    device: str = "cpu"
    effort: int = 3

    def codecs(self) -> list[Codec]:
        return [codec for codec in codecs.every(self.model, self.device, self.effort) if codec.name in self.names]

    def start(self) -> Callable[[str], dict[str, Any]]:
        """Load everything; returns a function from a picture's name to what was found."""
        working = self.codecs()
        for codec in working:
            codec.use(1)
        return lambda path: self.measure(path, working)

    def measure(self, path: str, working: list[Codec]) -> dict[str, Any]:
        """Every codec at every setting: rows of setting, bytes and the metrics; and what vqcodec's maps took."""
        picture = opened(path)
        found: dict[str, Any] = {"path": path, "width": picture.width, "height": picture.height, "rows": {}, "maps": {}}
        for codec in working:
            rows = []
            for setting in settings(codec, self.quick):
                try:
                    data = codec.encode(picture, setting)
                    back = codec.decode(data)
                except Exception as error:  # libraries raise whatever they like for a picture that they cannot code
                    raise ImageError(f"{codec.name} cannot code it: {error}") from error
                rows.append([setting, len(data), *(MEASURES[metric](picture, back) for metric in self.metrics)])
                if codec.name == "vqcodec":
                    found["maps"][setting] = self.map_bits(data)
            found["rows"][codec.name] = rows
        return found

    def map_bits(self, data: bytes) -> dict[str, Any]:
        """Of each map of a file: how often each code occurs, and the bytes that its chunk took."""
        import vqcodec

        maps = vqcodec.decode_maps(data, model=self.model, device=self.device)
        chunks = [chunk["bytes"] for chunk in vqcodec.info(data)["chunks"] if chunk["tag"] == "M"]
        return {"counts": [np.bincount(codes.ravel()) for codes in maps], "bytes": chunks + [0] * (len(maps) - len(chunks))}


def settings(codec: Codec, quick: bool) -> tuple[float, ...]:
    """Those to measure: all, or about a third, with both ends."""
    return codec.settings[: -1 : 3] + codec.settings[-1:] if quick else codec.settings


def opened(path: str | os.PathLike[str]) -> Image.Image:
    """The picture as all codecs get it: RGB, upright, without alpha and metadata. Raises ``ImageError``."""
    return Image.fromarray(images.to_array(path).pixels)


# -- metrics -----------------------------------------------------------------------------


def psnr(a: Image.Image, b: Image.Image) -> float:
    """In dB, over the RGB channels; 100 for equal pictures."""
    return min(images.psnr(a, b), 100.0)


def ms_ssim_decibels(a: Image.Image, b: Image.Image) -> float | None:
    """-10 log10(1 - MS-SSIM), at most 60; None for pictures that are too small for it."""
    if min(a.size) < compare.MS_SSIM_SIDE:
        return None
    return float(-10 * np.log10(max(1 - compare.ms_ssim(np.asarray(a), np.asarray(b)), 1e-6)))


def ssimulacra2(a: Image.Image, b: Image.Image) -> float | None:
    """Up to 100; None for pictures that are too small for it."""
    from ssimulacra2 import compute_ssimulacra2  # type: ignore[import-not-found,unused-ignore]

    if min(a.size) < SSIMULACRA2_SIDE:
        return None
    streams = io.BytesIO(), io.BytesIO()
    for picture, stream in zip((a, b), streams):
        picture.save(stream, "BMP")
    return float(compute_ssimulacra2(*streams))


MEASURES = {"psnr": psnr, "ms_ssim": ms_ssim_decibels, "ssimulacra2": ssimulacra2}


def missing_metrics() -> dict[str, str]:
    """The metrics that cannot be had here, with the reason."""
    found = {}
    for name, package in (("ms_ssim", "torchmetrics.functional.image"), ("ssimulacra2", "ssimulacra2")):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            found[name] = f"not installed: pip install 'vqcodec[bench]' ({error})"
        except Exception as error:  # a broken installation raises whatever it likes
            found[name] = f"{package.partition('.')[0]} does not work here: {error}"
    return found
