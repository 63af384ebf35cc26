"""vqcodec/tiling.py: tiles and areas cover every pixel exactly once, and no others are visited."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.tiling import Box, Tiling


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0, 64, 128, 256, 512]))
def test_tiles_cover_every_pixel_once(width, height, tile):
    seen = np.zeros((height, width), int)
    boxes = list(Tiling(height, width, tile))
    for box in boxes:
        seen[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert (seen == 1).all()
    assert boxes == sorted(boxes, key=lambda box: (box.y0, box.x0))
    assert len(boxes) == Tiling(height, width, tile).count


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([0, 64, 128, 320]), st.data())
def test_tiles_touching_are_those_that_a_scan_finds(width, height, tile, data):
    x0, y0 = data.draw(st.integers(-70, 1000)), data.draw(st.integers(-70, 1000))
    box = Box(x0, y0, x0 + data.draw(st.integers(1, 1000)), y0 + data.draw(st.integers(1, 1000)))
    scan = [
        (number, found) for number, found in enumerate(Tiling(height, width, tile))
        if found.x0 < box.x1 and box.x0 < found.x1 and found.y0 < box.y1 and box.y0 < found.y1
    ]  # fmt: skip
    assert list(Tiling(height, width, tile).touching(box)) == scan


def test_tiles_touching_looks_at_no_other():
    """Of 2**46 tiles."""
    assert [number for number, _ in Tiling(2**29, 2**29, 64).touching(Box(2**29 - 65, 63, 2**29, 65))] == [
        2**23 - 2,
        2**23 - 1,
        2**24 - 2,
        2**24 - 1,
    ]


@pytest.mark.parametrize("side", [0, 64, 512, 1024, 2048])
def test_areas_are_whole_tiles_and_cover(side):
    count = np.zeros((50, 70), int)
    for box in Tiling(5000, 7000, side).areas():
        count[box.y0 // 100 : -(-box.y1 // 100), box.x0 // 100 : -(-box.x1 // 100)] += 1
        assert side == 0 or (box.x0 % side == 0 and box.y0 % side == 0)
    assert count.min() >= 1


@pytest.mark.parametrize(
    "size, side, stored",
    [
        ((40, 60), None, 0),
        ((1024, 700), None, 0),
        ((20, 1025), None, 512),
        ((200, 100), 64, 64),
        ((200, 100), 0, 0),
        ((64, 64), 64, 0),
    ],
)
def test_the_usual_side(size, side, stored):
    assert Tiling.usual(*size, side).side == stored


def test_boxes():
    box = Box(3, 5, 10, 25)
    assert (box.width, box.height, box.area) == (7, 20, 140)
    assert box.seen_from(Box(1, 2, 100, 100)) == Box(2, 3, 9, 23)
    assert box.within(Box(3, 5, 10, 25)) and not box.within(Box(4, 5, 10, 25))
