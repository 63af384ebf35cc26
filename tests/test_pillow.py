"""``import vqcodec.pillow``: Pillow opens and saves .vqc files like its own formats."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

import vqcodec
import vqcodec.pillow
from tests.conftest import scene
from vqcodec.format import container
from vqcodec.model import file as model_file

SHARE = Path(__file__).parent.parent / "share"


@pytest.fixture(autouse=True)
def model(small_model):
    """Images are decoded by the small model."""
    vqcodec.pillow.use(small_model)
    yield small_model
    vqcodec.pillow.use(None)


@pytest.fixture
def picture() -> Image.Image:
    """RGBA, with metadata."""
    pixels = np.dstack([scene(40, 56), np.arange(40 * 56, dtype=np.uint8).reshape(40, 56)])
    image = Image.fromarray(pixels)
    image.info |= {"icc_profile": b"a profile", "xmp": b"<x/>"}
    return image


def damaged(data: bytes, tag: str, number: int = 0) -> bytes:
    """``data`` with one bit of a chunk's checksum flipped."""
    chunk = [c for c in vqcodec.info(data)["chunks"] if c["tag"] == tag][number]
    at = chunk["offset"] + chunk["bytes"] - 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_round_trip(picture, model, tmp_path, mode):
    image = picture.convert(mode)
    image.save(tmp_path / "a.vqc", quality=70, effort=0, class_id="dog", model=model)
    data = (tmp_path / "a.vqc").read_bytes()
    assert data == vqcodec.compress(image, quality=70, effort=0, class_id="dog", model=model)
    with Image.open(tmp_path / "a.vqc") as back:
        assert (back.format, back.mode, back.size) == ("VQC", mode, (56, 40))
        assert back.get_format_mimetype() == "image/x-vqcodec"
        assert back.info == {"icc_profile": b"a profile", "xmp": b"<x/>", "quality": 70}
        assert np.array_equal(np.asarray(back), np.asarray(vqcodec.decompress(data, model=model)))
        assert back.mode == mode


def test_ordinary_work(picture, model):
    """Streams, copies, crops, changes in place, conversion to other formats."""
    stream = io.BytesIO()
    picture.save(stream, "VQC", model=model)
    stream.seek(0)
    back = Image.open(stream)
    assert back.crop((3, 4, 10, 12)).size == (7, 8)
    back.putpixel((0, 0), (1, 2, 3, 4))
    assert back.getpixel((0, 0)) == (1, 2, 3, 4)
    assert back.copy().tobytes() == back.tobytes()
    again = io.BytesIO()
    back.save(again, "PNG", icc_profile=back.info["icc_profile"])
    assert Image.open(again).info["icc_profile"] == b"a profile"
    assert not stream.closed  # it is not ours
    thumbnail = Image.open(stream)
    thumbnail.thumbnail((20, 20))
    assert thumbnail.size == (20, 14)


@pytest.mark.parametrize("size, scale", [
    ((120, 100), 1), ((60, 50), 2), ((59, 50), 2), ((61, 50), 1), ((15, 12), 8), ((1, 1), 16), ((7, 60), 1),
])  # fmt: skip
def test_draft_loads_a_reduced_picture(model, size, scale):
    pixels = np.dstack([scene(100, 120), np.arange(12000, dtype=np.uint8).reshape(100, 120)])
    stream = io.BytesIO(vqcodec.compress(pixels, model=model))
    image = Image.open(stream)
    expected = vqcodec.decompress(stream.getvalue(), scale=scale, model=model)
    mode, box = image.draft("RGB", size)
    assert (mode, box) == ("RGBA", (0, 0, 120 / scale, 100 / scale))
    assert image.size == expected.size and np.array_equal(np.asarray(image), np.asarray(expected))
    assert image.draft("RGB", (1, 1)) is None  # too late


