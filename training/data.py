"""Folders of images as training data.

    ROOT/train/<class>/*   ROOT/val/<class>/*   ROOT/photos/*  (large pictures, no class)

Pictures are decoded once into uint8 crops, kept as one memory-mapped array beside
the checkpoints, so that a resumed run starts in seconds and sees the same data.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CROP = 256
SUFFIXES = {".avif", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Crops:
    """Square uint8 crops (N x 256 x 256 x 3) and the class number of each (0 = none)."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def classes_of(root: Path) -> tuple[str, ...]:
    return tuple(sorted(d.name for d in (root / "train").iterdir() if d.is_dir()))


def load(root: Path, split: str, cache: Path, *, seed: int = 0, photo_crops: int = 20) -> Crops:
    """Crops of ``split`` ("train" or "val"); photographs join the training split only.

    Unreadable or small pictures are skipped and listed on stdout.
    """
    classes = classes_of(root)
    jobs: list[tuple[Path, int, int]] = []  # file, label, seed
    for label, name in enumerate(classes, 1):
        jobs += [(f, label, 0) for f in _pictures(root / split / name)]
    if split == "train":
        jobs += [(f, 0, i) for i in range(1, photo_crops + 1) for f in _pictures(root / "photos")]
    key = hashlib.sha256(json.dumps([[f.name, label, s] for f, label, s in jobs] + [seed]).encode()).hexdigest()[:16]
    pixels_file, labels_file = cache / f"{split}-{key}.npy", cache / f"{split}-{key}-labels.npy"
    if not labels_file.exists():
        _decode(jobs, pixels_file, labels_file, seed)
    return Crops(np.load(pixels_file, mmap_mode="r"), np.load(labels_file), classes)


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*") if f.suffix.lower() in SUFFIXES)


def _decode(jobs: list[tuple[Path, int, int]], pixels_file: Path, labels_file: Path, seed: int) -> None:
    pixels_file.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: _crop(job[0], seed + job[2]), jobs))
    good = [i for i, r in enumerate(results) if isinstance(r, np.ndarray)]
    for (file, _, _), result in zip(jobs, results):
        if isinstance(result, str):
            print(f"skipped {file.name}: {result}", flush=True)
    if not good:
        raise SystemExit("no usable picture found")
    np.save(pixels_file, np.stack([results[i] for i in good]))
    np.save(labels_file, np.array([jobs[i][1] for i in good], np.int64))


def _crop(file: Path, seed: int) -> np.ndarray | str:
    """One 256 x 256 crop, or why there is none. Large photographs are first scaled at random."""
    name = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big")
    rng = np.random.default_rng([seed, name])
    try:
        image = Image.open(file).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return str(error)
    short = min(image.size)
    if short > 400:
        scale = max(CROP / short, rng.uniform(0.35, 1))
    elif short >= 0.9 * CROP:
        scale = max(1.0, CROP / short)
    else:
        return f"short side {short} is under {CROP}"
    if scale != 1:
        image = image.resize((max(CROP, round(image.width * scale)), max(CROP, round(image.height * scale))), Image.LANCZOS)
    x, y = (int(rng.integers(0, side - CROP + 1)) for side in image.size)
    return np.asarray(image.crop((x, y, x + CROP, y + CROP)))
