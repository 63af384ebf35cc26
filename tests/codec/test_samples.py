"""Files of samples: lossless, or with a bounded error."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import vqcodec
import vqcodec.pillow
from benchmarks.archive import deep_png
from tests.conftest import scene
from vqcodec.cli import main
from vqcodec.codec import samples
from vqcodec.codec.images import psnr
from vqcodec.errors import CorruptChunk, ImageError, InvalidArgument, LimitExceeded, VqcodecError
from vqcodec.format import container
from vqcodec.format.wire import encode_varint
from vqcodec.tools.demo import PHOTO


def screen() -> np.ndarray:
    """Text on a page, and a photograph in it."""
    page = Image.new("RGB", (300, 260), (250, 250, 245))
    draw = ImageDraw.Draw(page)
    for line in range(20):
        draw.text((8, 12 * line), f"{line}: the quick brown fox jumps over the lazy dog", fill=(10, 20, 30 + line))
    page.paste(Image.open(PHOTO).convert("RGB").crop((100, 100, 272, 232)), (128, 128))
    return np.asarray(page)


PICTURES = {
    "screen": screen,
    "page": lambda: screen()[:128],
    "glyphs": lambda: screen()[:128, :, 0],
    "photo": lambda: np.asarray(Image.open(PHOTO).convert("RGB"))[:200, :230],
    "scene": lambda: scene(150, 140),
    "noise": lambda: np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8),
    "constant": lambda: np.full((130, 130, 3), (1, 200, 30), np.uint8),
    "stripes": lambda: np.tile(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), (129, 70, 1)),
    "pixel": lambda: np.array([[[9, 8, 7]]], np.uint8),
    "line": lambda: scene(3, 700),
    "column": lambda: scene(700, 3),
    "grey": lambda: scene(140, 130)[..., 0],
    "alpha": lambda: np.dstack([scene(60, 50), np.arange(3000, dtype=np.uint8).reshape(60, 50)]),
    "deep": lambda: np.random.default_rng(2).integers(0, 4000, (140, 150)).astype(np.uint16) * 16,
    "deep colours": lambda: (scene(60, 70).astype(np.uint16) << 8) + np.arange(70, dtype=np.uint16)[:, None],
}


@pytest.fixture(params=PICTURES)
def picture(request) -> np.ndarray:
    return PICTURES[request.param]()


def pixels_of(data: bytes, like: np.ndarray) -> np.ndarray:
    """The decoded pixels, in the form of ``like``."""
    found = vqcodec.open(data).decode()
    if like.ndim == 2:
        return found.pixels[..., 0]
    return found.pixels if like.shape[2] == 3 else np.dstack([found.pixels, found.alpha])


@pytest.mark.parametrize("tile", [None, 64])
def test_lossless(picture, tile):
    data = vqcodec.compress(picture, lossless=True, tile=tile)
    assert pixels_of(data, picture).dtype == picture.dtype
    assert np.array_equal(pixels_of(data, picture), picture)
    assert vqcodec.info(data)["quality"] == 100 and vqcodec.info(data)["bound"] == 0
    stored = io.BytesIO()  # as PNG without compression
    if picture.dtype == np.uint8 and tile is None:
        Image.fromarray(picture).save(stored, "PNG", compress_level=0)
        assert len(data) <= 1.01 * stored.tell() + 64


@pytest.mark.parametrize("bound", [1, 2, 5, 16, 64])
def test_bounded_error(picture, bound):
    data = vqcodec.compress(picture, max_error=bound)
    found, known = pixels_of(data, picture).astype(int), picture.astype(int)
    assert np.abs(found - known).max() <= bound
    if picture.ndim == 3 and picture.shape[2] == 4:
        assert np.array_equal(found[..., 3], known[..., 3])


def test_quality_has_no_gap():
    """From code maps to lossless: more bytes, a better picture."""
    picture = np.asarray(Image.open(PHOTO).convert("RGB"))[:256, :256]
    made = [vqcodec.compress(picture, quality=quality) for quality in (60, 95, 96, 97, 98, 99, 100)]
    sizes = [len(data) for data in made]
    errors = [psnr(picture, vqcodec.decompress(data)) for data in made]
    assert sizes == sorted(sizes) and errors == sorted(errors) and errors[-1] == float("inf")
    assert [vqcodec.info(data)["bound"] for data in made[2:]] == [6, 4, 2, 1, 0]
    assert vqcodec.compress(picture, quality=100) == vqcodec.compress(picture, lossless=True)
    assert [vqcodec.info(data)["quality"] for data in made] == [60, 95, 96, 97, 98, 99, 100]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 200), st.integers(1, 200), st.booleans(), st.sampled_from([0, 0, 3]), st.data())
def test_regions_and_strips(height, width, grey, bound, data):
    picture = scene(height, width)
    picture = picture[..., 0] if grey else picture
    file = vqcodec.compress(picture, max_error=bound, tile=data.draw(st.sampled_from([0, 64, 128])))
    with vqcodec.open(file) as coded:
        whole = coded.decode().pixels
        for _ in range(3):
            x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
            region = x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
            part = coded.decode(region=region).pixels
            assert np.array_equal(part, whole[region[1] : region[3], x0 : region[2]])
        assert np.array_equal(np.concatenate(list(coded.rows())), whole)
    assert np.array_equal(np.asarray(vqcodec.decompress(file)), whole[..., 0] if grey else whole)


def test_tiles_are_let_go(monkeypatch):
    """Strips of a large image need the memory of a few tiles, and regions decode them anew."""
    monkeypatch.setattr(samples, "KEPT", 3 * 64 * 64 * 3)
    picture = scene(300, 310)
    with vqcodec.open(vqcodec.compress(picture, lossless=True, tile=64)) as coded:
        for y, x in itertools.product(range(0, 300, 60), repeat=2):
            assert np.array_equal(coded.decode(region=(x, y, x + 7, y + 5)).pixels, picture[y : y + 5, x : x + 7])
        assert len(coded._canvas._pixels) <= 5


def test_progressive_and_prefixes():
    picture = PICTURES["photo"]()
    for tile in (0, 64):
        data = vqcodec.compress(picture, lossless=True, tile=tile)
        ends = [c["offset"] + c["bytes"] for c in vqcodec.info(data)["chunks"] if c["tag"] == "M"]
        decoder, seen = vqcodec.Decoder(), []
        for begin, end in itertools.pairwise([0, *ends]):
            preview = decoder.feed(data[begin:end])
            with pytest.warns(UserWarning, match="not complete"):
                prefix = vqcodec.decompress(data[:end], partial=True)
            assert np.array_equal(preview, prefix)
            assert np.array_equal(prefix, vqcodec.decompress(data, maps=len(seen) + 1))
            seen.append(psnr(picture, preview))
        assert decoder.feed(data[ends[-1] :]).size == (230, 200) and decoder.finished
        assert seen == sorted(seen) and seen[-1] == float("inf") and seen[2] > 25


def test_scales():
    picture = PICTURES["photo"]()
    data = vqcodec.compress(picture, lossless=True)
    assert np.array_equal(vqcodec.decompress(data, scale=2), Image.fromarray(picture).reduce(2))
    for scale in (4, 8, 16):  # from a grid twice as fine
        small = vqcodec.decompress(data, scale=scale)
        assert psnr(small, Image.fromarray(picture).reduce(scale)) > 24
    deep = vqcodec.compress(PICTURES["deep"](), lossless=True)
    reduced = vqcodec.open(deep).decode(scale=2).pixels
    expected = PICTURES["deep"]().reshape(70, 2, 75, 2).mean((1, 3))
    assert reduced.dtype == np.uint16 and np.abs(reduced[..., 0] - expected).max() <= 0.5


def test_missing_slices_can_be_drawn():
    picture = PICTURES["photo"]()
    data = vqcodec.compress(picture, lossless=True)
    drawn = [vqcodec.decompress(data, maps=3, complete="sample", seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    filled = vqcodec.decompress(data, maps=3)
    for image in (*drawn, filled):  # what is known is the same
        assert np.array_equal(np.asarray(image)[::2, ::2], picture[::2, ::2])
    contrast = [np.abs(np.diff(np.asarray(image).astype(int), axis=0)).mean() for image in (picture, drawn[0], filled)]
    assert contrast[2] < 0.9 * contrast[0] < contrast[1] < 1.6 * contrast[0]  # rough, as the original


def test_upscale():
    picture = PICTURES["photo"]()
    small = picture[::2, ::2]
    for seed in (None, 3):
        large = vqcodec.upscale(small, seed=seed)
        assert np.array_equal(np.asarray(large)[::2, ::2], small)
        assert np.array_equal(large, vqcodec.upscale(Image.fromarray(small), 2, seed=seed))
    nearest = np.repeat(np.repeat(small, 2, 0), 2, 1)
    assert psnr(picture, vqcodec.upscale(small)) > psnr(picture, nearest) + 2
    assert vqcodec.upscale(PICTURES["deep"](), 4).mode == "I;16"
    assert vqcodec.upscale(PICTURES["alpha"](), 8).size == (400, 480)
    assert vqcodec.upscale(PICTURES["pixel"]()).size == (2, 2)
    for wrong in (dict(factor=3), dict(factor="2"), dict(seed=-1)):
        with pytest.raises(InvalidArgument):
            vqcodec.upscale(small, **wrong)
    with pytest.raises(LimitExceeded):
        vqcodec.upscale(Image.fromarray(small), limits=vqcodec.Limits(pixels=30_000))


def test_pages_take_no_more_bytes_than_webp():
    for name in ("page", "constant", "stripes"):
        picture, other = PICTURES[name](), io.BytesIO()
        Image.fromarray(picture).save(other, "WEBP", lossless=True, method=6, quality=100)
        assert len(vqcodec.compress(picture, lossless=True)) < other.tell() + 100  # of the container


def test_palettes_are_whole_with_the_first_slice():
    picture = PICTURES["screen"]()
    data = vqcodec.compress(picture, lossless=True, tile=128)
    first = np.asarray(vqcodec.decompress(data, maps=1))
    assert np.array_equal(first[:128, :128], picture[:128, :128])
    assert not np.array_equal(first[128:, 128:], picture[128:, 128:])
    drawn = np.asarray(vqcodec.decompress(data, maps=2, complete="sample"))
    assert np.array_equal(drawn[:128, :128], picture[:128, :128])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda first: b"\2" + first[1:], "must begin with 0 or 1, found 02"),
        (lambda first: b"", "must begin with 0 or 1, found nothing"),
        (lambda first: b"\1\0\0", "1 to 4096 colours, found 0"),
        (lambda first: first[:1] + encode_varint(5000) + first[3:], "1 to 4096 colours, found 5000"),
        (lambda first: first[:1] + bytes([first[1] ^ 1]) + first[2:], "colours"),
        (lambda first: first[:3] + b"\0\0\0" + first[6:], "zlib|colours|stream"),
    ],
)
def test_wrong_palettes(change, message):
    content = container.read(vqcodec.compress(PICTURES["page"](), lossless=True))
    assert content.maps[0][0][:1] == samples.PALETTE
    content.maps[0][0] = change(content.maps[0][0])
    with pytest.raises(CorruptChunk, match=message):
        vqcodec.decompress(container.write(content))


def test_palette_and_more_streams():
    content = container.read(vqcodec.compress(PICTURES["page"](), lossless=True))
    content.maps[0][2] = b"x"
    with pytest.raises(CorruptChunk, match="has one stream"):
        vqcodec.decompress(container.write(content))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damage_is_noticed(data):
    picture = PICTURES["scene"]()
    file = bytearray(vqcodec.compress(picture, lossless=True))
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VqcodecError):
        vqcodec.decompress(bytes(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = vqcodec.decompress(bytes(file), partial=True)
        except VqcodecError:
            return
    assert found.size == (140, 150)


def test_the_digest_is_checked():
    """Pixels that are not the original's, in a file whose chunks are all right."""
    picture = PICTURES["scene"]()
    content = container.read(vqcodec.compress(picture, lossless=True))
    content.digest = samples.digest(picture[::-1], False)
    data = container.write(content)
    with pytest.raises(CorruptChunk, match="digest: the pixels' must be"):
        vqcodec.decompress(data)
    content.digest = None
    assert np.array_equal(vqcodec.decompress(container.write(content)), picture)


