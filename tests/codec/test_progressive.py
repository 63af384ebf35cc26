"""Incomplete images: files that are still arriving, maps that are drawn, holes that are filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqcodec
from tests.conftest import scene
from vqcodec import ops
from vqcodec.codec import code_maps, sampler
from vqcodec.codec import decoder as decode
from vqcodec.codec.codec import Codec
from vqcodec.codec.engine import Engine
from vqcodec.errors import FormatError, InvalidArgument, LimitExceeded, ModelMismatch
from vqcodec.format.limits import Limits
from vqcodec.model.prior import Condition

HEIGHT, WIDTH = 70, 100


@pytest.fixture(scope="module", params=[0, 64], ids=["whole", "tiled"])
def coded(request, small_model) -> bytes:
    return vqcodec.compress(scene(HEIGHT, WIDTH), model=small_model, tile=request.param, quality=90)


def pixels(image) -> np.ndarray:
    return np.asarray(image)


class TestDecoder:
    @pytest.mark.slow
    def test_previews_are_the_prefixes(self, small_model, coded):
        decoder = vqcodec.Decoder(model=small_model)
        previews = [found for byte in coded if (found := decoder.feed(bytes([byte]))) is not None]
        assert decoder.finished
        count = vqcodec.info(coded)["maps"]
        assert len(previews) == count + 1  # one for every map, and the last with the end of the file
        for number in range(1, count + 1):
            assert np.array_equal(
                pixels(previews[number - 1]), pixels(vqcodec.decompress(coded, model=small_model, maps=number))
            )
        assert np.array_equal(pixels(previews[-1]), pixels(vqcodec.decompress(coded, model=small_model)))

    @pytest.mark.slow
    @given(st.lists(st.integers(0, 4000), max_size=6))
    @settings(max_examples=10, deadline=None)
    def test_any_split(self, small_model, coded, cuts):
        decoder = vqcodec.Decoder(model=small_model)
        ends = [0, *sorted(min(c, len(coded)) for c in cuts), len(coded)]
        previews = [decoder.feed(coded[a:b]) for a, b in zip(ends, ends[1:])]
        shown = [p for p in previews if p is not None]
        assert decoder.finished and np.array_equal(
            pixels(shown[-1]), pixels(vqcodec.decompress(coded, model=small_model))
        )

    @pytest.mark.parametrize("stop", [MemoryError("no memory"), KeyboardInterrupt(), RuntimeError("a bug")])
    def test_after_an_error_nothing_is_shown(self, small_model, coded, stop, monkeypatch):
        chunks = vqcodec.info(coded)["chunks"]
        first, second = (chunk["offset"] + chunk["bytes"] for chunk in [c for c in chunks if c["tag"] == "M"][:2])
        decoder = vqcodec.Decoder(model=small_model)
        assert decoder.feed(coded[:first]) is not None

        def fail(*_: object) -> None:
            raise stop

        with monkeypatch.context() as patch:
            patch.setattr(decode.Canvas, "decode", fail)
            with pytest.raises(type(stop)):
                decoder.feed(coded[first:second])
        expected = type(stop) if isinstance(stop, Exception) else InvalidArgument
        lengths = set()
        for data in (coded[second:], b"", b""):
            with pytest.raises(expected) as error:
                decoder.feed(data)
            lengths.add(len(error.traceback))
        assert not decoder.finished and len(lengths) == 1  # the traceback does not grow

    def test_judged_by_the_header(self, small_model, coded):
        chunks = vqcodec.info(coded)["chunks"]
        head = coded[: chunks[0]["offset"] + chunks[0]["bytes"]]
        for limits in (Limits(memory=1000), Limits(pixels=100)):
            with pytest.raises(LimitExceeded):
                vqcodec.Decoder(model=small_model, limits=limits).feed(head)
        with pytest.raises(ModelMismatch):
            vqcodec.Decoder().feed(head)

    def test_nothing_new_gives_nothing(self, small_model, coded):
        decoder = vqcodec.Decoder(model=small_model)
        assert decoder.feed(coded) is not None and decoder.finished
        assert decoder.feed(b"") is None and decoder.finished

    def test_damage_is_noticed_when_it_arrives(self, small_model, coded):
        end = vqcodec.info(coded)["chunks"][1]
        damaged = bytearray(coded)
        damaged[end["offset"] + 4] ^= 1
        decoder = vqcodec.Decoder(model=small_model)
        with pytest.raises(FormatError, match="map 0"):
            decoder.feed(bytes(damaged[: end["offset"] + end["bytes"]]))
        with pytest.raises(InvalidArgument, match="bytes"):
            decoder.feed("text")


class TestComplete:
    @pytest.mark.slow
    def test_known_maps_stay_and_the_rest_is_drawn(self, small_model, coded):
        whole = Codec(small_model).read(coded)[1]
        found = [
            pixels(vqcodec.decompress(coded, model=small_model, maps=2, complete="sample", seed=s)) for s in (1, 1, 2)
        ]
        assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
        assert not np.array_equal(found[0], pixels(vqcodec.decompress(coded, model=small_model, maps=2)))
        with vqcodec.open(coded, model=small_model) as opened:
            drawn = opened.decode(maps=2, complete="sample", seed=1).pixels
            assert np.array_equal(drawn, found[0])
            assert all(np.array_equal(a, b) for a, b in zip(opened.code_maps(), whole))  # no drawn codes remain

    def test_truncated(self, small_model, coded):
        last = vqcodec.info(coded)["chunks"][-2]
        cut = coded[: last["offset"] + 3]
        for seed in (0, 5):
            found = vqcodec.decompress(cut, model=small_model, partial=True, complete="sample", seed=seed)
            count = vqcodec.info(coded)["maps"] - 1
            expected = vqcodec.decompress(coded, model=small_model, maps=count, complete="sample", seed=seed)
            assert np.array_equal(pixels(found), pixels(expected))

    def test_nothing_missing_changes_nothing(self, small_model, coded):
        found = vqcodec.decompress(coded, model=small_model, complete="sample")
        assert np.array_equal(pixels(found), pixels(vqcodec.decompress(coded, model=small_model)))

    @pytest.mark.parametrize("wrong", ["yes", 1, True])
    def test_wrong(self, small_model, coded, wrong):
        with pytest.raises(InvalidArgument, match='complete must be None or "sample"'):
            vqcodec.decompress(coded, model=small_model, complete=wrong)


class TestInpaint:
    def mask(self) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20:50, 30:80] = True
        return mask

    @pytest.mark.slow
    def test_outside_stays_and_seeds_matter(self, small_model):
        picture, mask = scene(HEIGHT, WIDTH), self.mask()
        a, b, c = (pixels(vqcodec.inpaint(picture, mask, model=small_model, seed=s)) for s in (1, 1, 2))
        assert np.array_equal(a, b) and not np.array_equal(a, c)
        assert np.array_equal(a[~mask], picture[~mask]) and not np.array_equal(a[mask], picture[mask])

    def test_what_is_hidden_does_not_show(self, small_model):
        picture, mask = scene(HEIGHT, WIDTH), self.mask()
        other = np.where(mask[..., None], 255 - picture, picture)
        assert np.array_equal(
            pixels(vqcodec.inpaint(picture, mask, model=small_model)),
            pixels(vqcodec.inpaint(other, mask, model=small_model)),
        )

    def test_known_codes_stay(self, small_model):
        engine = Engine(small_model)
        maps = Codec(small_model).encode_maps(scene(HEIGHT, WIDTH), 90, effort=0)
        unknown = code_maps.covered(small_model.config, self.mask())
        drawn = sampler.fill(engine, maps, unknown, Condition(1, 3), seed=4, temperature=1.0)
        assert all(np.array_equal(a[~u], b[~u]) for a, b, u in zip(drawn, maps, unknown))
        assert any((a[u] != b[u]).any() for a, b, u in zip(drawn, maps, unknown))

    @pytest.mark.slow
    def test_draws_follow_the_prior(self, small_model):
        """The first code of the first map, drawn 3,000 times: as often as the prior says, and at another temperature."""
        engine = Engine(small_model)
        k, prior = small_model.config.autoencoder.maps[0].codes, small_model.priors[0]
        one = [np.zeros((1, 1), np.int32)]
        shares = (
            np.array([ops.prior_frequencies(prior, np.full((1, 1), code), [], (0, 0))[1][0] for code in range(k)])
            / 2**24
        )
        for temperature in (1.0, 0.5):
            expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
            draws = [
                int(
                    sampler.fill(engine, one, [np.ones((1, 1), bool)], Condition(), seed=s, temperature=temperature)[0][
                        0, 0
                    ]
                )
                for s in range(3000)
            ]
            counts = np.bincount(draws, minlength=k)
            deviations = (counts - 3000 * expected) / np.sqrt(3000 * expected + 1)
            assert np.abs(deviations).max() < 5 and np.square(deviations).sum() < 2.5 * k

    def test_wrong_mask(self, small_model):
        with pytest.raises(InvalidArgument, match="mask must be"):
            vqcodec.inpaint(scene(20, 20), np.ones((5, 5), bool), model=small_model)
