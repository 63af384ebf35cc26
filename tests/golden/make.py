"""Regenerate the golden files: ``python -m tests.golden.make``.

Only for a new shipped model or a new format version; files of released versions are kept.
The images are generated, so that nothing else is needed to check them. docs/FORMAT.md, which
shows one of the files, is also updated (`tests.golden.listing`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

import vqcodec
from tests.conftest import scene
from tests.golden import listing
from tests.installed import digest
from vqcodec.codec.codec import Codec
from vqcodec.codec.images import RasterImage

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"
SAMPLES = [("flower-roses", 1), ("clothing-shoes", 2), (None, 3)]


def pictures() -> dict[str, tuple[RasterImage, dict]]:
    """Name -> image and options of compress."""
    colour = scene(96, 144)
    ramp = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))
    return {
        "colour": (RasterImage(colour), dict(quality=50)),
        "best": (RasterImage(scene(64, 80, seed=2)), dict(quality=100)),
        "smallest": (RasterImage(scene(120, 100, seed=3)), dict(quality=0)),
        "class": (RasterImage(scene(70, 50, seed=4)), dict(quality=60, class_id="flower-tulips")),
        "grey": (RasterImage(np.repeat(colour[:50, :61, :1], 3, 2), grey=True), dict(quality=70)),
        "alpha": (
            RasterImage(scene(40, 48, seed=5), alpha=ramp, metadata={"icc": b"not a profile " * 9}),
            dict(quality=40),
        ),
        "pixel": (RasterImage(np.full((1, 1, 3), 77, np.uint8)), dict(quality=50)),
        "tiles": (RasterImage(scene(33, 1100, seed=6)), dict(quality=30)),
    }


def sample_name(class_id: str | None, seed: int) -> str:
    return f"{class_id or 'none'}:{seed}"


def main() -> None:
    codec = Codec()
    expected: dict[str, Any] = {
        "model": codec.model.fingerprint.hex(),
        "maps": {},
        "pixels": {},
        "again": {},
        "samples": {},
    }
    for name, (picture, options) in pictures().items():
        data = codec.compress(picture, **options)
        (HERE / f"{name}.vqc").write_bytes(data)
        expected["maps"][name] = digest(vqcodec.decode_maps(data))
        pixels = codec.decompress(data).pixels
        expected["pixels"][name] = hashlib.sha256(pixels.tobytes()).hexdigest()
        expected["again"][name] = digest(codec.encode_maps(pixels, 60))
    for class_id, seed in SAMPLES:
        maps = codec.sample_maps(class_id, 1, size=(64, 48), seed=seed)[0]
        expected["samples"][sample_name(class_id, seed)] = digest(maps)
    EXPECTED.write_text(json.dumps(expected, indent=2) + "\n")
    listing.main()


if __name__ == "__main__":
    main()
