"""Rate and distortion on a folder of pictures, real file sizes, against Pillow's codecs.

    python -m benchmarks.rate_distortion FOLDER [--qualities 10 30 50 70 90] [--effort 3] [--model FILE]

Prints, per codec and quality, bits per pixel, PSNR and MS-SSIM (means over pictures; RGB, MS-SSIM also in
dB, -10 log10(1 - x)), seconds per picture, and the BD-rate of vqcodec against each codec: the mean
difference in rate at equal PSNR (Bjontegaard 2001; here with linear interpolation of log-rate), over the
range that both reach, and over the part of it where vqcodec takes 0.15 to 0.7 bits per pixel.
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
from training.metrics import ms_ssim, psnr

PEERS = {
    "JPEG": ("JPEG", lambda q: dict(optimize=True, progressive=True, quality=q), (5, 10, 20, 30, 50, 70, 85)),
    "JPEG2000": ("JPEG2000", lambda bpp: dict(quality_mode="rates", quality_layers=[24 / bpp], irreversible=True),
                 (0.1, 0.15, 0.25, 0.4, 0.6, 0.9)),
    "WebP": ("WEBP", lambda q: dict(method=6, quality=q), (1, 5, 15, 30, 50, 70, 85)),
    "AVIF": ("AVIF", lambda q: dict(speed=6, quality=q), (15, 25, 35, 45, 55, 65, 75)),
}
#: Bits per pixel that the narrower BD-rate is about.
RANGE = 0.15, 0.7


def measure(pictures: list[Image.Image], encode: Callable, decode: Callable) -> tuple[float, ...]:
    """Mean bits per pixel, PSNR, MS-SSIM, the same in dB, encode and decode seconds."""
    rows = []
    for picture in pictures:
        begun = time.perf_counter()
        data = encode(picture)
        encoded = time.perf_counter()
        back = decode(data)
        decoded = time.perf_counter()
        a, b = np.asarray(picture), np.asarray(back)
        similarity = ms_ssim(a, b)
        rows.append((8 * len(data) / (picture.width * picture.height), psnr(a, b), similarity, -10 * np.log10(1 - similarity),
                     encoded - begun, decoded - encoded))
    return tuple(np.mean(rows, axis=0))


def pillow(format: str, options: dict) -> tuple[Callable, Callable]:
    def encode(picture: Image.Image) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, format, **options)
        return stream.getvalue()

    return encode, lambda data: Image.open(io.BytesIO(data)).convert("RGB")


def bd_rate(ours: list[tuple], theirs: list[tuple], rates: tuple[float, float] = (0, np.inf), column: int = 1) -> float | None:
    """Mean relative difference in rate at equal quality, in percent, where ours lies in ``rates``; None without overlap."""
    curves = [sorted((row[column], np.log(row[0])) for row in rows) for rows in (ours, theirs)]
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if low >= high:
        return None
    grid = np.linspace(low, high, 400)
    a, b = (np.interp(grid, *zip(*curve)) for curve in curves)
    kept = (np.exp(a) >= rates[0]) & (np.exp(a) <= rates[1])
    return float(100 * (np.exp(np.mean((a - b)[kept])) - 1)) if kept.any() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qualities", type=float, nargs="+", default=[0, 15, 30, 50, 70, 85, 100])
    parser.add_argument("--effort", type=int, default=3)
    parser.add_argument("--model")
    args = parser.parse_args()
    files = sorted(f for f in args.folder.iterdir() if f.suffix.lower() in {".png", ".avif", ".webp", ".jpg"})
    pictures = [Image.open(f).convert("RGB") for f in files]
    print(f"{len(pictures)} pictures\n\n{'codec':10} {'quality':>7} {'bpp':>7} {'PSNR':>7} {'MS-SSIM':>8} {'in dB':>7} {'enc s':>7} {'dec s':>7}")
    results: dict[str, list[tuple]] = {}
    runs = [("vqcodec", q, (lambda p, q=q: vqcodec.compress(p, quality=q, effort=args.effort, model=args.model)),
             lambda d: vqcodec.decompress(d, model=args.model)) for q in args.qualities]
    for name, (format, options, qualities) in PEERS.items():
        runs += [(name, q, *pillow(format, options(q))) for q in qualities]
    for name, quality, encode, decode in runs:
        row = measure(pictures, encode, decode)
        results.setdefault(name, []).append(row)
        print(f"{name:10} {quality:7g} {row[0]:7.3f} {row[1]:7.2f} {row[2]:8.4f} {row[3]:7.2f} {row[4]:7.3f} {row[5]:7.3f}", flush=True)
    print()
    print(f"{'BD-rate against':16} {'PSNR':>8} {'the same, 0.15-0.7 bpp':>24} {'MS-SSIM, 0.15-0.7 bpp':>24}")
    for name in PEERS:
        rates = [bd_rate(results["vqcodec"], results[name], *how) for how in ((), (RANGE,), (RANGE, 3))]
        shown = ["no overlap" if rate is None else f"{rate:+.1f} %" for rate in rates]
        print(f"{name:16} {shown[0]:>8} {shown[1]:>24} {shown[2]:>24}")


if __name__ == "__main__":
    main()
