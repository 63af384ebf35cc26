"""The whole codec on a small model: what goes in comes out, and damage is detected."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vqcodec
from tests.conftest import scene
from vqcodec import ops
from vqcodec.codec.codec import Codec
from vqcodec.codec.images import RasterImage
from vqcodec.codec.sampler import uniform_words
from vqcodec.codec.visibility import log2, visibility
from vqcodec.errors import FormatError, InvalidArgument, LimitExceeded, ModelMismatch, NotVqcodec
from vqcodec.format import container
from vqcodec.format.container import Container, Header, Limits
from vqcodec.model import file as model_file
from vqcodec.model.prior import Condition
from vqcodec.tools.demo import PHOTO


@pytest.fixture(scope="module")
def coded(small_model) -> bytes:
    return vqcodec.compress(scene(48, 80), model=small_model)


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b))


def header(model, **fields) -> Header:
    return Header(**{"fingerprint": model.fingerprint[:16], "width": 40, "height": 40, "maps": 1, **fields})


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (33, 1), (16, 16), (17, 31), (3, 1200), (1100, 70)])
def test_any_size(small_model, height, width):
    picture = scene(height, width)
    data = vqcodec.compress(picture, model=small_model, quality=70)
    back = vqcodec.decompress(data, model=small_model)
    assert back.size == (width, height) and back.mode == "RGB"
    assert equal(
        vqcodec.decode_maps(data, model=small_model), vqcodec.encode_maps(picture, model=small_model, quality=70)
    )
    error = np.mean((np.asarray(back, float) - picture) ** 2)
    assert error < np.mean((picture - picture.mean((0, 1))) ** 2) or height * width < 300


@pytest.mark.slow
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 100),
    st.sampled_from([None, 0, 1, "owl"]),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_maps_survive(small_model, height, width, quality, class_id, seed):
    codec = Codec(small_model)
    rng = np.random.default_rng(seed)
    shapes = [m.shape for m in codec.encode_maps(np.zeros((height, width, 3), np.uint8))]
    maps = [rng.integers(0, m.codes, s).astype(np.int32) for m, s in zip(small_model.config.autoencoder.maps, shapes)]
    if seed % 3 == 0:
        maps[-1][:] = 0  # an empty last map is not written
    number = small_model.config.class_number(class_id)
    found, back = codec.read(codec.write(maps, height, width, quality=quality, condition=Condition(number, 1)))
    assert equal(back, maps)
    assert found.header.maps == len(maps) - (not maps[-1].any())


def test_size_is_the_cross_entropy(small_model):
    """Every stream is within 0.1 % and 8 bytes of the information content of its codes."""
    codec = Codec(small_model)
    maps = codec.encode_maps(scene(256, 384), 80)
    found = container.read(codec.write(maps, 256, 384, quality=80))
    for number, (streams, prior) in enumerate(zip(found.maps, small_model.priors)):
        _, frequency = ops.prior_frequencies(prior, maps[number], maps[:number], (0, found.header.level))
        bits = -np.log2(frequency / 2**24).sum()
        assert bits / 8 - 4 <= len(streams[0]) <= bits / 8 * 1.001 + 8


def test_input_forms_are_equal(small_model, tmp_path):
    array = scene(40, 56)
    Image.fromarray(array).save(tmp_path / "p.png")
    forms = [array, Image.fromarray(array), tmp_path / "p.png", str(tmp_path / "p.png")]
    assert len({vqcodec.compress(form, model=small_model) for form in forms}) == 1


def test_grey_alpha_and_metadata_come_back(small_model):
    rng = np.random.default_rng(0)
    image = Image.fromarray(np.dstack([scene(30, 30), rng.integers(0, 256, (30, 30)).astype(np.uint8)]))
    image.info["icc_profile"] = b"profile" * 50
    back = vqcodec.decompress(vqcodec.compress(image, model=small_model), model=small_model)
    assert back.mode == "RGBA" and back.info["icc_profile"] == b"profile" * 50
    assert np.array_equal(np.asarray(back)[..., 3], np.asarray(image)[..., 3])
    grey = vqcodec.decompress(vqcodec.compress(scene(30, 30)[..., 0], model=small_model), model=small_model)
    assert grey.mode == "L"


def test_quality_orders_distortion(small_model):
    """(Sizes mean nothing under the small model's random priors; the shipped model's are tested.)"""
    picture = scene(128, 128)
    errors = []
    for quality in (0, 30, 60, 100):
        back = vqcodec.decompress(vqcodec.compress(picture, quality=quality, model=small_model), model=small_model)
        errors.append(np.mean((np.asarray(back, float) - picture) ** 2))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


@pytest.mark.parametrize("wrong", [-1, 101, "50", None, float("nan"), True])
def test_wrong_quality(small_model, wrong):
    with pytest.raises(InvalidArgument, match="quality"):
        vqcodec.compress(scene(16, 16), quality=wrong, model=small_model)


def test_threads_and_processes_agree(small_model, coded, tmp_path):
    """The same maps with one thread and two, twice, and in another process."""
    expected = vqcodec.decode_maps(coded, model=small_model)
    try:
        for n in (1, 2):
            vqcodec.set_num_threads(n)
            assert equal(vqcodec.decode_maps(coded, model=small_model), expected)
    finally:
        vqcodec.set_num_threads(os.cpu_count() or 1)
    (tmp_path / "a.vqc").write_bytes(coded)
    model_file.save(tmp_path / "m.safetensors", small_model.config, small_model.tensors)
    script = (
        "import sys, hashlib, vqcodec; maps = vqcodec.decode_maps(open(sys.argv[1], 'rb').read(), model=sys.argv[2]);"
        "print(hashlib.sha256(b''.join(m.tobytes() for m in maps)).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.vqc", tmp_path / "m.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == hashlib.sha256(b"".join(m.tobytes() for m in expected)).hexdigest()


def test_every_changed_byte_is_noticed(small_model, coded):
    """One byte changed: a typed error, or with partial=True a prefix of the true maps. Never noise."""
    codec = Codec(small_model)
    true = codec.read(coded)[1]
    prefixes = 0
    for position in range(len(coded)):
        damaged = bytearray(coded)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(FormatError):
            codec.read(bytes(damaged))
        try:
            _, maps = codec.read(bytes(damaged), partial=True)
        except FormatError:
            continue
        assert equal(maps, true[: len(maps)])
        prefixes += 0 < len(maps) < len(true)
    assert prefixes > len(coded) / 4


def test_every_truncation_is_noticed(small_model, coded):
    codec = Codec(small_model)
    true = codec.read(coded)[1]
    longest = 0
    for length in range(len(coded)):
        with pytest.raises(FormatError):
            codec.read(coded[:length])
        try:
            _, maps = codec.read(coded[:length], partial=True)
        except FormatError:
            continue
        assert equal(maps, true[: len(maps)]) and len(maps) >= longest
        longest = len(maps)
    assert longest == len(true)
    picture = vqcodec.decompress(coded[:-1], model=small_model, partial=True)
    assert np.array_equal(np.asarray(picture), np.asarray(vqcodec.decompress(coded, model=small_model)))


@pytest.mark.parametrize("given", [{"device": 5}, {"device": ""}, {"model": 5}, {"limits": 5}, {"model": b"x"}])
def test_arguments_of_another_type(coded, given, small_model):
    for function in (vqcodec.decompress, vqcodec.open):
        with pytest.raises(InvalidArgument):
            function(coded, **{"model": small_model} | given)
    with pytest.raises(InvalidArgument):
        vqcodec.Decoder(**{"model": small_model} | given)
    assert vqcodec.decompress(coded, model=small_model, device=None, limits=None).size


def test_a_missing_file_is_the_same_error_everywhere(tmp_path):
    for function in (vqcodec.compress, vqcodec.decompress, vqcodec.open, vqcodec.info, vqcodec.decode_maps):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "none")


def test_other_formats_are_named(small_model, tmp_path):
    path = tmp_path / "photo.vqc"
    for format, name in (("PNG", "a PNG image"), ("JPEG", "a JPEG image"), ("TIFF", "a TIFF image")):
        Image.new("RGB", (8, 8)).save(path, format)
        with pytest.raises(NotVqcodec, match=f"this is {name}"):
            vqcodec.decompress(path, model=small_model)


def test_pipes_are_read_whole(small_model, coded):
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return self._data.readinto(buffer)

    expected = np.asarray(vqcodec.decompress(coded, model=small_model))
    for stream in (Pipe(coded), io.BufferedReader(Pipe(coded))):
        assert np.array_equal(np.asarray(vqcodec.decompress(stream, model=small_model)), expected)


def test_incomplete_images_say_so(small_model, coded):
    with pytest.warns(UserWarning, match="the image is not complete"):
        vqcodec.decompress(coded[:-30], model=small_model, partial=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vqcodec.decompress(coded, model=small_model, partial=True)


def test_what_is_shown_of_objects(small_model, coded):
    codec = Codec(small_model)
    assert repr(codec).startswith("Codec(<Model ") and repr(codec).endswith("device='cpu')")
    assert repr(codec.model) == f"<Model {small_model.name}, {small_model.fingerprint.hex()[:16]}>"
    assert repr(codec.open(coded)).startswith("<CodedImage ")
    assert repr(vqcodec.Decoder(model=small_model)) == "<Decoder, waiting for more>"
    copy = pickle.loads(pickle.dumps(codec))
    assert np.array_equal(copy.decompress(coded).pixels, codec.decompress(coded).pixels)


def test_info_takes_what_decompress_takes(coded, tmp_path):
    path = tmp_path / "a.vqc"
    path.write_bytes(coded)
    expected = vqcodec.info(coded)
    assert expected == vqcodec.info(path) == vqcodec.info(str(path)) == vqcodec.info(memoryview(coded))
    with path.open("rb") as file:
        assert vqcodec.info(file) == expected
    with pytest.raises(InvalidArgument):
        vqcodec.info(3)
    with pytest.raises(LimitExceeded):
        vqcodec.info(coded, limits=Limits(pixels=1))


def test_nothing_whole_is_an_error_even_when_partial(small_model, coded):
    first_map = vqcodec.info(coded)["chunks"][1]["offset"]
    with pytest.raises(FormatError, match="map 0"):
        vqcodec.decompress(coded[: first_map + 1], model=small_model, partial=True)


def test_valid_checksums_around_noise(small_model):
    """Streams of random bytes in an intact container: an error or codes in range, never a crash."""
    codec = Codec(small_model)
    rng = np.random.default_rng(1)
    for _ in range(40):
        maps = [[rng.integers(0, 256, rng.integers(0, 80)).astype(np.uint8).tobytes()] for _ in small_model.priors]
        data = container.write(Container(header(small_model, maps=len(maps)), maps=maps))
        try:
            decoded = codec.read(data)[1]
        except FormatError:
            continue
        for m, codes in zip(small_model.config.autoencoder.maps, decoded):
            assert codes.min() >= 0 and codes.max() < m.codes


@pytest.mark.parametrize("field, value", [("class_id", 4), ("level", 8), ("maps", 5)])
def test_header_that_does_not_fit_the_model(small_model, field, value):
    wrong = header(small_model, **{field: value})
    data = container.write(Container(wrong, maps=[[b""]] * wrong.maps))
    with pytest.raises(FormatError, match="header"):
        Codec(small_model).read(data)


def test_limits_count_the_padding(small_model):
    """A header of one row and 2**26 columns: sixteen times that with padding."""
    data = container.write(Container(header(small_model, width=1 << 26, height=1, tile=1 << 20, maps=0)))
    with pytest.raises(LimitExceeded, match="padding"):
        vqcodec.decompress(data, model=small_model)
    wide = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (1, 1 << 26, 3))
    with pytest.raises(LimitExceeded, match="padding"):
        Codec(small_model).compress(RasterImage(wide))


@pytest.mark.parametrize("wrong", [True, 0, -1, 1.5, "2", None, 2**40])
def test_wrong_number_of_threads_changes_nothing(small_model, wrong):
    with pytest.raises(InvalidArgument, match="threads"):
        vqcodec.set_num_threads(wrong)
    assert len(vqcodec.compress(scene(16, 16), quality=np.int64(50), model=small_model)) > 0


def test_other_model_is_refused(small_model, coded):
    found = container.read(coded)
    changed = dataclasses.replace(found, header=dataclasses.replace(found.header, fingerprint=bytes(16)))
    with pytest.raises(ModelMismatch, match=bytes(16).hex()):
        vqcodec.decompress(container.write(changed), model=small_model)


def test_huge_picture_is_refused_before_work(small_model):
    data = container.write(Container(header(small_model, width=1 << 20, height=1 << 20, tile=2048, maps=0)))
    with pytest.raises(LimitExceeded):
        vqcodec.decompress(data, model=small_model)
    with pytest.raises(LimitExceeded):
        Codec(small_model).read(vqcodec.compress(scene(64, 64), model=small_model), limits=Limits(pixels=4095))


class TestEffort:
    def test_errors_show_less_in_texture(self):
        """Logarithms in 1/256 octaves."""
        grey = np.full((21, 30, 3), 128, np.uint8)
        assert not visibility(grey, 8, (4, 4)).any()  # one row of codes more than the image has
        rough = grey.copy()
        rough[8:16, 8:16:2] = 0  # one block: variance 0.063
        expected = np.zeros((3, 4))
        expected[1, 1] = -256 * 0.35 * np.log2(1 + 1000 * (64 / 255) ** 2)
        assert np.abs(visibility(rough, 8, (3, 4)) - expected).max() < 3
        quarter = -256 * 0.35 * np.log2(1 + 250 * (64 / 255) ** 2)
        assert abs(visibility(rough, 16, (2, 2))[0, 0] - quarter) < 3
        assert visibility(rough, 4, (6, 8)).shape == (6, 8)

    def test_logarithms(self):
        """To the last of the table's 8 bits, of any whole number; also where a float would round up."""
        x = np.array([1, 2, 3, 255, 256, 257, 65535, 2**40 + 1, 2**53 - 1, 2**62 - 1, 2**62])
        assert np.abs(log2(x) - 256 * np.log2(x.astype(np.float64))).max() <= 1
        assert log2(np.array([1, 2, 2**62])).tolist() == [0, 256, 62 * 256]

    @pytest.mark.slow
    def test_effort_pays(self):
        """Fewer bits for the same error, or less error for the bits, with the shipped model."""
        picture = np.asarray(Image.open(PHOTO).convert("RGB"))[:256, :256]
        codec, costs = Codec(), []
        auto = codec.model.config.autoencoder
        for effort in (0, 1, 9):
            maps = codec.encode_maps(picture, 50, effort=effort)
            error = (codec.decode_pixels(maps, 256, 256) / 255.0 - picture / 255.0) ** 2
            bits = 8 * len(codec.write(maps, 256, 256, quality=50))
            costs.append(error.sum() + auto.lagrangian(auto.position(50)) * bits)
        assert costs[1] < 0.99 * costs[0] and costs[2] < 0.99 * costs[0]

    def test_residual_maps_and_tiles(self, small_model):
        """Maps that quantise the residual of others come after them; every tile is chosen separately."""
        picture = scene(70, 90)
        whole = vqcodec.encode_maps(picture, model=small_model, effort=2)
        zero = vqcodec.encode_maps(picture, model=small_model, effort=0)
        assert [m.shape for m in whole] == [m.shape for m in zero] and not equal(whole, zero)
        assert vqcodec.compress(picture, model=small_model, effort=2) == Codec(small_model).write(whole, 70, 90)
        tiled = vqcodec.compress(picture, model=small_model, effort=2, tile=64)
        assert vqcodec.info(tiled)["tile"] == 64
        assert [m.shape for m in vqcodec.decode_maps(tiled, model=small_model)] == [m.shape for m in whole]

    @pytest.mark.parametrize("wrong", [-1, 10, 1.5, "3", True])
    def test_wrong_effort(self, small_model, wrong):
        with pytest.raises(InvalidArgument, match="effort must be a whole number from 0 to 9"):
            vqcodec.compress(scene(16, 16), effort=wrong, model=small_model)


