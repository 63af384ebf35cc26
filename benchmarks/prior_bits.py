"""What the priors save on a folder of pictures: bits against uniform and zero-order codes, per map.

    python -m benchmarks.prior_bits FOLDER [--qualities 30 50 70 100] [--model FILE]

Zero-order: the entropy of each map's codes over the whole folder at that quality, as if a coder knew it.
Codes are chosen with effort 0, as the priors were trained; streams' ends and headers are not counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vqcodec import images, ops
from vqcodec.codec import Codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qualities", type=float, nargs="+", default=[15, 30, 50, 70, 85, 100])
    parser.add_argument("--model")
    args = parser.parse_args()
    codec = Codec(args.model)
    auto = codec.model.config.autoencoder
    pictures = [images.to_array(f).pixels for f in sorted(args.folder.iterdir()) if f.suffix.lower() in {".png", ".avif", ".webp", ".jpg"}]
    area = sum(p.shape[0] * p.shape[1] for p in pictures)
    print(f"{len(pictures)} pictures; bits per pixel, and bits per code: zero-order > prior\n")
    print(f"{'quality':>7} {'uniform':>8} {'zero-order':>10} {'prior':>7} {'saved':>7}  per map")
    for quality in args.qualities:
        coded = [codec.encode_maps(p, quality, effort=0) for p in pictures]
        level = auto.level(auto.position(quality))
        totals, parts = np.zeros(3), []
        for number, (m, prior) in enumerate(zip(auto.maps, codec.model.priors)):
            codes = np.concatenate([maps[number].ravel() for maps in coded])
            share = np.bincount(codes, minlength=m.codes) / codes.size
            zero = -(share[share > 0] * np.log2(share[share > 0])).sum() * codes.size
            bits = sum(24 * maps[number].size - np.log2(ops.prior_frequencies(prior, maps[number], maps[:number], 0, level)[1]).sum()
                       for maps in coded)
            totals += np.log2(m.codes) * codes.size, zero, bits
            parts.append(f"{zero / codes.size:.2f}>{bits / codes.size:.2f}")
        uniform, zero, bits = totals / area
        print(f"{quality:7g} {uniform:8.3f} {zero:10.4f} {bits:7.4f} {100 * (1 - bits / zero):5.1f} %  {' '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
