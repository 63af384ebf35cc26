"""docs/FORMAT.md holds what the library does: its listings and worked examples are run, and
decoders that were written from it alone read what the library writes."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vqcodec
from tests.golden import listing as real_file
from tests.golden import make
from tests.reference_decoder import container as reference_container
from tests.reference_decoder import pixels as reference_pixels
from tests.reference_decoder import prior as reference_prior
from tests.reference_decoder import samples as reference_samples
from tests.support.autoencoders import random_autoencoder
from tests.support.networks import random_prior
from training.export import tensors
from vqcodec.errors import FormatError
from vqcodec.format import container
from vqcodec.format.container import Container, Header
from vqcodec.model import file
from vqcodec.model.config import AutoencoderConfig, CodeMap, ModelConfig, PriorConfig
from vqcodec.ops import range_coder
from vqcodec.ops.reference import integer_network

SPECIFICATION = real_file.DOCUMENT.read_text(encoding="utf-8")
EXPECTED = json.loads(make.EXPECTED.read_text())
GOLDEN = pytest.mark.parametrize("name", sorted(EXPECTED["maps"]))
FREQUENCIES = [8388608, 4194304, 3145728, 1048576]
CODES = [[(0, 2, 1, 3), (3, 3, 3)], [(0, 0, 0, 0), (1, 0)]]


def listing(number: int = 0) -> bytes:
    """The bytes of a ``hexdump`` block; after them, past three spaces or more, come remarks."""
    block = re.findall(r"```hexdump\n(.*?)```", SPECIFICATION, re.DOTALL)[number]
    return b"".join(bytes.fromhex(re.split(r" {3,}", line)[0]) for line in block.splitlines())


def coded(codes: tuple[int, ...]) -> bytes:
    start = np.cumsum([0, *FREQUENCIES])[list(codes)]
    return range_coder.encode_stream(start, np.array(FREQUENCIES)[list(codes)])


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
    independent = reference_container.read(listing())
    assert independent["streams"] == found.maps
    assert independent["alpha"] == found.alpha.tolist()
    for streams, tiles in zip(independent["streams"], CODES):
        for stream, codes in zip(streams, tiles):
            decoder = reference_container.RangeDecoder(stream)
            assert tuple(decoder.symbol(FREQUENCIES) for _ in codes) == codes


def test_worked_example_of_the_range_coder():
    rows = re.findall(r"^\| ([0-9A-F]{16}) \| ([0-9A-F]{16}) \| (\d+) \| (\d) \|$", SPECIFICATION, re.MULTILINE)
    assert len(rows) == 4
    decoder = reference_container.RangeDecoder(bytes.fromhex("71A0"))
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
        assert reference_container.number(coded_bytes, 0) == (int(value), len(coded_bytes))


# -- Real files --------------------------------------------------------------------------


def test_listing_of_a_real_file():
    assert listing(1) == real_file.SHOWN.read_bytes()
    assert real_file.SECTION.search(SPECIFICATION)[0] == real_file.section(), "run python -m tests.golden.listing"


@functools.cache
def shipped() -> reference_prior.Model:
    return reference_prior.read_model(file.DEFAULT.read_bytes())


@functools.cache
def golden(name: str) -> tuple[bytes, list[np.ndarray]]:
    """A golden file and the maps that the independent decoder finds in it."""
    data = (make.HERE / f"{name}.vqc").read_bytes()
    return data, reference_prior.decode(data, shipped())


def as_array(picture: Image.Image) -> np.ndarray:
    """H x W or H x W x 3 uint8, without alpha."""
    return np.asarray(picture.convert(picture.mode.removesuffix("A")))


def test_fingerprint():
    assert shipped().fingerprint.hex() == EXPECTED["model"]


@pytest.mark.slow
@GOLDEN
def test_golden_maps(name):
    assert make.digest(golden(name)[1]) == EXPECTED["maps"][name]


def test_a_golden_file_has_several_tiles():
    assert len(reference_container.read(golden("tiles")[0])["streams"][0]) > 1


@GOLDEN
def test_golden_pixels(name):
    data, maps = golden(name)
    found = reference_pixels.picture(maps, reference_container.read(data), shipped())
    assert np.array_equal(found, as_array(vqcodec.decompress(data)))


# -- Other models ------------------------------------------------------------------------

SMALL: dict[str, Any] = dict(hidden=8, residual=5, embedding=3, condition_embedding=2, condition_residual=6)
NETWORKS: dict[str, Any] = dict(hidden=24, residual=8, encoder_blocks=1, decoder_blocks=2, refine=8, refine_blocks=2)
DESCRIPTIONS = {
    # Three strides, maps that refine, attention in several maps, all sizes of windows.
    "lapped": ModelConfig(
        name="lapped",
        classes=("a", "b", "\u00e9"),
        card={"not": "in the fingerprint"},
        autoencoder=AutoencoderConfig(
            maps=(CodeMap(32, 5, 20), CodeMap(16, 3, 300), CodeMap(16, 3, 9, refines=0), CodeMap(8, 2, 7)),
            **NETWORKS,
        ),
        priors=(
            PriorConfig(**SMALL, layers=3, attention_layers=2, heads=2, output_layers=2, condition_blocks=3),
            PriorConfig(**SMALL, layers=2, attention_layers=1, heads=4, kernel=5, first_kernel=3, condition_blocks=2),
            PriorConfig(**SMALL, layers=1, kernel=1, output_layers=1, condition_blocks=0),
            PriorConfig(**SMALL, layers=4, attention_layers=4, heads=1, first_kernel=7),
        ),
    ),
    # Neighbouring strides with a ratio of four, no null code, one level.
    "conv": ModelConfig(
        name="conv",
        classes=("a", "b"),
        autoencoder=AutoencoderConfig(
            maps=(CodeMap(16, 5, 20), CodeMap(4, 3, 30)), transform="conv", null_code=False, levels=1, **NETWORKS
        ),
        priors=(PriorConfig(**SMALL, condition_blocks=0), PriorConfig(**SMALL, layers=1)),
    ),
}


@pytest.fixture(scope="module", params=DESCRIPTIONS)
def model(request, tmp_path_factory) -> tuple[file.Model, reference_prior.Model]:
    """A model with random weights and tables of its own, as the library and as the independent reader see it."""
    described = DESCRIPTIONS[request.param]
    auto = described.autoencoder
    autoencoder = random_autoencoder(auto, 0)
    priors = [
        random_prior(prior, auto.maps[: m + 1], m, classes=len(described.classes), levels=auto.levels)
        for m, prior in enumerate(described.priors)
    ]
    stored = tensors(autoencoder, priors)
    stored["tables/exp"] = np.maximum(stored["tables/exp"], 20)
    stored["tables/tanh"] = stored["tables/tanh"] // 2
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    file.save(path, described, stored)
    return file.load(path), reference_prior.read_model(path.read_bytes())


def random_file(model: file.Model, seed: int, **fields: int) -> bytes:
    """A file whose streams are random: its codes are drawn from the prior."""
    usual: dict[str, Any] = {"width": 150, "height": 70, "maps": len(model.config.autoencoder.maps)}
    head = Header(model.fingerprint[:16], **usual | fields)
    rng = np.random.default_rng(seed)
    return container.write(
        Container(head, maps=[[rng.bytes(3000) for _ in range(head.tiling.count)] for _ in range(head.maps)])
    )


def test_fingerprint_of_other_models(model):
    assert model[0].fingerprint == model[1].fingerprint


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"width": 1, "height": 1},
        {"tile": 64},
        {"tile": 64, "height": 33, "class_id": 2},
        {"tile": 128, "width": 128},
        {"maps": 1, "class_id": 1},
        {"maps": 0},
        {"level": 7, "width": 40},
        {"level": 3, "class_id": 3, "height": 9},
    ],
    ids=str,
)
def test_maps_of_other_models(model, fields):
    theirs, ours = model
    auto = theirs.config.autoencoder
    if fields.get("level", 0) >= auto.levels or fields.get("class_id", 0) > len(theirs.config.classes):
        fields = fields | {"level": 0, "class_id": 0}
    data = random_file(theirs, 1, **fields)
    expected, found = vqcodec.decode_maps(data, model=theirs), reference_prior.decode(data, ours)
    assert [m.shape for m in found] == [m.shape for m in expected]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    header = reference_container.read(data)
    unit = ours.unit
    height, width = (-(-header[side] // unit) * unit for side in ("height", "width"))
    pixels = integer_network.decode(theirs.autoencoder, found, height, width)
    assert np.array_equal(reference_pixels.picture(found, header, ours), pixels[: header["height"], : header["width"]])


def test_files_that_do_not_fit_the_model(model):
    theirs, ours = model
    config = theirs.config
    for fields in (
        {"class_id": len(config.classes) + 1},
        {"level": config.autoencoder.levels},
        {"maps": len(config.autoencoder.maps) + 1},
    ):
        data = random_file(theirs, 0, **fields)
        with pytest.raises(FormatError):
            vqcodec.decode_maps(data, model=theirs)
        with pytest.raises(reference_container.Invalid):
            reference_prior.decode(data, ours)
    data = (make.HERE / "pixel.vqc").read_bytes()
    with pytest.raises(vqcodec.VqcodecError, match="model"):
        vqcodec.decode_maps(data, model=theirs)
    with pytest.raises(reference_container.Invalid, match="name this model"):
        reference_prior.decode(data, ours)


@pytest.mark.parametrize("options", [dict(lossless=True), dict(max_error=3), dict(lossless=True, tile=64)], ids=str)
@pytest.mark.parametrize("kind", ["soft", "grey", "deep", "few", "large"])
def test_samples(kind, options):
    """The decoder written from the specification finds the same pixels, and the same digest."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:24, :70]
    soft = (np.sin(x / 6) + np.cos(y / 5))[..., None] * (40, 50, 30) + (120, 100, 130) + rng.normal(0, 2, (24, 70, 3))
    picture = soft.clip(0, 255).astype(np.uint8)
    if kind == "large":  # more than one slice
        picture = np.tile(picture, (6, 2, 1))[:130, :130, 0]
    picture = {
        "grey": picture[..., 0], "deep": picture.astype(np.uint16) * 200 + 77, "few": picture // 40 * 40
    }.get(kind, picture)  # fmt: skip
    data = vqcodec.compress(picture, **options)
    found = reference_samples.decode(reference_container.read(data))
    pixels = vqcodec.open(data).decode().pixels
    assert np.array_equal(np.array(found), pixels[..., :1] if picture.ndim == 2 else pixels)
