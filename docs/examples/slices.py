"""docs/pictures/slices.webp: what the beginnings of a lossless file look like, filled in and drawn.

python docs/examples/slices.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

import vqcodec
from vqcodec.tools.demo import PHOTO

SIDE = 220


def main() -> None:
    photo = Image.open(PHOTO).convert("RGB").crop((140, 60, 140 + SIDE, 60 + SIDE))
    data = vqcodec.compress(photo, lossless=True)
    ends = [chunk["offset"] + chunk["bytes"] for chunk in vqcodec.info(data)["chunks"] if chunk["tag"] == "M"]
    rows = [("filled in", {}), ("drawn", {"complete": "sample", "seed": 1})]
    sheet = Image.new("RGB", (4 * (SIDE + 8), len(rows) * (SIDE + 24)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (name, options) in enumerate(rows):
        for x, maps in enumerate((2, 3, 4, 6)):
            at = x * (SIDE + 8), y * (SIDE + 24)
            sheet.paste(vqcodec.decompress(data, maps=maps, **options), at)
            what = f"{100 * ends[maps - 1] / len(data):.0f} % of the bytes" + (f", {name}" if maps < 6 else ", whole")
            draw.text((at[0] + 2, at[1] + SIDE + 5), what, fill="black")
    sheet.save(Path(__file__).parent.parent / "pictures" / "slices.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
