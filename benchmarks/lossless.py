"""How many bits do lossless files take, and how long, beside other codecs?

    python -m benchmarks.lossless FOLDER [--limit 20] [--bounds 1 2 4 8]

Every image of a folder, through the public API: bits per subpixel (of the bytes of whole files, over width x height x 3,
or x 1 for grey), megapixels a second, all in this process. PNG and WebP by Pillow; JPEG XL by pillow-jxl-plugin
(effort 7), if it is installed. With --bounds, also files with bounded errors and their PSNR. Every file of vqcodec is decoded and
compared with the original: a difference beyond the bound ends the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import vqcodec
from vqcodec.codec.images import psnr

SUFFIXES = {".png", ".webp", ".ppm", ".tif", ".tiff"}


def peers() -> dict[str, tuple[str, dict]]:
    """Pillow's format and options."""
    found: dict[str, tuple[str, dict]] = {
        "PNG, optimised": ("PNG", {"optimize": True}),
        "WebP lossless, method 4": ("WEBP", {"lossless": True, "quality": 100, "method": 4}),
    }
    if importlib.util.find_spec("pillow_jxl"):
        import pillow_jxl  # noqa: F401  registers the format

        found["JPEG XL, effort 7"] = ("JXL", {"lossless": True, "effort": 7})
    return found


def timed(call: Callable[[], object]) -> tuple[object, float]:
    begun = time.perf_counter()
    return call(), time.perf_counter() - begun


def saved(image: Image.Image, name: str, options: dict) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="use only so many images")
    parser.add_argument("--bounds", type=int, nargs="*", default=[])
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in SUFFIXES)[: args.limit]
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for path in paths:
        image = Image.open(path)
        image = image.convert("L" if image.mode == "L" else "RGB")
        pixels = np.asarray(image)
        area = image.width * image.height / 1e6

        def add(name: str, data: bytes, encode: float, decode: float, quality: float = float("inf")) -> None:
            row = 8 * len(data) / pixels.size, area / encode, area / decode, quality
            rows.setdefault(name, []).append(row)

        for name, (format, options) in peers().items():
            data, encode = timed(lambda: saved(image, format, options))
            back, decode = timed(lambda: np.asarray(Image.open(io.BytesIO(data))))
            assert np.array_equal(back, pixels), (path.name, name)
            add(name, data, encode, decode)
        for bound in (0, *args.bounds):
            data, encode = timed(lambda: vqcodec.compress(image, max_error=bound))
            back, decode = timed(lambda: np.asarray(vqcodec.decompress(data)))
            assert np.abs(back.astype(int) - pixels).max() <= bound, (path.name, bound)
            name = f"vqcodec, errors up to {bound}" if bound else "vqcodec lossless"
            add(name, data, encode, decode, psnr(back, pixels) if bound else float("inf"))
        last = {name: found[-1][0] for name, found in rows.items()}
        print(path.name, *(f"{name}: {bits:.3f};" for name, bits in last.items()), flush=True, file=sys.stderr)
    print(f"{len(paths)} images, means\n")
    print("| | bits per subpixel | MP/s encode | MP/s decode | PSNR, dB |\n|---|--:|--:|--:|--:|")
    for name, found in rows.items():
        bits, encode, decode, quality = (statistics.mean(column) for column in zip(*found))
        print(f"| {name} | {bits:.3f} | {encode:.2f} | {decode:.2f} | {quality:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
