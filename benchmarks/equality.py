"""Are all backends equal on real pictures, with the shipped model? A check to run, not a timing.

    python -m benchmarks.equality FOLDER [--reference 2]

Every picture is coded at the default quality. Frequencies, bytes and decoded maps of every
instruction set with 1 and 2 threads, and of a batch of all pictures, are compared with ==; the
NumPy reference joins for the first few pictures, because it is slow. Exits with 1 on a difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import vqcodec
from vqcodec import ops
from vqcodec.codec.codec import Codec
from vqcodec.ops import cpu, range_coder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=int, default=2, help="pictures that the NumPy reference does, too")
    args = parser.parse_args()
    codec = Codec()
    priors = codec.model.priors
    backends = cpu.cpu_variants()
    jobs, truths, checks = [], [], 0
    for number, path in enumerate(sorted(args.folder.glob("*.png"))):
        picture = np.asarray(Image.open(path).convert("RGB"))
        found, maps = codec.read(vqcodec.compress(picture))
        header = found.header
        maps = maps[: header.maps]
        streams = [tiles[0] for tiles in found.maps]
        shapes = [m.shape for m in maps]
        names = backends + ["reference"] * (number < args.reference)
        for backend in names:
            for threads in (1, 2) if backend != "reference" else (1,):
                cpu.set_num_threads(threads)
                for m, codes in enumerate(maps):
                    coded = ops.prior_frequencies(priors[m], codes, maps[:m], header.class_id, header.level, backend=backend)
                    assert range_coder.encode_stream(*coded) == streams[m], (path.name, backend, threads, m)
                decoded = ops.wavefront_decode(priors[: len(maps)], shapes, streams, header.class_id, header.level, backend=backend)
                assert all(np.array_equal(a, b) for a, b in zip(decoded, maps)), (path.name, backend, threads)
                checks += 2 * len(maps)
        if len(maps) == len(priors):
            jobs.append(ops.DecodeJob(shapes, streams, header.class_id, header.level))
            truths.append(maps)
        print(f"{path.name}: {len(maps)} maps equal on {', '.join(names)}", flush=True)
    for backend in backends:
        for decoded, maps in zip(ops.wavefront_decode_batch(priors, jobs, backend=backend), truths):
            assert all(np.array_equal(a, b) for a, b in zip(decoded, maps)), ("batch", backend)
            checks += len(maps)
    print(f"batch of {len(jobs)} pictures equal on {', '.join(backends)}; {checks} comparisons in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
