"""How fast is the autoencoder on the compiled core, pixels and latents alone?

    python -m benchmarks.autoencoder [--threads 1 2] [--variants avx2 avx512] [--height 512 --width 768] [--repeats 7]

Networks of the shipped model's shapes with random weights: no number depends on their values. Variants and
threads take turns, so that a slow moment of the machine hits all of them; the table shows medians.

    GMAC/s  10^9 multiply-accumulates per second
    peak    share of the multiply-add rate that benchmarks/roofline.cpp reaches in registers in the same run
    tile    share of what it reaches with the kernels of the priors and all operands in the first-level cache
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from benchmarks.decode import Roofline
from vqcodec import ops
from vqcodec.model import autoencoder as definition
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.config import AutoencoderConfig, preset
from vqcodec.model.integer_network import Kernel, Offsets


def random_autoencoder(config: AutoencoderConfig, seed: int = 1) -> IntegerAutoencoder:
    """Of the shapes of a description; values neither vanish nor all saturate."""
    rng = np.random.default_rng(seed)

    def kernel(name: str, inputs: int, outputs: int, offsets: Offsets) -> Kernel:
        phases, taps = len(offsets), len(offsets[0])
        weight = rng.integers(-40, 41, (phases, outputs, taps, inputs)).astype(np.int8)
        shift = np.full((phases, outputs), round(np.log2(24 * (taps * inputs) ** 0.5)), np.uint8)
        return Kernel(weight, rng.integers(-1000, 1000, (phases, outputs)).astype(np.int32), shift, offsets)

    networks = {"lapped": definition._lapped, "conv": definition._conv}[config.transform](config, kernel)
    books = tuple(rng.integers(-3000, 3001, (m.codes, m.dim)).astype(np.int16) for m in config.maps)
    lengths = tuple(np.zeros((config.levels, m.codes), np.uint8) for m in config.maps)
    return IntegerAutoencoder(config, books, lengths, *networks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variants", nargs="+", default=[v for v in ops.cpu.cpu_variants() if v != "scalar"])
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    height, width = options.height, options.width
    autoencoder = random_autoencoder(preset("default").autoencoder)
    config, rng = autoencoder.config, np.random.default_rng(2)
    maps = [rng.integers(0, m.codes, (height // m.stride, width // m.stride)).astype(np.int32) for m in config.maps]
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    work = {
        "pixels": (
            autoencoder.synthesis,
            lambda v: ops.autoencoder_pixels(autoencoder, maps, height, width, backend=v),
        ),
        "features": (autoencoder.analysis, lambda v: ops.autoencoder_features(autoencoder, image, backend=v)),
    }
    times: dict[tuple[str, str, int], list[float]] = {}
    for repeat in range(options.repeats + 1):
        for threads in options.threads:
            ops.cpu.set_num_threads(threads)
            for variant in options.variants:
                for name, (_, call) in work.items():
                    start = time.perf_counter()
                    call(variant)
                    if repeat:
                        times.setdefault((name, variant, threads), []).append(time.perf_counter() - start)
    print(f"{width} x {height}, medians of {options.repeats}; load average before: {os.getloadavg()[0]:.1f}\n")
    print("| | variant | threads | ms | fastest | GMAC/s | peak | tile |\n|---|---|---|---|---|---|---|---|")
    rooflines = {(v, n): Roofline.measured(v, n) for v in options.variants for n in options.threads}
    for (name, variant, threads), found in times.items():
        roofline, seconds = rooflines[variant, threads], statistics.median(found)
        rate = work[name][0].macs() * height * width / seconds / 1e9
        print(
            f"| {name} | {variant} | {threads} | {seconds * 1e3:.1f} | {min(found) * 1e3:.1f} | {rate:.1f} "
            f"| {rate / roofline.registers:.0%} | {rate / roofline.tile:.0%} |"
        )


if __name__ == "__main__":
    main()
