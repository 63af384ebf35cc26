"""Folders of images as training data. Three layouts are understood:

    ROOT/train/<class>/*   ROOT/val/<class>/*   ROOT/photos/*   ROOT/lossless/*    (the last two, optional: large
                           pictures without a class; of lossless, some are kept out: KEPT_OUT)
    ROOT/<class>/*                                               (one file of 16 is for validation)
    ROOT/*                                                       (likewise, no classes)

Folders are searched in depth. Pictures are decoded once into uint8 crops, kept as one memory-mapped
array beside the checkpoints, so that a resumed run starts in seconds and sees the same data.
Pictures that are unreadable or too small are skipped, counted, and listed in a text file there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from training.synthetic import picture

CROP = 256
SUFFIXES = {".avif", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
#: So many pictures of ROOT/lossless, chosen by name, are never trained on: to choose and to measure with.
KEPT_OUT = 20
#: Where there is no folder called train, one picture of so many is for validation.
HELD_OUT = 16


@dataclass(frozen=True)
class Crops:
    """Square uint8 crops (N x side x side x 3) and the class number of each (0 = none)."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """The crops to take from one file."""

    file: Path
    label: int
    seeds: range


def classes_of(root: Path) -> tuple[str, ...]:
    """Class names, sorted: class k + 1 is called classes_of(root)[k]."""
    folder = root / "train" if (root / "train").is_dir() else root
    return tuple(
        sorted(d.name for d in folder.iterdir() if d.is_dir() and d.name not in ("train", "val", "photos", "lossless"))
    )


def load(
    root: Path,
    split: str,
    cache: Path,
    *,
    seed: int = 0,
    crops: int = 1,
    photo_crops: int = 64,
    lossless_crops: int = 8,
    synthetic: int = 0,
    crop: int = CROP,
) -> Crops:
    """Crops of ``split`` ("train" or "val"), each ``crop`` pixels wide and high, ``crops`` of every picture.

    ``photo_crops`` are taken of every picture in ROOT/photos, ``lossless_crops`` of every one in ROOT/lossless,
    and ``synthetic`` are drawn (training/synthetic.py): these join the training split only.
    """
    if not root.is_dir():
        raise SystemExit(f"{root} is neither a folder nor a file that training.pack made")
    jobs = list(_jobs(root, split, crops, photo_crops, lossless_crops))
    drawn = synthetic if split == "train" else 0
    listing = [[str(job.file.relative_to(root)), job.label, len(job.seeds)] for job in jobs]
    key = hashlib.sha256(json.dumps([listing, seed, crop, drawn]).encode()).hexdigest()[:16]
    pixels, labels = cache / f"{split}-{key}.npy", cache / f"{split}-{key}-labels.npy"
    if not labels.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _decode(jobs, pixels, labels, seed, crop, drawn)
    kept = np.load(labels)
    return Crops(np.load(pixels, mmap_mode="r")[: len(kept)], kept, classes_of(root))


def evenly(root: Path, split: str, count: int, *, seed: int = 0, crop: int = CROP) -> Crops:
    """The crops that :func:`load` gives of at most ``count`` pictures, spread evenly over the split.

    Decodes only these, and keeps no cache. Photographs are left out.
    """
    jobs = [job for job in _jobs(root, split, 1, 0, 0) if job.seeds]
    found = []
    edges = np.linspace(0, len(jobs), count + 1).astype(int)
    for part in (jobs[a:b] for a, b in pairwise(edges)):  # the first usable picture of each part
        decoded = ((_crops(job.file, [seed], crop), job.label) for job in part)
        found += islice(((crops[0], label) for crops, label in decoded if not isinstance(crops, str)), 1)
    if not found:
        raise SystemExit(f"{root}: no usable {split} pictures found: see training/data.py for the layouts")
    pixels, labels = zip(*found)
    return Crops(np.stack(pixels), np.array(labels, np.int64), classes_of(root))


def _jobs(root: Path, split: str, crops: int, photo_crops: int, lossless_crops: int) -> Iterator[_Job]:
    classes = classes_of(root)
    own_split = (root / "train").is_dir()
    base = root / split if own_split else root
    for label, name in enumerate(classes or ("",), 1 if classes else 0):
        files = pictures(base / name)
        held_out = set() if own_split else _held_out(files)
        for file in files:
            if own_split or (file in held_out) == (split == "val"):
                yield _Job(file, label, range(crops))
    if split == "train":
        for file in pictures(root / "photos"):
            yield _Job(file, 0, range(1, photo_crops + 1))
        files = pictures(root / "lossless")
        for file in sorted(set(files) - set(kept_out(root))):
            yield _Job(file, 0, range(1, lossless_crops + 1))


def kept_out(root: Path) -> list[Path]:
    """The pictures of ROOT/lossless that are never trained on."""
    return _by_digest(pictures(root / "lossless"))[:KEPT_OUT]


def pictures(folder: Path) -> list[Path]:
    """All files in a folder, searched in depth, that are called like pictures."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())


