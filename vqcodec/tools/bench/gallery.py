"""Pictures to look at: at equal size, map by map, and samples. All as lossless WebP, so that the page adds no artefacts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vqcodec.tools.bench.codecs import Codec
from vqcodec.tools.bench.measure import Measurement, opened, psnr

#: Larger pictures are shown by the middle of so many pixels.
SHOWN = 960, 640
#: Side of a sample on the page, and of what is drawn.
SAMPLE, DRAWN = 128, 256


@dataclass(frozen=True)
class Side:
    """A picture at each of some qualities of vqcodec, and every other codec's file of nearly the same size."""

    measurement: Measurement
    qualities: tuple[float, ...]
    progressive: str  #: The file name of the one that is also shown map by map.

    def start(self) -> Callable[[str], dict[str, Any]]:
        working = self.measurement.codecs()
        return lambda path: self.show(path, working)

    def show(self, path: str, working: list[Codec]) -> dict[str, Any]:
        picture = opened(path)
        ours, peers = working[0], working[1:]
        found: dict[str, Any] = {"path": path, "width": picture.width, "height": picture.height, "box": middle(*picture.size),
                                 "original": embedded(picture), "rates": [], "steps": []}
        for quality in self.qualities:
            data = ours.encode(picture, quality)
            versions = [version(ours, picture, data, quality)]
            for peer in peers:
                setting, coded = largest_within(peer, picture, len(data))
                versions.append(version(peer, picture, coded, setting) | {"larger": len(coded) > len(data)})
            found["rates"].append({"quality": quality, "versions": versions})
        if path == self.progressive:
            found["steps"] = self.steps(picture, data)
        return found

    def steps(self, picture: Image.Image, data: bytes) -> list[dict[str, Any]]:
        """What the first 1, 2, 4, 8 and all maps of a file show, and where in the file they end."""
        import vqcodec

        ends = [chunk["offset"] + chunk["bytes"] for chunk in vqcodec.info(data)["chunks"] if chunk["tag"] == "M"]
        found = []
        for count in sorted({n for n in (1, 2, 4, 8) if n < len(ends)} | {len(ends)}):
            shown = vqcodec.decompress(data, maps=count, model=self.measurement.model).convert("RGB")
            found.append({"maps": count, "of": len(ends), "bytes": ends[count - 1], "psnr": psnr(picture, shown), "image": embedded(shown)})
        return found


def version(codec: Codec, picture: Image.Image, data: bytes, setting: float) -> dict[str, Any]:
    back = codec.decode(data)
    return {"codec": codec.name, "setting": setting, "bytes": len(data), "bpp": 8 * len(data) / (picture.width * picture.height),
            "psnr": psnr(picture, back), "image": embedded(back)}


def largest_within(codec: Codec, picture: Image.Image, size: int) -> tuple[float, bytes]:
    """The setting whose file is the largest of at most ``size`` bytes, by bisection; the least setting if none is."""
    whole = codec.unit == "quality"
    low, high = codec.settings[0], codec.settings[-1]
    best = low, codec.encode(picture, low)
    if len(best[1]) > size:
        return best
    for _ in range(10):
        middle = (low + high) / 2
        middle = round(middle) if whole else middle
        if middle in (low, high):
            break
        data = codec.encode(picture, middle)
        if len(data) <= size:
            low, best = middle, (middle, data)
        else:
            high = middle
    return best


def middle(width: int, height: int) -> tuple[int, int, int, int]:
    """The box of a picture that the page shows; upright pictures get an upright one."""
    most = SHOWN if width >= height else SHOWN[::-1]
    w, h = min(width, most[0]), min(height, most[1])
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def embedded(picture: Image.Image) -> str:
    """A data URI."""
    stream = io.BytesIO()
    picture.crop(middle(*picture.size)).save(stream, "WEBP", lossless=True, quality=60, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def samples(model: Any, device: str, classes: int, each: int) -> list[dict[str, Any]]:
    """Of each class, a strip of samples drawn by the prior, at half their size."""
    import vqcodec
    from vqcodec.tools.demo import grid

    known = vqcodec.Codec(model, device=device).model.config.classes
    step = max(1, -(-len(known) // classes))
    found = []
    for name in known[::step]:
        drawn = vqcodec.sample(name, each, size=(DRAWN, DRAWN), seed=1, model=model, device=device)
        strip = grid([picture.resize((SAMPLE, SAMPLE), Image.Resampling.LANCZOS) for picture in drawn], columns=each, gap=0)
        found.append({"class": name, "count": each, "image": embedded(strip)})
    return found
