"""Pictures that no camera takes, drawn from a seed: text, screens, line art, charts, patterns and plain colours.

Photographs alone teach a codec to blur letters and to miss a colour that is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
LETTERS = "eeeettaaooinnsshrrddlucmfwygpbvkxqjz" + "ETAOINSHRDLU" + "0123456789" + ".,:;!?()-+/%$&"


def picture(seed: int, side: int) -> np.ndarray:
    """A picture, side x side x 3 uint8: the same one for the same seed."""
    rng = np.random.default_rng([seed, 0x5EED])
    draw = DRAWINGS[int(rng.integers(len(DRAWINGS)))]
    paper, ink = _colours(rng)
    image = Image.new("RGB", (side, side), paper)
    draw(rng, image, ink)
    return np.asarray(image)


def _colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two colours apart enough to be read, often black on white."""
    kind = rng.random()
    if kind < 0.35:
        return (255, 255, 255), (0, 0, 0)
    if kind < 0.5:
        return (int(rng.integers(0, 50)),) * 3, (int(rng.integers(200, 256)),) * 3
    while True:
        a, b = _colour(rng), _colour(rng)
        if abs(sum(a) - sum(b)) > 200:
            return a, b


def _colour(rng: np.random.Generator) -> Colour:
    """Any colour; half the time each channel is 0 or 255."""
    values = rng.integers(0, 2, 3) * 255 if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return int(values[0]), int(values[1]), int(values[2])


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join("".join(rng.choice(list(LETTERS), int(rng.integers(1, 10)))) for _ in range(count))


def _text(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """Lines of text of one size, sometimes turned."""
    size = int(rng.choice([9, 10, 11, 12, 14, 16, 20, 28, 44, 80]))
    font = ImageFont.load_default(size)
    canvas = ImageDraw.Draw(image)
    x, y = int(rng.integers(-size, size)), int(rng.integers(-size, size))
    spacing = float(rng.uniform(1.1, 1.8))
    while y < image.height:
        canvas.text((x, y), _words(rng, max(2, 4 * image.width // size // 8)), fill=ink, font=font)
        y += int(size * spacing) + 1
    if rng.random() < 0.15:
        image.paste(image.rotate(float(rng.uniform(-20, 20)), Image.BICUBIC, fillcolor=image.getpixel((0, 0))))


def _screen(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """Windows, buttons and lists with labels."""
    canvas = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 14))):
        x, y = (int(v) for v in rng.integers(-20, image.width - 20, 2))
        width, height = int(rng.integers(20, 160)), int(rng.integers(12, 120))
        radius = int(rng.choice([0, 0, 3, 8]))
        fill = _colour(rng) if rng.random() < 0.5 else (int(rng.integers(200, 256)),) * 3
        canvas.rounded_rectangle((x, y, x + width, y + height), radius, fill, ink if rng.random() < 0.6 else None)
        label = (0, 0, 0) if sum(fill) > 380 else (255, 255, 255)
        size = int(rng.integers(9, 16))
        for row in range(int(rng.integers(1, 5))):
            canvas.text(
                (x + 5, y + 3 + row * (size + 4)),
                _words(rng, int(rng.integers(1, 4))),
                fill=label,
                font=ImageFont.load_default(size),
            )


def _lines(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """Line art: segments, circles, polygons."""
    canvas = ImageDraw.Draw(image)
    colour = ink
    for _ in range(int(rng.integers(4, 30))):
        if rng.random() < 0.2:
            colour = _colour(rng)
        box = [int(v) for v in rng.integers(-20, image.width + 20, 4)]
        width, kind = int(rng.choice([1, 1, 1, 2, 3, 6])), int(rng.integers(4))
        ordered = (*sorted(box[::2]), *sorted(box[1::2]))
        corners = (ordered[0], ordered[2], ordered[1], ordered[3])
        if kind == 0:
            canvas.line(box, colour, width)
        elif kind == 1:
            canvas.ellipse(corners, _colour(rng) if rng.random() < 0.3 else None, colour, width)
        elif kind == 2:
            canvas.polygon([int(v) for v in rng.integers(0, image.width, 6)], _colour(rng), colour)
        else:
            canvas.arc(corners, *sorted(rng.uniform(0, 360, 2)), colour, width)


def _chart(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """Axes, a grid, curves or bars, numbers."""
    canvas, side, margin = ImageDraw.Draw(image), image.width, int(rng.integers(15, 40))
    step = int(rng.integers(12, 50))
    for at in range(margin, side, step):
        canvas.line((at, 0, at, side - margin), (220, 220, 220))
        canvas.line((margin, at, side, at), (220, 220, 220))
        canvas.text((at, side - margin + 3), str(at), fill=ink, font=ImageFont.load_default(10))
    canvas.line((margin, 0, margin, side - margin, side, side - margin), ink, int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(1, 5))):
        colour, xs = _colour(rng), np.arange(margin, side, int(rng.integers(3, 20)))
        ys = np.clip(side / 2 + np.cumsum(rng.normal(0, 12, len(xs))), 2, side - margin)
        if rng.random() < 0.6:
            canvas.line([(int(x), int(y)) for x, y in zip(xs, ys)], colour, int(rng.integers(1, 4)))
        else:
            for x, y in zip(xs.tolist(), ys.tolist()):
                canvas.rectangle((x, y, x + max(1, int(xs[1] - xs[0]) - 2), side - margin), colour)


def _pattern(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """Stripes, checks and dots of 1 to 16 pixels, or waves."""
    y, x = np.mgrid[: image.height, : image.width]
    a, b = (int(v) for v in rng.choice([1, 1, 2, 3, 4, 5, 8, 16], 2))
    kind = int(rng.integers(5))
    if kind == 4:
        fx, fy = rng.uniform(-0.6, 0.6, 2)
        level = (0.5 + 0.5 * np.sin(fx * x + fy * y))[..., None]
    else:
        on = [x // a % 2, y // b % 2, (x // a + y // a) % 2, (x % (2 * a) < a) & (y % (2 * b) < b)][kind]
        level = on.astype(float)[..., None]
    paper = np.array(image.getpixel((0, 0)))
    image.paste(Image.fromarray(np.round(paper + level * (np.array(ink) - paper)).astype(np.uint8)))


def _plain(rng: np.random.Generator, image: Image.Image, ink: Colour) -> None:
    """One colour, one edge, or a smooth gradient."""
    kind = rng.random()
    if kind < 0.3:
        return
    if kind < 0.55:
        ImageDraw.Draw(image).rectangle([int(v) for v in (*rng.integers(0, 128, 2), 256, 256)], ink)
        return
    corners = np.array([_colour(rng) for _ in range(4)], np.uint8).reshape(2, 2, 3)
    image.paste(Image.fromarray(corners).resize(image.size, Image.BILINEAR))


DRAWINGS: tuple[Callable[[np.random.Generator, Image.Image, Colour], None], ...] = (
    _text,
    _text,
    _screen,
    _lines,
    _chart,
    _pattern,
    _plain,
)