def test_limits():
    data = vqcodec.compress(PICTURES["scene"](), lossless=True)
    for limits in (vqcodec.Limits(pixels=20_000), vqcodec.Limits(memory=10_000)):
        with pytest.raises(LimitExceeded):
            vqcodec.decompress(data, limits=limits)
        with pytest.raises(LimitExceeded):
            vqcodec.Decoder(limits=limits).feed(data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(lossless=1), "lossless must be True or False, got 1"),
        (dict(max_error=-1), "max_error must be a whole number from 0 to 64, got -1"),
        (dict(max_error=65), "max_error must be a whole number from 0 to 64"),
        (dict(lossless=True, max_error=2), "lossless and max_error each choose the quality"),
        (dict(lossless=True, target_bytes=2), "lossless and target_bytes each choose"),
        (dict(max_error=1, target_psnr=30), "max_error and target_psnr each choose"),
    ],
)
def test_wrong_options(wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        vqcodec.compress(scene(9, 9), **wrong)


def test_sixteen_bits():
    deep = PICTURES["deep"]()
    stored = io.BytesIO()
    Image.fromarray(deep).save(stored, "PNG")
    data = vqcodec.compress(stored.getvalue(), lossless=True)
    back = vqcodec.decompress(data)
    assert back.mode == "I;16" and np.array_equal(back, deep)
    assert vqcodec.decompress(vqcodec.compress(stored.getvalue(), quality=50)).mode == "L"
    with pytest.warns(UserWarning, match="no 16-bit colour"):
        assert vqcodec.decompress(vqcodec.compress(PICTURES["deep colours"](), lossless=True)).mode == "RGB"
    colours = deep_png(scene(9, 8))
    assert vqcodec.decompress(vqcodec.compress(colours)).mode == "RGB"
    with pytest.raises(ImageError, match="reduced to 8 bits by Pillow"):
        vqcodec.compress(colours, lossless=True)
    with pytest.raises(InvalidArgument, match="alpha has 8 bits"):
        vqcodec.compress(np.zeros((4, 4, 4), np.uint16), lossless=True)


def test_no_code_maps():
    data = vqcodec.compress(scene(20, 20), lossless=True)
    with pytest.raises(InvalidArgument, match="no code maps"):
        vqcodec.decode_maps(data)


def test_no_model_is_needed(small_model):
    data = vqcodec.compress(scene(40, 40), lossless=True, model=small_model)
    assert np.array_equal(vqcodec.decompress(data), scene(40, 40))


def test_pillow(tmp_path):
    picture = Image.fromarray(scene(40, 50))
    picture.save(tmp_path / "a.vqc", lossless=True)
    assert np.array_equal(Image.open(tmp_path / "a.vqc"), picture)
    deep = Image.fromarray(PICTURES["deep"]())
    deep.save(tmp_path / "b.vqc", lossless=True)
    with Image.open(tmp_path / "b.vqc") as back:
        assert back.mode == "I;16" and np.array_equal(back, deep)


def test_command_line(tmp_path, capsys):
    picture = Image.fromarray(scene(130, 140))
    picture.save(tmp_path / "a.png")
    assert main(["compress", "--lossless", str(tmp_path / "a.png")]) == 0
    assert main(["decompress", str(tmp_path / "a.vqc"), str(tmp_path / "b.png")]) == 0
    assert np.array_equal(Image.open(tmp_path / "b.png"), picture)
    assert main(["compress", "--max-error", "3", str(tmp_path / "a.png"), str(tmp_path / "c.vqc")]) == 0
    found = np.asarray(vqcodec.decompress(tmp_path / "c.vqc")).astype(int)
    assert 0 < np.abs(found - np.asarray(picture)).max() <= 3
    assert main(["verify", str(tmp_path / "a.vqc"), str(tmp_path / "c.vqc")]) == 0
    assert main(["info", str(tmp_path / "a.vqc")]) == 0
    assert "lossless" in capsys.readouterr().out
