"""docs/FORMAT.md holds what the library does: its listing and its worked example are run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests import format_v1
from vqcodec import container, entropy
from vqcodec.container import Container, Header

SPECIFICATION = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text(encoding="utf-8")
FREQUENCIES = [8388608, 4194304, 3145728, 1048576]
CODES = [[(0, 2, 1, 3), (3, 3, 3)], [(0, 0, 0, 0), (1, 0)]]


def listing() -> bytes:
    """The bytes of the ``hexdump`` block; after them, past three spaces or more, come remarks."""
    block = re.search(r"```hexdump\n(.*?)```", SPECIFICATION, re.DOTALL)[1]
    return b"".join(bytes.fromhex(re.split(r" {3,}", line)[0]) for line in block.splitlines())


def coded(codes: tuple[int, ...]) -> bytes:
    start = np.cumsum([0, *FREQUENCIES])[list(codes)]
    return entropy.encode_stream(start, np.array(FREQUENCIES)[list(codes)])


def described() -> Container:
    """The file that the specification describes in words."""
    header = Header(bytes(range(16)), width=96, height=64, tile=64, class_id=3, level=2, quality=50, maps=2)
    streams = [[coded(tile) for tile in code_map] for code_map in CODES]
    return Container(header, maps=streams, alpha=np.full((64, 96), 200, np.uint8))


def test_listing_is_what_the_library_writes():
    assert container.write(described()) == listing()


def test_listing_is_what_both_readers_read():
    found = container.read(listing())
    assert (found.header, found.maps) == (described().header, described().maps)
    independent = format_v1.read(listing())
    assert independent["streams"] == found.maps
    assert independent["alpha"] == found.alpha.tolist()
    for streams, tiles in zip(independent["streams"], CODES):
        for stream, codes in zip(streams, tiles):
            decoder = format_v1.RangeDecoder(stream)
            assert tuple(decoder.symbol(FREQUENCIES) for _ in codes) == codes


def test_worked_example_of_the_range_coder():
    rows = re.findall(r"^\| ([0-9A-F]{16}) \| ([0-9A-F]{16}) \| (\d+) \| (\d) \|$", SPECIFICATION, re.MULTILINE)
    assert len(rows) == 4
    decoder = format_v1.RangeDecoder(bytes.fromhex("71A0"))
    for offset, size, q, code in rows:
        assert (decoder.offset, decoder.range) == (int(offset, 16), int(size, 16))
        assert decoder.offset // (decoder.range >> 24) == int(q)
        assert decoder.symbol(FREQUENCIES) == int(code)


def test_worked_numbers():
    section = re.search(r"^## Numbers\n(.*?)^## ", SPECIFICATION, re.DOTALL | re.MULTILINE)[1]
    pairs = re.findall(r"(\d+) -> ((?:[0-9A-F]{2} ?)+)", section)
    assert len(pairs) == 5
    for value, coded_value in pairs:
        coded_bytes = bytes.fromhex(coded_value)
        assert format_v1.number(coded_bytes, 0) == (int(value), len(coded_bytes))
