"""Write the section "A real file" of docs/FORMAT.md anew: ``python -m tests.golden.listing``.

A golden file, byte by byte, and what it decodes to, as the independent decoder sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.reference_decoder import container as reference_container
from tests.reference_decoder import prior as reference_prior
from tests.reference_decoder.prior import Model
from vqcodec.model import file

SHOWN = Path(__file__).parent / "alpha.vqc"
DOCUMENT = Path(__file__).parents[2] / "docs" / "FORMAT.md"
SECTION = re.compile(r"^## A real file\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
TRACED_MAPS, TRACED_CODES = 2, 9
PLACES = 4  # maps side by side

TEXT = """\
## A real file

`tests/golden/{name}`, of the shipped model, whose whole fingerprint is

    {fingerprint}

{size} pixels in one tile, with an alpha plane and an ICC profile (a false one). This section is written by
`python -m tests.golden.listing`, and the tests compare it with the file and with what both decoders find.

```hexdump
{dump}
```

The code maps, coarse to fine; the model has {maps} of them, those past the last one here are code 0 everywhere:

```codes
{codes}
```

The first codes of maps 0 to {last} in coding order, with their intervals:

| map | step t | row | column | F_k | f_k | code k |
|--:|--:|--:|--:|--:|--:|--:|
{trace}
"""


def rows(part: bytes, remark: str) -> Iterator[str]:
    for at in range(0, len(part), 16):
        yield f"{part[at : at + 16].hex(' ').upper():<50}{remark if at == 0 else ''}".rstrip()


def dump(data: bytes) -> Iterator[str]:
    """The bytes of a file of one tile, with remarks."""
    yield from rows(data[:4], "magic")
    yield from rows(data[4:5], "version")
    at, maps = 5, 0
    while at < len(data):
        tag, (size, begin) = chr(data[at]), reference_container.number(data, at + 1)
        yield from rows(data[at:begin], f"{tag}, {size} bytes" + (f": map {maps}" if tag == "M" else ""))
        maps += tag == "M"
        yield from payload(tag, data[begin : begin + size])
        at = begin + size + 4
        yield from rows(data[at - 4 : at], "CRC")


def payload(tag: str, part: bytes) -> Iterator[str]:
    if tag == "H":
        yield from rows(part[:16], "fingerprint")
        at = 16
        for name in reference_container.FIELDS:
            value, end = reference_container.number(part, at)
            yield from rows(part[at:end], f"{name} {value}")
            at = end
    elif tag == "A":
        yield from rows(part[:1], f"method {part[0]}")
        yield from rows(part[1:], "zlib stream")
    else:
        yield from rows(part, "stream" if tag == "M" else "zlib stream")


def table(maps: list[np.ndarray]) -> Iterator[str]:
    """Maps of one shape side by side."""
    m = 0
    while m < len(maps):
        beside = [a for a in maps[m : m + PLACES] if a.shape == maps[m].shape]
        wide = 4 * maps[m].shape[1]
        yield "    ".join(f"map {m + i}".ljust(wide) for i in range(len(beside))).rstrip()
        for lines in zip(*beside):
            yield "    ".join("".join(f"{code:4}" for code in line) for line in lines)
        m += len(beside)


def trace(model: Model, found: dict, maps: list[np.ndarray], m: int) -> Iterator[str]:
    """Intervals of the first codes of map m."""
    prior = reference_prior.Prior(model, m)
    tile = reference_prior.Tile(prior, maps[:m], maps[m].shape, found["class"], found["level"])
    for r, c in tile.steps():
        cumulative = prior.cumulative(tile.logits(r, c))
        codes = maps[m][r, c].tolist()
        tile.put(r, c, codes)
        for row, column, code, bounds in zip(r, c, codes, cumulative):
            yield f"| {m} | {column + prior.lag * row} | {row} | {column} | {bounds[code]} | {bounds[code + 1] - bounds[code]} | {code} |"


def section() -> str:
    data, model = SHOWN.read_bytes(), reference_prior.read_model(file.DEFAULT.read_bytes())
    found, maps = reference_container.read(data), reference_prior.decode(data, model)
    traced = min(TRACED_MAPS, found["maps"])
    lines = [line for m in range(traced) for _, line in zip(range(TRACED_CODES), trace(model, found, maps, m))]
    return TEXT.format(
        name=SHOWN.name, fingerprint=model.fingerprint.hex(), size=f"{found['width']} x {found['height']}",
        dump="\n".join(dump(data)), maps=len(maps), codes="\n".join(table(maps[: found["maps"]])), last=traced - 1,
        trace="\n".join(lines),
    )


def main() -> None:
    before = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(SECTION.sub(lambda _: section(), before), encoding="utf-8")


if __name__ == "__main__":
    main()
