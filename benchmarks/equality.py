"""Are all backends equal on real images, with the shipped model? A check, not a timing.

    python -m benchmarks.equality FOLDER [--reference 2]

Every image is coded at the default quality. Frequencies, bytes and decoded maps of every
instruction set with 1 and 2 threads, and of a batch of all images, are compared with ==; so are the
whole file (effort 3), the pixels, and the pixels of windows of an awkward size. The
NumPy reference is only run on the first few images, because it is slow; it does not search for
codes. Exits with 1 on a difference.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import vqcodec
from vqcodec import ops
from vqcodec.codec.codec import Codec
from vqcodec.format import container
from vqcodec.model.prior import Condition
from vqcodec.ops import cpu, range_coder
from vqcodec.tiling import Box


def same_pixels(autoencoder, maps: list, shape: tuple, pixels: np.ndarray, backend: str) -> int:
    """Compares the image, whole and in windows; returns the number of comparisons."""
    stride = autoencoder.config.strides[0]
    height, width = (-(-side // stride) * stride for side in shape[:2])
    whole = ops.autoencoder_pixels(autoencoder, maps, height, width, backend=backend)
    assert np.array_equal(whole[: shape[0], : shape[1]], pixels), backend
    if backend == "reference":
        return 1
    boxes = [
        Box(x, y, min(x + 149, width), min(y + 83, height)) for y in range(0, height, 83) for x in range(0, width, 149)
    ]
    for box in boxes:
        part = ops.autoencoder_pixels(autoencoder, maps, height, width, box=box, backend=backend)
        assert np.array_equal(part, whole[box.y0 : box.y1, box.x0 : box.x1]), (backend, box)
    return 1 + len(boxes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=int, default=2, help="number of images for the NumPy reference")
    args = parser.parse_args()
    codec = Codec()
    priors = codec.model.priors
    backends = cpu.cpu_variants()
    jobs, truths, checks = [], [], 0
    for number, path in enumerate(sorted(args.folder.glob("*.png"))):
        picture = np.asarray(Image.open(path).convert("RGB"))
        data = vqcodec.compress(picture)
        maps, found = codec.read(data)[1], container.read(data)
        header = found.header
        condition = Condition(header.class_id, header.level)
        maps = maps[: header.maps]
        streams = [tiles[0] for tiles in found.maps]
        shapes = [m.shape for m in maps]
        pixels = np.asarray(vqcodec.decompress(data))
        names = backends + ["reference"] * (number < args.reference)
        for backend in names:
            for threads in (1, 2) if backend != "reference" else (1,):
                cpu.set_num_threads(threads)
                for m, codes in enumerate(maps):
                    coded = ops.prior_frequencies(priors[m], codes, maps[:m], condition, backend=backend)
                    assert range_coder.encode_stream(*coded) == streams[m], (path.name, backend, threads, m)
                decoded = ops.wavefront_decode(priors[: len(maps)], shapes, streams, condition, backend=backend)
                assert all(np.array_equal(a, b) for a, b in zip(decoded, maps)), (path.name, backend, threads)
                checks += 2 * len(maps)
                if backend != "reference":
                    os.environ["VQCODEC_BACKEND"] = backend
                    assert vqcodec.compress(picture) == data, (path.name, backend, threads)
                    del os.environ["VQCODEC_BACKEND"]
                checks += 1 + same_pixels(codec.model.autoencoder, maps, picture.shape, pixels, backend)
        if len(maps) == len(priors):
            jobs.append(ops.DecodeJob(shapes, streams, condition))
            truths.append(maps)
        print(f"{path.name}: {len(maps)} maps equal on {', '.join(names)}", flush=True)
    for backend in backends:
        for decoded, maps in zip(ops.wavefront_decode_batch(priors, jobs, backend=backend), truths):
            assert all(np.array_equal(a, b) for a, b in zip(decoded, maps)), ("batch", backend)
            checks += len(maps)
    print(f"batch of {len(jobs)} images equal on {', '.join(backends)}; {checks} comparisons in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
