"""The shipped model: golden files, sizes and distortions it must reach, overhead."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqcodec
from tests.golden import make
from vqcodec import ops
from vqcodec.codec.codec import Codec
from vqcodec.codec.images import psnr
from vqcodec.codec.windows import Windows
from vqcodec.model import file
from vqcodec.model.prior import Condition
from vqcodec.ops import cpu
from vqcodec.tiling import Box
from vqcodec.tools.demo import PHOTO

EXPECTED = json.loads(make.EXPECTED.read_text())
FILES = sorted(make.HERE.glob("*.vqc"))
BACKENDS = ["reference", *cpu.cpu_variants(), "cuda"]
pytestmark = pytest.mark.usefixtures("cuda_kernels")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


class TestGolden:
    def test_the_model_is_the_one_that_made_the_files(self, codec):
        assert codec.model.fingerprint.hex() == EXPECTED["model"]
        assert {f.stem for f in FILES} == set(EXPECTED["maps"]) == set(make.pictures())

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
    def test_maps(self, path: Path, backend, monkeypatch):
        monkeypatch.setenv("VQCODEC_BACKEND", backend)
        assert make.digest(vqcodec.decode_maps(path.read_bytes())) == EXPECTED["maps"][path.stem]

    @pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
    def test_pixels_on_the_gpu(self, path: Path, codec):
        found, maps = codec.read(path.read_bytes())
        autoencoder, box = codec.model.autoencoder, Box(0, 0, found.header.width, found.header.height)
        gpu, cpu = (Windows(autoencoder, box.height, box.width, backend=name) for name in ("cuda", "native"))
        image = cpu.pixels(maps, box)
        assert np.array_equal(gpu.pixels(maps, box), image)
        for stride in autoencoder.config.strides:
            coarser = maps[: autoencoder.config.maps_before(stride)]
            assert np.array_equal(gpu.latents(image, stride, coarser, box), cpu.latents(image, stride, coarser, box))

    @pytest.mark.parametrize("path", [f for f in FILES if f.stem != "alpha"], ids=lambda p: p.stem)
    def test_the_same_maps_give_the_same_bytes(self, path: Path, codec):
        data = path.read_bytes()
        found, maps = codec.read(data)
        h = found.header
        picture = make.pictures()[path.stem][0]
        assert (
            codec.write(
                maps, h.height, h.width, quality=h.quality, condition=Condition(h.class_id, h.level), image=picture
            )
            == data
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("class_id, seed", make.SAMPLES)
    def test_samples(self, class_id, seed, backend, codec, monkeypatch):
        monkeypatch.setenv("VQCODEC_BACKEND", backend)
        maps = codec.sample_maps(class_id, 1, size=(64, 48), seed=seed)[0]
        assert make.digest(maps) == EXPECTED["samples"][make.sample_name(class_id, seed)]

    @pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
    def test_pictures(self, path: Path):
        picture, options = make.pictures()[path.stem]
        back = vqcodec.decompress(path.read_bytes())
        mode = "L" if picture.grey else "RGB"
        assert back.mode == mode + "A" * (picture.alpha is not None)
        assert psnr(back.convert("RGB"), Image.fromarray(picture.pixels)) > 22
        if picture.alpha is not None:
            assert np.array_equal(np.asarray(back)[..., -1], picture.alpha)


def test_ships_small():
    assert file.DEFAULT.stat().st_size <= 6_000_000


def test_sixteen_classes(codec):
    assert len(codec.model.config.classes) == 16
    assert {"flower-roses", "clothing-shoes", "grocery-fruit"} <= set(codec.model.config.classes)
    assert codec.model.config.card["data"]


@pytest.mark.slow
def test_quality_orders_size_and_distortion(photo):
    rows = []
    for quality in (0, 25, 50, 75, 100):
        data = vqcodec.compress(photo, quality=quality)
        rows.append((len(data), psnr(photo, vqcodec.decompress(data))))
    sizes, distortions = zip(*rows)
    assert sorted(sizes) == list(sizes) and sorted(distortions) == list(distortions)
    pixels = photo.width * photo.height
    assert 8 * sizes[0] / pixels < 0.2 and 8 * sizes[2] / pixels < 0.5
    assert distortions[0] > 24.5 and distortions[2] > 27.5 and distortions[4] > 30.5


@pytest.mark.slow
def test_smaller_than_jpeg_at_equal_psnr(photo, tmp_path):
    """With a wide margin: two thirds of JPEG's size at JPEG's own PSNR."""
    photo.save(tmp_path / "p.jpg", quality=30, optimize=True, progressive=True)
    jpeg = psnr(photo, Image.open(tmp_path / "p.jpg")), (tmp_path / "p.jpg").stat().st_size
    fitting = (
        d
        for q in range(0, 101, 5)
        if psnr(photo, vqcodec.decompress(d := vqcodec.compress(photo, quality=q))) >= jpeg[0]
    )
    assert len(next(fitting)) < 0.67 * jpeg[1]


@pytest.mark.slow
def test_overhead(codec):
    """Everything but the information content of the codes: under 1 % + 64 bytes of a 768 x 512 file."""
    picture = Image.open(PHOTO).convert("RGB").resize((768, 512))
    data = vqcodec.compress(picture)
    found, maps = codec.read(data)
    bits = 0.0
    for number in range(found.header.maps):
        _, frequency = ops.prior_frequencies(
            codec.model.priors[number], maps[number], maps[:number], (0, found.header.level)
        )
        bits -= np.log2(frequency / 2**24).sum()
    assert len(data) - bits / 8 < 0.01 * len(data) + 64


@pytest.mark.slow
def test_priors_save_bits():
    """The zero-order entropy is what a file would need without priors: they save at least a quarter."""
    picture = np.asarray(Image.open(PHOTO).convert("RGB"))
    codec = Codec()
    maps = codec.encode_maps(picture, 50)
    zero_order = 0.0
    for m in maps:
        p = np.bincount(m.reshape(-1)) / m.size
        p = p[p > 0]
        zero_order -= m.size * (p * np.log2(p)).sum()
    assert 8 * len(codec.write(maps, *picture.shape[:2], quality=50)) < 0.8 * zero_order


@pytest.mark.slow
def test_partial_pictures_get_better(photo):
    data = vqcodec.compress(photo, quality=75)
    chunks = vqcodec.info(data)["chunks"]
    ends = [c["offset"] + c["bytes"] for c in chunks if c["name"].startswith("map")]
    quality = [psnr(photo, vqcodec.decompress(data[:end], partial=True)) for end in ends]
    assert quality[0] > 15 and quality[-1] > quality[len(quality) // 2] > quality[0]


def test_samples_are_pictures():
    for picture in vqcodec.sample("flower-sunflowers", 2, size=(128, 96), seed=5):
        pixels = np.asarray(picture)
        assert pixels.shape == (96, 128, 3) and pixels.std() > 10
