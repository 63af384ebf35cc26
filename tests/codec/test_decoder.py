"""Images of any size: windows of the networks, tiles of the file, parts of an image."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqcodec
from tests.conftest import scene
from tests.support.autoencoders import integer_autoencoder, random_autoencoder
from vqcodec import tiling
from vqcodec.codec import decoder, options
from vqcodec.codec.codec import Codec
from vqcodec.codec.engine import Engine
from vqcodec.codec.windows import Windows
from vqcodec.errors import FormatError, InvalidArgument, LimitExceeded
from vqcodec.format import container
from vqcodec.format.container import Container, Header, Limits
from vqcodec.model.config import preset
from vqcodec.tiling import Box

HEIGHT, WIDTH = 200, 330


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return scene(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def tiled(small_model, picture) -> bytes:
    return vqcodec.compress(picture, model=small_model, tile=64, quality=80)


def pixels(image) -> np.ndarray:
    return np.asarray(image)


class Recorder(io.BytesIO):
    """A file that records how much of it was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        self.count += count
        return count


class TestWindows:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["tiny", "default", "imagenet256", "ffhq1024"])
    def test_windows_give_what_the_whole_gives(self, name):
        """A margin one pixel too small would show."""
        config = preset(name).autoencoder
        hidden = max(12, config.latent_dim(8)) if config.transform == "lapped" else 12
        config = dataclasses.replace(config, hidden=hidden, residual=6, refine=8)
        autoencoder = integer_autoencoder(random_autoencoder(config, 0))
        unit = config.strides[0]
        rng = np.random.default_rng(0)
        height, width = max(13 * unit + 3, 250), max(8 * unit + 5, 270)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        whole, small = Windows(autoencoder, height, width), Windows(autoencoder, height, width, side=2 * unit)
        everything = Box(0, 0, -(-width // unit) * unit, -(-height // unit) * unit)
        maps: list[np.ndarray] = []
        for stride in config.strides:
            expected = whole.latents(image, stride, maps, everything)
            assert np.array_equal(small.latents(image, stride, maps, everything), expected)
            shape = everything.height // stride, everything.width // stride
            maps += [rng.integers(0, m.codes, shape) for m in config.maps_at(stride)]
        expected = whole.pixels(maps, Box(0, 0, width, height))
        assert expected.std() > 1
        assert np.array_equal(small.pixels(maps, Box(0, 0, width, height)), expected)
        assert np.array_equal(small.pixels(maps, Box(37, 51, 97, 141)), expected[51:141, 37:97])

    @pytest.mark.slow
    def test_no_seams(self, small_model, picture, tiled, monkeypatch):
        """Areas of the encoder and strips of the decoder: the same file and image, whatever their size."""
        whole = pixels(vqcodec.decompress(tiled, model=small_model))
        monkeypatch.setattr(tiling, "AREA", 64)
        assert vqcodec.compress(picture, model=small_model, tile=64, quality=80) == tiled
        assert np.array_equal(pixels(vqcodec.decompress(tiled, model=small_model)), whole)


class TestTile:
    @pytest.mark.parametrize("wrong", [63, -64, 1.5, "64", 1 << 30])
    def test_wrong(self, small_model, wrong):
        with pytest.raises(InvalidArgument, match="tile must be"):
            vqcodec.compress(scene(16, 16), tile=wrong, model=small_model)

    def test_tiles_cost_little(self, small_model, picture, tiled):
        maps = vqcodec.decode_maps(tiled, model=small_model)
        whole = Codec(small_model).write(maps, HEIGHT, WIDTH, quality=80, tile=0)
        assert vqcodec.info(tiled)["tiles"] == 24 and vqcodec.info(whole)["tiles"] == 1
        assert all(np.array_equal(a, b) for a, b in zip(maps, vqcodec.decode_maps(whole, model=small_model)))


class TestParts:
    @pytest.mark.slow
    @given(st.data())
    @settings(max_examples=30, deadline=None)
    def test_region_is_a_crop(self, small_model, tiled, data):
        whole = pixels(vqcodec.decompress(tiled, model=small_model))
        x0, y0 = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
        x1, y1 = data.draw(st.integers(x0 + 1, WIDTH)), data.draw(st.integers(y0 + 1, HEIGHT))
        part = pixels(vqcodec.decompress(tiled, model=small_model, region=(x0, y0, x1, y1)))
        assert part.shape == (y1 - y0, x1 - x0, 3)
        assert np.abs(part.astype(int) - whole[y0:y1, x0:x1]).max() <= 1  # floats of another shape

    def test_region_reads_its_tiles_only(self, small_model):
        data = vqcodec.compress(scene(320, 960), model=small_model, tile=64, quality=100)
        file = Recorder(data)
        part = pixels(vqcodec.decompress(file, model=small_model, region=(0, 0, 20, 20)))
        assert part.shape == (20, 20, 3)
        assert file.count < len(data) / 3

    @pytest.mark.parametrize(
        "wrong", [(0, 0, 0, 5), (0, 0, WIDTH + 1, 5), (-1, 0, 5, 5), (0, 0, 5), "abcd", (0.5, 0, 5, 5), 7]
    )
    def test_wrong_region(self, small_model, tiled, wrong):
        with pytest.raises(InvalidArgument, match="region"):
            vqcodec.decompress(tiled, model=small_model, region=wrong)

    @pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
    def test_scale(self, small_model, tiled, scale):
        """Close to the means of the whole image, from less of the file."""
        whole = vqcodec.decompress(tiled, model=small_model)
        small = vqcodec.decompress(tiled, model=small_model, scale=scale)
        expected = whole.reduce(scale) if scale > 1 else whole
        assert small.size == expected.size
        assert np.sqrt(np.square(pixels(small).astype(float) - pixels(expected)).mean()) < 6
        if scale >= 8:
            file = Recorder(tiled)
            vqcodec.decompress(file, model=small_model, scale=scale)
            assert file.count < len(tiled)

    @pytest.mark.parametrize("wrong", [0, 3, 32, 1.5, "2"])
    def test_wrong_scale(self, small_model, tiled, wrong):
        with pytest.raises(InvalidArgument, match="scale must be one of"):
            vqcodec.decompress(tiled, model=small_model, scale=wrong)

    def test_maps(self, small_model, tiled):
        whole = vqcodec.decode_maps(tiled, model=small_model)
        for count in range(1, len(whole) + 1):
            found = pixels(vqcodec.decompress(tiled, model=small_model, maps=count))
            expected = Codec(small_model).decode_pixels(whole[:count], HEIGHT, WIDTH)
            assert np.abs(found.astype(int) - expected).max() <= 1
        with pytest.raises(InvalidArgument, match="maps must be"):
            vqcodec.decompress(tiled, model=small_model, maps=0)

    def test_rows(self, small_model, tiled, monkeypatch):
        whole = pixels(vqcodec.decompress(tiled, model=small_model))
        monkeypatch.setattr(tiling, "AREA", 64)
        with vqcodec.open(tiled, model=small_model) as coded:
            strips = list(coded.rows())
        assert coded.size == (WIDTH, HEIGHT) and [len(s) for s in strips] == [64, 64, 64, 8]
        assert np.abs(np.concatenate(strips).astype(int) - whole).max() <= 1

    def test_alpha_and_grey(self, small_model):
        alpha = scene(90, 140)[..., :1]
        data = vqcodec.compress(np.concatenate([scene(90, 140), alpha], 2), model=small_model, tile=64)
        part = vqcodec.decompress(data, model=small_model, region=(70, 10, 140, 60))
        assert part.mode == "RGBA" and np.array_equal(pixels(part)[..., 3], alpha[10:60, 70:, 0])
        assert vqcodec.decompress(data, model=small_model, scale=4).size == (35, 23)
        grey = vqcodec.compress(scene(90, 140)[..., 0], model=small_model, tile=64)
        assert vqcodec.decompress(grey, model=small_model, region=(70, 10, 140, 60)).mode == "L"

    def test_damage_elsewhere_does_not_matter(self, small_model, tiled):
        """A region can be decoded if its own tiles are intact; the whole image cannot."""
        last = vqcodec.info(tiled)["chunks"][-2]
        damaged = bytearray(tiled)
        damaged[last["offset"] + last["bytes"] - 5] ^= 1  # the last byte of the last stream
        with pytest.raises(FormatError):
            vqcodec.decompress(bytes(damaged), model=small_model)
        region = (0, 0, 30, 30)
        found = vqcodec.decompress(bytes(damaged), model=small_model, region=region)
        assert np.array_equal(pixels(found), pixels(vqcodec.decompress(tiled, model=small_model, region=region)))
        with pytest.raises(FormatError, match="tile 23"):
            vqcodec.decompress(bytes(damaged), model=small_model, region=(320, 190, 330, 200))

    def test_threads_share_an_open_file(self, small_model, tiled, tmp_path):
        (tmp_path / "a.vqc").write_bytes(tiled)
        whole = pixels(vqcodec.decompress(tiled, model=small_model))
        boxes = [(x, y, min(x + 50, WIDTH), y + 40) for x in range(0, WIDTH, 50) for y in range(0, HEIGHT, 40)]
        for _ in range(3):
            with vqcodec.open(tmp_path / "a.vqc", model=small_model) as coded, ThreadPoolExecutor(8) as pool:
                for box, found in zip(boxes, pool.map(lambda box: coded.decode(region=box).pixels, boxes)):
                    assert np.array_equal(found, whole[box[1] : box[3], box[0] : box[2]])

    def test_opened_file_is_closed(self, small_model, tiled, tmp_path):
        path = tmp_path / "a.vqc"
        path.write_bytes(tiled)
        with vqcodec.open(path, model=small_model) as coded:
            file = coded._file
            assert coded.decode(region=(0, 0, 5, 5)).pixels.shape == (5, 5, 3)
        assert file.closed
        path.write_bytes(b"something else")
        with pytest.raises(FormatError):
            vqcodec.open(path, model=small_model)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(small_model, tmp_path):
    """A round trip of 100 megapixels, from a memory-mapped file, in much less than three times their uncompressed size."""
    from vqcodec.model import file as model_file

    model_file.save(tmp_path / "m.safetensors", small_model.config, small_model.tensors)
    script = """
import resource, sys
import numpy as np, vqcodec
side, model, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
array = np.lib.format.open_memmap(f"{folder}/{side}.npy", "w+", np.uint8, (side, side, 3))
for y in range(0, side, 50):
    array[y : y + 50] = np.arange(side, dtype=np.uint8)[None, :, None] // 2 + y // 50 % 100
data = vqcodec.compress(array, model=model, effort=0, quality=30)
rows = 0
with vqcodec.open(data, model=model) as coded:
    for strip in coded.rows():
        rows += len(strip)
assert rows == side
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peak = {}
    for side in (1536, 4608):
        done = subprocess.run(
            [sys.executable, "-c", script, str(side), tmp_path / "m.safetensors", tmp_path],
            capture_output=True,
            text=True,
            check=True,
        )
        peak[side] = int(done.stdout)
    assert peak[4608] < peak[1536] + 250  # of which the mapped file is 61 and the code maps 8


def test_maps_for_scale(small_model):
    engine = Codec(small_model)._engine
    counts = [decoder.maps_for(engine, scale) for scale in (16, 8, 4, 2, 1)]
    assert counts == sorted(counts) and counts[-1] == len(small_model.config.autoencoder.maps)


class TestMemory:
    """``Limits.memory``: an estimate from the header, before anything is allocated."""

    def test_refusal_names_both_figures(self, small_model, tiled):
        with vqcodec.open(tiled, model=small_model, limits=Limits(memory=20_000)) as coded:
            for ask in (coded.decode, coded.rows, coded.code_maps):
                with pytest.raises(LimitExceeded, match=rf"20000 bytes .* about \d+ of an image of {WIDTH} x {HEIGHT}"):
                    ask()
            assert coded._canvas.known == [0] * 24  # nothing was decoded

    def test_a_hostile_header_costs_nothing(self, small_model):
        """2**28 pixels without any data: rejected at once, before any page of the maps is touched."""
        fields = Header(small_model.fingerprint[:16], width=1 << 14, height=1 << 14, tile=2048, maps=1)
        data = container.write(Container(fields, maps=[[b""] * 64]))
        with vqcodec.open(data, model=small_model, limits=Limits(memory=1 << 28)) as coded:
            with pytest.raises(LimitExceeded, match="bytes of memory are allowed"):
                coded.decode()
            assert coded._canvas.known == [0] * 64

    def test_less_is_asked_of_parts(self, small_model):
        """Strips need less than the image, a region less than strips, code maps least."""
        fields = Header(small_model.fingerprint[:16], width=20_000, height=12_000, tile=512, maps=1)
        canvas = decoder.Canvas(Engine(small_model), fields)
        whole, all_tiles = Box(0, 0, 20_000, 12_000), range(len(canvas.boxes))
        strip = canvas.memory(all_tiles, whole._replace(y1=tiling.AREA))
        region = canvas.memory(canvas.tiles(Box(0, 0, 600, 600)), Box(0, 0, 600, 600))
        codes = sum(a * b for a, b in small_model.config.map_shapes(12_000, 20_000))
        assert region < strip < canvas.memory(all_tiles, whole)
        assert 4 * codes < canvas.memory(all_tiles) < strip
        assert strip < 3 * 20_000 * 12_000 + 4 * codes  # although the image alone takes that much

    def test_progressive(self, small_model, tiled):
        decoder = vqcodec.Decoder(model=small_model, limits=Limits(memory=20_000))
        with pytest.raises(LimitExceeded, match="bytes of memory"):
            decoder.feed(tiled)

    def test_the_default_is_more_than_the_default_pixels_need(self):
        """With the shipped model, tiled or not, with alpha."""
        engine = Engine()
        side = 1 << 14
        for tile in (2048, 512):
            canvas = decoder.Canvas(engine, Header(engine.model.fingerprint[:16], width=side, height=side, tile=tile))
            needed = canvas.memory(range(len(canvas.boxes)), Box(0, 0, side, tiling.AREA)) + 10 * side**2
            assert side**2 == options.LIMITS.pixels and 2 << 30 < needed < options.LIMITS.memory
