"""Sizes and qualities that users ask for: quality, target_bytes, target_psnr."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vqcodec
from tests.conftest import scene
from vqcodec.codec.images import psnr
from vqcodec.codec.options import CODED
from vqcodec.codec.rate_search import Trial, bracket, largest_file, smallest_file
from vqcodec.errors import InvalidArgument
from vqcodec.format.container import Container, Header
from vqcodec.format.header import MAX_BOUND
from vqcodec.tools.demo import PHOTO


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))[:256, :256]


@pytest.mark.slow
def test_quality_is_monotone(photo):
    sizes, errors = [], []
    for quality in range(0, 101, 10):
        data = vqcodec.compress(photo, quality=quality)
        sizes.append(len(data))
        errors.append(psnr(photo, np.asarray(vqcodec.decompress(data))))
    assert sizes == sorted(set(sizes))
    assert all(b > a - 0.05 for a, b in itertools.pairwise(errors)) and errors[-1] > errors[0] + 4


@pytest.mark.slow
def test_sizes_grow_where_the_rate_level_changes(photo):
    sizes = [len(vqcodec.compress(photo, quality=quality)) for quality in range(40, 101, 3)]
    assert sizes == sorted(set(sizes))


def trial(quality: float, size: float, level: int = 0, psnr: float = math.nan) -> Trial:
    return Trial(quality, Container(Header(bytes(16), 1, 1, level=level)), bytes(round(size)), psnr)


def no_samples(bound: int) -> Trial:
    """Files of samples that are too large, and whose images are not good enough."""
    return trial(100, 10**8, psnr=0)


class TestSearch:
    @given(st.floats(2, 12), st.floats(0.005, 0.06), st.floats(1, 3), st.integers(10, 10**6))
    @settings(max_examples=200, deadline=None)
    def test_within_two_per_cent_in_few_tries(self, base, slope, bend, target):
        """For any smooth, growing size: never above, and at most 2 % below where qualities reach it."""
        tries = []

        def make(quality: float, level: int | None) -> Trial:
            tries.append(quality)
            return trial(quality, math.exp(base + slope * 100 * (quality / 100) ** bend))

        smallest, largest = (round(math.exp(base + slope * 100 * (end / 100) ** bend)) for end in (0, CODED))
        if target < smallest:  # and no maps to leave out
            with pytest.raises(InvalidArgument, match=f"at least {smallest} for"):
                largest_file(target, make, no_samples)
            return
        found = largest_file(target, make, no_samples)
        assert len(tries) <= 14 and all(0 <= q <= CODED for q in tries)
        if target >= largest:
            assert len(found) == largest
        else:
            assert len(found) <= target and (len(found) >= 0.98 * target or target < 100)

    @given(st.floats(10, 99), st.floats(1.05, 1.4), st.integers(500, 100_000))
    @settings(max_examples=1000, deadline=None)
    def test_within_two_per_cent_in_a_jump(self, change, jump, target):
        """Where the level changes, sizes jump; the upper level's own sizes go on below, here as far as the jump is high."""

        def make(quality: float, level: int | None) -> Trial:
            level = int(quality >= change) if level is None else level
            return trial(quality, 400 * math.exp(0.05 * quality) * jump**level, level)

        found = len(largest_file(target, make, no_samples))
        smallest, largest = 400, 400 * math.exp(0.05 * CODED) * (jump if change <= CODED else 1)
        if smallest <= target <= largest:
            assert 0.98 * target <= found <= target

    def test_no_better_than_asked_for(self):
        found = smallest_file(33.3, lambda q, _: trial(q, 100 * q, psnr=25 + q / 10), no_samples)
        assert 33.3 <= 25 + len(found) / 1000 <= 33.36

    @pytest.mark.parametrize("target", [*range(400, 10_000, 333), 10**6])
    def test_samples_where_code_maps_end(self, target):
        def samples(bound: int) -> Trial:
            return trial(100, 9000 - 120 * bound, psnr=50 - bound / 4)

        found = largest_file(target, lambda q, _: trial(q, 100 + 10 * q), samples)
        bounds = [bound for bound in range(MAX_BOUND + 1) if 9000 - 120 * bound <= target]
        assert len(found) == 9000 - 120 * min(bounds) if bounds else len(found) <= 100 + 10 * CODED
        wanted = 30 + target / 500
        found = smallest_file(wanted, lambda q, _: trial(q, 100 * q, psnr=25 + q / 10), samples)
        if wanted > 25 + CODED / 10:
            bounds = [bound for bound in range(MAX_BOUND + 1) if 50 - bound / 4 >= wanted]
            assert len(found) == 9000 - 120 * max(bounds, default=0)

    def test_steps_end(self):
        """A quantity that jumps over the goal does not make the search endless."""
        made = bracket(lambda q: trial(q, q), lambda t: 1.0 if t.quality > 33.3 else -1.0, 0, 0.1, 0, 100)
        assert len(made) <= 14 and min(abs(t.quality - 33.3) for t in made) < 1


