"""The pictures of the gallery: ``python docs/examples/gallery.py [FOLDER]`` writes them, to docs/pictures unless told otherwise.

Made of the photograph that ships with vqcodec (vqcodec/tools/data/README.md says whose), and of nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import vqcodec
from vqcodec.codec.images import psnr
from vqcodec.tools.demo import PHOTO, grid, labelled

PICTURES = Path(__file__).parents[1] / "pictures"
QUALITIES = (5, 25, 50, 80)
CROP = (140, 60, 500, 330)
CLASSES = ("flower-sunflowers", "flower-roses", "grocery-fruit", "clothing-dress")


def qualities(photo: Image.Image) -> Image.Image:
    """The same part of the photograph at four qualities."""
    cells = []
    for quality in QUALITIES:
        data = vqcodec.compress(photo, quality=quality)
        image = vqcodec.decompress(data)
        label = f"quality {quality}: {len(data):,} bytes, {psnr(photo, image):.1f} dB"
        cells.append(labelled(label, image.crop(CROP)))
    return grid(cells, columns=2, gap=10)


def progressive(photo: Image.Image) -> Image.Image:
    """What a file gives while it arrives."""
    data = vqcodec.compress(photo, quality=50)
    decoder, begin, cells = vqcodec.Decoder(), 0, []
    maps = [chunk for chunk in vqcodec.info(data)["chunks"] if chunk["name"].startswith("map")]
    for number, chunk in enumerate(maps, 1):
        end = chunk["offset"] + chunk["bytes"]
        preview, begin = decoder.feed(data[begin:end]), end
        if preview and number in (1, 2, 4, 6, 9, len(maps)):
            cells.append(labelled(f"{number} of {len(maps)} maps: {end:,} bytes", preview.resize((300, 200), Image.Resampling.LANCZOS)))
    return grid(cells, columns=3, gap=10)


def parts(photo: Image.Image) -> Image.Image:
    """A region, and the picture at a fraction of its size."""
    data = vqcodec.compress(photo, quality=60)
    box = (330, 40, 530, 240)
    whole = vqcodec.decompress(data)
    ImageDraw.Draw(whole).rectangle(box, outline="red", width=3)
    sheet = Image.new("RGB", (300 + 10 + 200 + 10 + 150, 270), "white")
    sheet.paste(labelled("the picture, by half", whole.resize((300, 200))), (0, 0))
    sheet.paste(labelled("region, 200 x 200", vqcodec.decompress(data, region=box)), (310, 0))
    x, y = 520, 0
    for scale in (4, 8, 16):
        small = vqcodec.decompress(data, scale=scale)
        sheet.paste(labelled(f"scale={scale}", Image.new("RGB", (150, small.height), "white")), (x, y))
        sheet.paste(small, (x, y + 26))
        y += small.height + 30
    return sheet


def inpainting(photo: Image.Image) -> Image.Image:
    """A part is covered and drawn anew, twice."""
    square = photo.crop((330, 130, 586, 386))
    mask = Image.new("L", square.size)
    ImageDraw.Draw(mask).ellipse((150, 130, 215, 195), fill=255)
    covered = Image.composite(Image.new("RGB", square.size, "white"), square, mask)
    cells = [labelled("before", square), labelled("covered", covered)]
    cells += [labelled(f"temperature={t}", vqcodec.inpaint(square, mask, seed=1, temperature=t)) for t in (1.0, 0.3)]
    return grid(cells, columns=4, gap=10)


def samples(_: Image.Image) -> Image.Image:
    """Four of each of four classes, as they are drawn."""
    drawn = [picture for name in CLASSES for picture in vqcodec.sample(name, n=4, seed=1)]
    return grid([picture.resize((160, 160), Image.Resampling.LANCZOS) for picture in drawn], columns=4)


FIGURES = {"qualities": qualities, "progressive": progressive, "parts": parts, "inpainting": inpainting, "samples": samples}


def main(folder: Path = PICTURES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    photo = Image.open(PHOTO).convert("RGB")
    for name, draw in FIGURES.items():
        path = folder / f"{name}.webp"
        draw(photo).save(path, quality=82, method=6)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