class TestSample:
    def test_seeds(self, small_model):
        codec = Codec(small_model)
        a, b = (codec.sample_maps("dog", 2, size=(48, 32), seed=7) for _ in range(2))
        assert all(equal(x, y) for x, y in zip(a, b))
        assert not equal(a[0], a[1])
        assert not equal(a[0], codec.sample_maps("dog", 1, size=(48, 32), seed=8)[0])
        assert equal(a[1], codec.sample_maps("dog", 3, size=(48, 32), seed=7)[1])  # no matter how many

    def test_classes_and_temperature_matter(self, small_model):
        codec = Codec(small_model)
        assert (
            codec.sample_maps(1, 1, size=(64, 64), top_p=0.5)[0][0].tolist()
            != codec.sample_maps(1, 1, size=(64, 64))[0][0].tolist()
        )
        draws = [
            codec.sample_maps(c, 1, size=(64, 64), temperature=t)[0]
            for c, t in (("dog", 1.0), ("owl", 1.0), (None, 1.0), ("dog", 0.5))
        ]
        assert not any(equal(draws[i], draws[j]) for i in range(4) for j in range(i))
        assert equal(draws[2], codec.sample_maps(0, 1, size=(64, 64))[0])

    def test_pictures(self, small_model):
        pictures = vqcodec.sample(2, 3, size=(50, 33), model=small_model)
        assert [p.size for p in pictures] == [(50, 33)] * 3

    @pytest.mark.parametrize(
        "wrong",
        [
            dict(class_id="cow"),
            dict(class_id=9),
            dict(n=-1),
            dict(size=(0, 5)),
            dict(size=(9999, 9999)),
            dict(seed=-1),
            dict(seed=2**64),
            dict(seed=1.5),
            dict(temperature=0),
            dict(temperature=float("nan")),
            dict(top_p=0),
            dict(top_p=1.01),
            dict(top_p=float("nan")),
            dict(top_p="1"),
            dict(temperature="1"),
            dict(n=1.5),
            dict(size=32),
            dict(size=(1, 4194304)),
            dict(class_id=1.5),
        ],
    )
    def test_wrong_arguments(self, small_model, wrong):
        with pytest.raises(InvalidArgument):
            vqcodec.sample(**{"class_id": 1, "size": (16, 16), "model": small_model, **wrong})

    def test_words_are_pinned(self):
        """Golden words: a seed gives the same codes forever."""
        words = uniform_words(1, 2, [(2, 2), (1, 3)])
        assert [w.tolist() for w in words] == [[4529421, 13623752, 13914496, 5509640], [4115969, 1189584, 14052622]]
        assert all(w.dtype == np.uint32 for w in words)

    def test_words_are_uniform(self):
        words = uniform_words(3, 0, [(300, 300)])[0] / 2**24
        assert abs(words.mean() - 0.5) < 0.005
        assert abs(np.histogram(words, 10, (0, 1))[0] / len(words) - 0.1).max() < 0.005


def test_not_bytes():
    with pytest.raises(InvalidArgument, match="bytes, a path or a binary file"):
        vqcodec.decompress(["a.vqc"])


def test_import_is_light():
    """`import vqcodec` loads neither torch nor NumPy nor Pillow; every public name is there."""
    script = "import sys, vqcodec, vqcodec.errors; sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError):
        vqcodec.nothing
    assert all(callable(getattr(vqcodec, name)) for name in vqcodec.__all__)
