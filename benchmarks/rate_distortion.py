"""Rate and distortion on a folder of pictures, real file sizes, against Pillow's codecs.

    python -m benchmarks.rate_distortion FOLDER [--qualities 10 30 50 70 90] [--model FILE]

Prints bits per pixel and PSNR (mean over pictures of the RGB PSNR) per codec and quality,
seconds per picture, and the BD-rate of vqcodec against each codec: the mean difference in
rate at equal PSNR over the range of PSNR that both reach (Bjontegaard 2001; here with
linear interpolation of log-rate).
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import vqcodec

PEERS = {
    "JPEG": ("JPEG", dict(optimize=True, progressive=True), (5, 10, 20, 30, 50, 70, 85)),
    "WebP": ("WEBP", dict(method=6), (1, 5, 15, 30, 50, 70, 85)),
    "AVIF": ("AVIF", dict(speed=6), (15, 25, 35, 45, 55, 65, 75)),
}


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def measure(pictures: list[Image.Image], encode: Callable, decode: Callable) -> tuple[float, float, float, float]:
    """Mean bits per pixel, PSNR, encode and decode seconds."""
    rows = []
    for picture in pictures:
        begun = time.perf_counter()
        data = encode(picture)
        encoded = time.perf_counter()
        back = decode(data)
        decoded = time.perf_counter()
        rows.append((8 * len(data) / (picture.width * picture.height), psnr(picture, back), encoded - begun, decoded - encoded))
    return tuple(np.mean(rows, axis=0))


def pillow(format: str, options: dict, quality: int) -> tuple[Callable, Callable]:
    def encode(picture: Image.Image) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, format, quality=quality, **options)
        return stream.getvalue()

    return encode, lambda data: Image.open(io.BytesIO(data)).convert("RGB")


def bd_rate(ours: list[tuple], theirs: list[tuple]) -> float | None:
    """Mean relative difference in rate at equal PSNR, in percent; None without overlap."""
    curves = [sorted((p, np.log(b)) for b, p, *_ in rows) for rows in (ours, theirs)]
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if low >= high:
        return None
    grid = np.linspace(low, high, 200)
    a, b = (np.interp(grid, *zip(*curve)) for curve in curves)
    return float(100 * (np.exp(np.mean(a - b)) - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qualities", type=float, nargs="+", default=[0, 15, 30, 50, 70, 85, 100])
    parser.add_argument("--model")
    args = parser.parse_args()
    files = sorted(f for f in args.folder.iterdir() if f.suffix.lower() in {".png", ".avif", ".webp", ".jpg"})
    pictures = [Image.open(f).convert("RGB") for f in files]
    print(f"{len(pictures)} pictures\n\n{'codec':10} {'quality':>7} {'bpp':>7} {'PSNR':>7} {'enc s':>7} {'dec s':>7}")
    results: dict[str, list[tuple]] = {}
    runs = [("vqcodec", q, (lambda p, q=q: vqcodec.compress(p, quality=q, model=args.model)),
             lambda d: vqcodec.decompress(d, model=args.model)) for q in args.qualities]
    for name, (format, options, qualities) in PEERS.items():
        runs += [(name, q, *pillow(format, options, q)) for q in qualities]
    for name, quality, encode, decode in runs:
        row = measure(pictures, encode, decode)
        results.setdefault(name, []).append(row)
        print(f"{name:10} {quality:7g} {row[0]:7.3f} {row[1]:7.2f} {row[2]:7.3f} {row[3]:7.3f}", flush=True)
    print()
    for name in PEERS:
        rate = bd_rate(results["vqcodec"], results[name])
        print(f"BD-rate against {name}: " + ("no overlap" if rate is None else f"{rate:+.1f} %"))


if __name__ == "__main__":
    main()
