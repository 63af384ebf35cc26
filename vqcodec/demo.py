"""``vqcodec demo``: the whole library on one photograph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import vqcodec
from vqcodec.models import file

PHOTO = Path(__file__).parent / "data" / "photo.webp"
QUALITIES = (5, 25, 50, 75, 95)
SAMPLED = ("flower-roses", "clothing-shoes")
SAMPLES = 4


def run(folder: Path, *, model: str | None = None) -> None:
    """Print a table of sizes and distortions; write files, pictures and ``contact_sheet.png`` to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = Image.open(PHOTO).convert("RGB")
    print(f"{PHOTO.name}: {photo.width} x {photo.height}, {3 * photo.width * photo.height:,} bytes of pixels\n")
    print(f"{'quality':>7} {'bytes':>9} {'bits/pixel':>10} {'PSNR dB':>8} {'encode s':>9} {'decode s':>9}")
    vqcodec.compress(photo.crop((0, 0, 64, 64)), model=model)  # loads torch and the model
    cells = [(photo, "original")]
    for quality in QUALITIES:
        begun = time.perf_counter()
        data = vqcodec.compress(photo, quality=quality, model=model)
        encoded = time.perf_counter()
        back = vqcodec.decompress(data, model=model)
        decoded = time.perf_counter()
        bpp = 8 * len(data) / (photo.width * photo.height)
        print(f"{quality:7} {len(data):9,} {bpp:10.3f} {psnr(photo, back):8.2f} {encoded - begun:9.2f} {decoded - encoded:9.2f}")
        (folder / f"quality_{quality}.vqc").write_bytes(data)
        back.save(folder / f"quality_{quality}.png")
        cells.append((back, f"quality {quality}: {bpp:.3f} bits per pixel, {psnr(photo, back):.1f} dB"))
    classes = file.load(model).config.classes
    chosen = [name for name in SAMPLED if name in classes] or list(classes[:2])
    strips = []
    for name in chosen:
        strip = side_by_side(vqcodec.sample(name, SAMPLES, seed=1, model=model), columns=SAMPLES)
        strip.save(folder / f"sample_{name}.png")
        strips.append((strip, f"samples of {name}"))
    sheet = contact_sheet(cells, strips)
    sheet.save(folder / "contact_sheet.png")
    print(f"\nwrote {len(list(folder.iterdir()))} files to {folder}; look at {folder / 'contact_sheet.png'}")


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio of two RGB images in dB."""
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def side_by_side(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures of equal size on a grid, nearly square unless ``columns`` is given."""
    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    if len(pictures) == 1:
        return pictures[0]
    gap = 4
    grid = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        grid.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return grid


def contact_sheet(cells: Sequence[tuple[Image.Image, str]], strips: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Labelled pictures, three to a row, and labelled strips below."""
    columns, margin, label = 3, 12, 26
    width, height = cells[0][0].size
    rows = -(-len(cells) // columns)
    total_width = columns * (width + margin) + margin
    total_height = rows * (height + label + margin) + sum(s.height + label + margin for s, _ in strips) + margin
    sheet = Image.new("RGB", (total_width, total_height), "white")
    draw = ImageDraw.Draw(sheet)

    def place(picture: Image.Image, text: str, x: int, y: int) -> None:
        draw.text((x, y + 4), text, fill="black", font_size=17)
        sheet.paste(picture, (x, y + label))

    for i, (picture, text) in enumerate(cells):
        place(picture, text, margin + i % columns * (width + margin), margin + i // columns * (height + label + margin))
    y = margin + rows * (height + label + margin)
    for strip, text in strips:
        place(strip, text, margin, y)
        y += strip.height + label + margin
    return sheet
