"""A small share of ``python -m benchmarks.archive damage``, with a small model."""

from __future__ import annotations

import time

import numpy as np
import pytest

import vqcodec
from benchmarks import archive
from benchmarks.archive import Broken, Victim, damages, injured


@pytest.fixture(scope="module")
def victims(small_model) -> list[Victim]:
    return archive.victims(model=small_model)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
def test_random_damage(victims, number, partial):
    begun = time.perf_counter()
    found = [injured(victims[number], data, expected, partial) for _, data, expected in damages(victims[number], 60, 15)]
    assert time.perf_counter() - begun < archive.SECONDS * len(found)
    accepted = {"error", "coarser"} | (set(found) & {"whole"})
    assert set(found) == (accepted if partial else {"error"})


def test_every_cut_between_chunks(victims):
    """From one chunk to the next a truncated file gains a map, and at last the alpha plane."""
    for victim in victims:
        gained = []
        for chunk in victim.chunks[1:]:
            try:
                image = vqcodec.decompress(victim.data[: chunk["offset"]], partial=True, model=victim.model)
            except vqcodec.VqcodecError:
                gained.append(0)
                continue
            injured(victim, victim.data[: chunk["offset"]], victim.expected(chunk["offset"], cut=True), partial=True)
            gained.append(sum(np.array_equal(np.asarray(image.convert("RGB")), p) for p in victim.pictures.values()) > 0)
        first = next(i for i, chunk in enumerate(victim.chunks[1:]) if chunk["tag"] == "M")
        assert gained == [0] * (first + 1) + [1] * (len(gained) - first - 1)


def test_wrong_pictures_are_noticed(victims):
    """That of one map too many, of no damage at all, and an error where something is whole."""
    victim = victims[0]
    maps = [c for c in victim.chunks if c["tag"] == "M"]
    cut = maps[2]["offset"] + 1
    for expected in ({(3, False)}, {(1, False)}, {(2, True)}):
        with pytest.raises(Broken, match="not that of"):
            injured(victim, victim.data[:cut], expected, partial=True)
    assert injured(victim, victim.data[:cut], {(2, False)}, partial=True) == "coarser"
    with pytest.raises(Broken, match="not noticed"):
        injured(victim, victim.data, {(2, False)}, partial=False)
    with pytest.raises(Broken, match="something is whole"):
        injured(victim, victim.data[:10], {(2, False)}, partial=True)