def _held_out(files: list[Path]) -> set[Path]:
    """The pictures of a folder that are for validation, at least one of two: chosen by name."""
    return set(_by_digest(files)[: max(1, len(files) // HELD_OUT)]) if len(files) > 1 else set()


def _by_digest(files: list[Path]) -> list[Path]:
    """In an order that has nothing to do with what is in them."""
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def _decode(jobs: Sequence[_Job], pixels_file: Path, labels_file: Path, seed: int, side: int, drawn: int) -> None:
    """Write the crops one by one: memory holds a few pictures at a time."""
    total = sum(len(job.seeds) for job in jobs) + drawn
    if total == drawn:
        raise SystemExit(
            f"no pictures found for {pixels_file.name.partition('-')[0]}: see training/data.py for the layouts"
        )
    pixels = np.lib.format.open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=(total, side, side, 3))
    labels: list[int] = []
    skipped: list[str] = []
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        left = iter(jobs)
        while part := list(islice(left, 4 * workers)):
            for job, result in zip(
                part, pool.map(lambda job: _crops(job.file, [seed + s for s in job.seeds], side), part)
            ):
                if isinstance(result, str):
                    skipped.append(f"{job.file.name}: {result}")
                for crop in result if not isinstance(result, str) else ():
                    pixels[len(labels)] = crop
                    labels.append(job.label)
    if not labels:
        raise SystemExit("no usable picture found")
    for number in range(drawn):
        pixels[len(labels)] = picture(seed + number, side)
        labels.append(0)
    pixels.flush()
    if skipped:
        listing = labels_file.with_name(labels_file.name.replace("-labels.npy", "-skipped.txt"))
        listing.write_text("\n".join(skipped) + "\n", encoding="utf-8")
        few = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        print(f"skipped {len(skipped)} of {len(jobs)} pictures, listed in {listing.name}: {few}", flush=True)
    np.save(labels_file, np.array(labels, np.int64))


def _crops(file: Path, seeds: Sequence[int], side: int) -> list[np.ndarray] | str:
    """A crop for every seed, or why there is none."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return str(error)
    if min(image.size) < 0.9 * side:
        return f"short side {min(image.size)} is under {side}"
    name = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big")
    return [_crop(image, np.random.default_rng([seed, name]), side) for seed in seeds]


def _crop(image: Image.Image, rng: np.random.Generator, side: int) -> np.ndarray:
    """A random crop. Large photographs are first scaled at random."""
    short = min(image.size)
    scale = max(side / short, rng.uniform(0.35, 1)) if short > 1.6 * side else max(1.0, side / short)
    width, height = (max(side, round(length * scale)) for length in image.size)
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    if scale == 1:
        return np.asarray(image.crop((x, y, x + side, y + side)))
    # Only the crop is resampled, not the picture.
    fx, fy = image.width / width, image.height / height
    return np.asarray(image.resize((side, side), Image.LANCZOS, (x * fx, y * fy, (x + side) * fx, (y + side) * fy)))
