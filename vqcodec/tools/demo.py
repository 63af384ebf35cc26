"""``vqcodec demo``: the whole library on one photograph (data/README.md says whose)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vqcodec
from vqcodec.codec import images

PHOTO = Path(__file__).parent / "data" / "photo.webp"
QUALITIES = (10, 25, 50, 75, 90)
SAMPLED = ("flower-roses", "clothing-shoes")
SAMPLES = 7
SEED = 1

_GAP = 12
_LABEL = 26


@dataclass(frozen=True)
class Trip:
    """A photograph, compressed and decompressed."""

    quality: int
    data: bytes
    image: Image.Image
    encode_seconds: float
    decode_seconds: float

    @property
    def bits_per_pixel(self) -> float:
        return 8 * len(self.data) / (self.image.width * self.image.height)


def run(folder: Path, *, model: str | None = None) -> None:
    """Print a table of rates and distortions; write files, pictures and a contact sheet to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = vqcodec.Codec(model)
    photo = Image.open(PHOTO).convert("RGB")
    round_trip(codec, photo.crop((0, 0, 64, 64)), QUALITIES[0])  # what is loaded once is not timed

    print(f"{PHOTO.name}: {photo.width} x {photo.height}, {3 * photo.width * photo.height:,} bytes of pixels\n")
    print("quality     bytes  bits per pixel  PSNR dB  encode s  decode s")
    cells = [("original, 24 bits per pixel", photo)]
    for quality in QUALITIES:
        trip = round_trip(codec, photo, quality)
        distortion = images.psnr(photo, trip.image)
        print(
            f"{quality:7} {len(trip.data):9,} {trip.bits_per_pixel:15.3f} {distortion:8.2f} "
            f"{trip.encode_seconds:9.2f} {trip.decode_seconds:9.2f}"
        )
        (folder / f"photo_q{quality}.vqc").write_bytes(trip.data)
        trip.image.save(folder / f"photo_q{quality}.png")
        cells.append((f"quality {quality}: {trip.bits_per_pixel:.3f} bits per pixel, {distortion:.1f} dB", trip.image))

    strips = []
    for name in sampled_classes(codec.model.config.classes):
        strip = grid(vqcodec.sample(name, SAMPLES, seed=SEED, model=model), columns=SAMPLES)
        strip.save(folder / f"sample_{name}.png")
        strips.append((f"samples of {name}, seed {SEED}", strip))
    sheet = folder / "contact_sheet.png"
    contact_sheet(cells, strips).save(sheet)
    print(f"\nsamples of {' and '.join(sampled_classes(codec.model.config.classes))}")
    print(f"all pictures are in {folder}, and together in {sheet}")


def round_trip(codec: vqcodec.Codec, photo: Image.Image, quality: int) -> Trip:
    """Compress and decompress, with the time that each took."""
    begun = time.perf_counter()
    data = vqcodec.compress(photo, quality=quality, model=codec.model)
    between = time.perf_counter()
    image = vqcodec.decompress(data, model=codec.model)
    return Trip(quality, data, image, between - begun, time.perf_counter() - between)


def sampled_classes(classes: Sequence[str]) -> list[str]:
    """The classes to show: the demo's own if the model knows them, else its first two."""
    return [name for name in SAMPLED if name in classes] or list(classes[:2])


def grid(pictures: Sequence[Image.Image], columns: int | None = None, gap: int = 4) -> Image.Image:
    """Pictures of one size side by side, in rows of ``columns`` (default: nearly square)."""
    columns = min(len(pictures), columns or int(np.ceil(np.sqrt(len(pictures)))))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def contact_sheet(
    cells: Sequence[tuple[str, Image.Image]], strips: Sequence[tuple[str, Image.Image]], columns: int = 3
) -> Image.Image:
    """Labelled pictures of one size in rows of ``columns``, and below them labelled strips."""
    pictures = [labelled(*cell) for cell in cells]
    table = grid(pictures, columns, _GAP)
    below = [labelled(*strip) for strip in strips]
    width = max(image.width for image in [table, *below])
    height = sum(image.height + _GAP for image in [table, *below])
    sheet = Image.new("RGB", (width + 2 * _GAP, height + _GAP), "white")
    y = _GAP
    for image in [table, *below]:
        sheet.paste(image, (_GAP, y))
        y += image.height + _GAP
    return sheet


def labelled(label: str, picture: Image.Image) -> Image.Image:
    image = Image.new("RGB", (picture.width, picture.height + _LABEL), "white")
    ImageDraw.Draw(image).text((0, 3), label, fill="black", font=ImageFont.load_default(17))
    image.paste(picture, (0, _LABEL))
    return image