class TestTargets:
    @pytest.mark.slow
    @pytest.mark.parametrize("target", [1100, 1500, 2400, 3400])
    def test_bytes(self, photo, target):
        data = vqcodec.compress(photo, target_bytes=target)
        assert 0.98 * target <= len(data) <= target
        assert vqcodec.decompress(data).size == (256, 256)

    def test_more_bytes_than_needed_is_lossless(self, small_model):
        picture = scene(64, 64)
        assert vqcodec.compress(picture, target_bytes=10**6, model=small_model) == vqcodec.compress(
            picture, lossless=True, model=small_model
        )

    def test_few_bytes_leave_out_maps(self, small_model):
        picture = scene(96, 96)
        smallest = len(vqcodec.compress(picture, quality=0, model=small_model))
        data = vqcodec.compress(picture, target_bytes=smallest - 40, model=small_model)
        assert len(data) <= smallest - 40
        assert vqcodec.info(data)["maps"] < len(small_model.config.autoencoder.maps)
        assert vqcodec.decompress(data, model=small_model).size == (96, 96)
        with pytest.raises(InvalidArgument, match="target_bytes must be at least [0-9]+ for this image"):
            vqcodec.compress(picture, target_bytes=40, model=small_model)
        with pytest.raises(InvalidArgument, match="target_bytes must be at least"):  # a file of one map from the start
            vqcodec.compress(np.zeros((16, 16, 3), np.uint8), target_bytes=5, model=small_model)

    @pytest.mark.slow
    def test_psnr(self, photo):
        data = vqcodec.compress(photo, target_psnr=28.5)
        found = psnr(photo, np.asarray(vqcodec.decompress(data)))
        assert 28.5 <= found <= 28.6
        data = vqcodec.compress(photo, target_psnr=44)  # code maps end before
        assert 44 <= psnr(photo, np.asarray(vqcodec.decompress(data))) < 46
        data = vqcodec.compress(photo, target_psnr=60)
        assert np.array_equal(photo, vqcodec.decompress(data))

    @pytest.mark.parametrize(
        "wrong",
        [
            dict(target_bytes=0),
            dict(target_bytes=1.5),
            dict(target_bytes="9"),
            dict(target_psnr=0),
            dict(target_psnr="30"),
            dict(target_psnr=float("nan")),
            dict(target_bytes=100, target_psnr=30),
        ],
    )
    def test_wrong(self, small_model, wrong):
        with pytest.raises(InvalidArgument, match="target"):
            vqcodec.compress(scene(16, 16), model=small_model, **wrong)


def test_psnr_of_arrays():
    a = np.zeros((5, 7, 3), np.uint8)
    assert (
        psnr(a, a) == math.inf
        and psnr(a, a + 255) == pytest.approx(0)
        and psnr(a, a + 1) == pytest.approx(48.13, abs=0.01)
    )