@pytest.mark.slow
def test_thumbnails_and_opening_read_what_they_need(model):
    """Opening reads chunk headers and metadata; a thumbnail reads the maps it needs."""

    class Recorder(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    stream = Recorder(vqcodec.compress(scene(400, 600), quality=100, model=model))
    image = Image.open(stream, formats=["VQC"])  # others look at more
    assert stream.count < 600
    image.thumbnail((10, 10))
    assert image.size == (10, 7) and stream.count < 0.8 * len(stream.getvalue())
    assert image.info["quality"] == 100


def test_limits_of_loading(picture, model):
    data = vqcodec.compress(picture, model=model)
    vqcodec.pillow.use(model, limits=container.Limits(memory=1000))
    with pytest.raises(Image.DecompressionBombError, match="1000 bytes of memory"):
        Image.open(io.BytesIO(data)).load()


def test_metadata_given_to_save(picture, model):
    exif = Image.Exif()
    exif[0x010E] = "a garden"
    stream = io.BytesIO()
    picture.save(stream, "VQC", exif=exif, icc_profile=None, model=model)
    back = Image.open(stream)
    assert back.getexif()[0x010E] == "a garden"
    assert "icc_profile" not in back.info and back.info["xmp"] == b"<x/>"
    assert picture.info["icc_profile"] == b"a profile"  # the image itself is not changed


def test_opening_decodes_nothing(picture, model, tmp_path):
    """Nor does it load torch; only pixels do."""
    picture.save(tmp_path / "a.vqc", model=model)
    script = f"""
import sys
from PIL import Image
import vqcodec.pillow
image = Image.open({str(tmp_path / "a.vqc")!r})
assert (image.size, image.mode, image.info["xmp"]) == ((56, 40), "RGBA", b"<x/>")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("content", [b"", b"\x8fVQ", b"\x8fVQC\x01", b"hello, this is a text", bytes(100)])
def test_foreign_data(content):
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(content))


def test_other_formats_still_open(picture):
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    assert Image.open(stream).format == "PNG"


def test_newer_versions_say_so(picture, model):
    data = bytearray(vqcodec.compress(picture, model=model))
    data[4] = 99
    with pytest.warns(UserWarning, match="found 63"), pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_damaged_header_is_no_picture(picture, model):
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(damaged(vqcodec.compress(picture, model=model), "H")))


def test_truncated_files(picture, model, monkeypatch):
    """The size is known; pixels raise OSError unless Pillow is told to accept truncated files."""
    data = vqcodec.compress(picture, quality=90, model=model)
    maps = [c["offset"] for c in vqcodec.info(data)["chunks"] if c["tag"] == "M"]
    cut = data[: maps[2] + 3]
    image = Image.open(io.BytesIO(cut))
    assert image.size == (56, 40)
    with pytest.raises(OSError, match="map 2: "):
        image.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    image = Image.open(io.BytesIO(cut))
    assert np.array_equal(np.asarray(image), np.asarray(vqcodec.decompress(cut, partial=True, model=model)))
    assert image.mode == "RGB"


@pytest.mark.parametrize("tag", ["i", "x", "M", "A", "Z"])
def test_damage_is_found(picture, model, tag):
    data = damaged(vqcodec.compress(picture, model=model), tag)
    with pytest.raises(OSError, match="CRC-32"):
        Image.open(io.BytesIO(data)).load()
    with pytest.raises(OSError, match="CRC-32"):
        Image.open(io.BytesIO(data)).verify()


def test_damaged_metadata_is_left_out_if_asked(picture, model, monkeypatch):
    """The pixels and the alpha plane after it are intact."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = vqcodec.compress(picture, model=model)
    image = Image.open(io.BytesIO(damaged(data, "i")))
    assert np.array_equal(np.asarray(image), np.asarray(vqcodec.decompress(data, model=model)))
    assert image.mode == "RGBA"


def test_verify(picture, model):
    image = Image.open(io.BytesIO(vqcodec.compress(picture, model=model)))
    image.verify()
    with pytest.raises(ValueError, match="closed"):
        image.load()


def test_another_model(picture, tmp_path, small_model):
    other = small_model.tensors | {"prior.0/logits.bias": small_model.tensors["prior.0/logits.bias"] + 1}
    model_file.save(tmp_path / "other.safetensors", small_model.config, other)
    picture.save(tmp_path / "a.vqc", model=tmp_path / "other.safetensors")
    image = Image.open(tmp_path / "a.vqc")
    with pytest.raises(OSError, match="needs model"):
        image.load()
    vqcodec.pillow.use(tmp_path / "other.safetensors")
    assert image.getpixel((0, 0))


def test_what_cannot_be_saved(picture, model, tmp_path):
    with pytest.raises(OSError, match="mode F"):
        Image.new("F", (8, 8)).save(tmp_path / "a.vqc", model=model)
    with pytest.raises(ValueError, match="quality must be a number from 0 to 100"):
        picture.save(tmp_path / "a.vqc", quality=101, model=model)
    assert not list(tmp_path.iterdir())  # Pillow removes the partial file


def test_bombs(picture, model, monkeypatch):
    data = vqcodec.compress(picture, model=model)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    header = container.Header(fingerprint=model.fingerprint[:16], width=1 << 20, height=1 << 20, tile=2048)
    huge = container.write(container.Container(header))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(Image.DecompressionBombError, match="pixels are allowed"):
        Image.open(io.BytesIO(huge)).load()


# -- what tells the rest of a system about the format ------------------------------------


def test_magic_for_file(picture, model, tmp_path):
    """share/vqcodec.magic, with ``file`` itself if it is installed."""
    entry = (SHARE / "vqcodec.magic").read_text()
    assert "0\tstring\t\\x8fVQC\t" in entry and container.MAGIC == b"\x8fVQC"
    assert f"!:mime\t{vqcodec.pillow.MIME}" in entry
    if shutil.which("file"):
        picture.save(tmp_path / "a", "VQC", model=model)
        command = ["file", "--brief", "-m", str(SHARE / "vqcodec.magic"), str(tmp_path / "a")]
        assert subprocess.check_output(command, text=True) == "vqcodec image, version 1\n"
        assert subprocess.check_output([*command[:2], "--mime-type", *command[2:]], text=True) == "image/x-vqcodec\n"


def test_mime_description():
    """share/mime/packages/vqcodec.xml, as freedesktop.org's shared-mime-info requires."""
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    (kind,) = xml.parse(SHARE / "mime/packages/vqcodec.xml").getroot()
    assert kind.attrib == {"type": vqcodec.pillow.MIME}
    match = kind.find(f"{space}magic/{space}match").attrib
    assert (match["offset"], match["value"].encode().decode("unicode_escape").encode("latin-1")) == (
        "0",
        container.MAGIC,
    )
    assert kind.find(f"{space}glob").attrib == {"pattern": "*.vqc"}
