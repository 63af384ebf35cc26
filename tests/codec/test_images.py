"""vqcodec/codec/images.py: many modes, files and arrays are read as documented."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from vqcodec.codec.images import RasterImage, to_array, to_pil
from vqcodec.errors import ImageError, InvalidArgument, LimitExceeded

Orientation = ExifTags.Base.Orientation


def colours(height: int = 6, width: int = 9) -> np.ndarray:
    """Any image, H x W x 3 uint8."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 20, y * 30, 255 - x * 10 - y * 10], 2).astype(np.uint8)


def image(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(colours()).convert(mode)


def saved(picture: Image.Image, format: str, **options) -> io.BytesIO:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    stream.seek(0)
    return stream


# -- modes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "out"),
    [
        ("1", "L"), ("L", "L"), ("LA", "LA"), ("La", "LA"), ("P", "RGB"), ("PA", "RGBA"), ("RGB", "RGB"),
        ("RGBA", "RGBA"), ("RGBa", "RGBA"), ("RGBX", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"),
        ("LAB", "RGB"),
    ],
)  # fmt: skip
def test_modes_convert_as_pillow_does(mode, out):
    if mode in ("La", "RGBa"):  # Pillow can only convert to these from their unmultiplied forms
        given = image({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    elif mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        given = ImageCms.profileToProfile(image(), srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    else:
        given = image(mode)
    picture = to_array(given)
    assert picture.pixels.shape == (6, 9, 3) and picture.pixels.dtype == np.uint8
    assert picture.grey == (out in ("L", "LA"))
    assert (picture.alpha is not None) == ("A" in out)
    back = to_pil(picture)
    assert back.mode == out and back.size == given.size
    if mode == "La":
        given = given.convert("LA")
    assert np.array_equal(np.asarray(back.convert("RGB")), np.asarray(given.convert("RGB")))


@pytest.mark.parametrize(("dtype", "mode"), [("<u2", "I;16"), (">u2", "I;16B"), ("<i4", "I")])
def test_sixteen_bits_are_scaled(dtype, mode):
    values = np.array([[0, 128, 129, 257, 385, 386], [32767, 32768, 65406, 65407, 65534, 65535]], dtype)
    given = Image.frombytes(mode, (6, 2), values.tobytes()) if mode != "I" else Image.fromarray(values)
    assert given.mode == mode
    picture = to_array(given)
    assert picture.grey
    assert np.array_equal(picture.pixels, np.repeat(np.rint(values / 257).astype(np.uint8)[..., None], 3, 2))


def test_sixteen_bit_png_with_a_transparent_value():
    given = Image.fromarray(np.array([[7, 8], [9, 65535]], np.uint16))
    picture = to_array(saved(given, "PNG", transparency=8))
    assert picture.alpha.tolist() == [[255, 0], [255, 255]]
    assert to_pil(picture).mode == "LA"


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_sixteen_bits_are_refused(value):
    with pytest.raises(ImageError, match=r"0\.\.65535, found"):
        to_array(Image.fromarray(np.array([[0, value]], np.int32)))


def test_float_mode_is_refused():
    with pytest.raises(ImageError, match="mode F"):
        to_array(image("F"))


def test_palette_with_transparency():
    given = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    given.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for transparency, alpha in [(1, [[255, 0, 255]]), (bytes([255, 128, 0]), [[255, 128, 0]])]:
        picture = to_array(saved(given, "PNG", transparency=transparency))
        assert picture.alpha.tolist() == alpha
        assert picture.pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (20, 0, 245)), ("L", 30)])
def test_transparent_colour(mode, key):
    picture = to_array(saved(image(mode), "PNG", transparency=key))
    expected = np.where((np.asarray(image(mode)).reshape(6, 9, -1) == key).all(2), 0, 255)
    assert np.array_equal(picture.alpha, expected)
    assert (to_pil(picture).mode) == mode + "A"


def grey_inks() -> bytes:
    """An ICC profile that maps each of four inks to a neutral grey of two thirds of white's lightness."""
    tables = bytes(range(256))
    grid = [bytes([round(255 * (2 / 3) ** sum(ink)), 128, 128]) for ink in itertools.product((0, 1), repeat=4)]
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * tables + b"".join(grid) + 3 * tables
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    table, content, at = b"", b"", 128 + 4 + 3 * 12
    for name, tag in ((b"A2B0", lut), (b"desc", description), (b"wtpt", white)):
        tag += bytes(-len(tag) % 4)
        table += name + struct.pack(">II", at + len(content), len(tag))
        content += tag
    rest = struct.pack(">I", 3) + table + content
    head = struct.pack(">I4sI4s4s4s", 128 + len(rest), b"test", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + rest


def test_inks_go_through_their_profile():
    given = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0]]], np.uint8), "CMYK")
    without = to_array(given)
    assert without.pixels.tolist() == [[[255, 255, 255], [0, 255, 255]]]
    given.info["icc_profile"] = grey_inks()
    picture = to_array(given)
    assert picture.metadata == {} and not picture.grey
    assert np.abs(picture.pixels.astype(int) - [[[255] * 3, [161] * 3]]).max() <= 5  # L* = 66.7, about 161 in sRGB


def test_unusable_profiles_of_inks_are_ignored():
    given = image("CMYK")
    given.info["icc_profile"] = b"not a profile"
    with pytest.warns(UserWarning, match="profile cannot be used"):
        picture = to_array(given)
    assert picture.metadata == {}
    assert np.array_equal(picture.pixels, np.asarray(given.convert("RGB")))


# -- files -------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_files(format, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(saved(image(), format).getvalue())
    expected = np.asarray(Image.open(path).convert("RGB"))
    for given in (path, str(path), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert np.array_equal(to_array(given).pixels, expected)


def test_missing_and_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        to_array(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        to_array(tmp_path)
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        (tmp_path / "wrong.png").write_bytes(content)
        with pytest.raises(ImageError, match=r"wrong\.png: "):
            to_array(tmp_path / "wrong.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_truncated_and_damaged_files(format):
    """Whatever is wrong in a file, the error is an ImageError, or Pillow can still show an image."""
    data = saved(Image.fromarray(colours(40, 50)), format).getvalue()
    rng = np.random.default_rng(0)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in np.linspace(0, len(data) - 1, 40).astype(int):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 5):
                damaged[at] = rng.integers(256)
            for content in (data[:size], bytes(damaged)):
                try:
                    assert to_array(io.BytesIO(content)).pixels.ndim == 3
                except (ImageError, InvalidArgument):
                    refused += 1
    assert refused > 20


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ImageError, match="decompression bomb"):
        to_array(saved(image(), "PNG"))
    assert to_array(saved(image(), "PNG"), 1000, lift=True).pixels.ndim == 3
    assert Image.MAX_IMAGE_PIXELS == 20
    with pytest.raises(LimitExceeded):
        to_array(saved(image(), "PNG"), 1, lift=True)


def test_closed_images_are_refused():
    given = Image.open(saved(image(), "PNG"))
    given.close()
    with pytest.raises(ImageError, match="the image: cannot be read"):
        to_array(given)


def test_animations_give_one_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="only one of the image's 2 frames") as caught:
        picture = to_array(data)
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert len(caught) == 1
    opened = Image.open(data)
    opened.seek(1)
    with pytest.warns(UserWarning):
        assert to_array(opened).pixels[0, 0].tolist() == [0, 0, 255]
    assert opened.tell() == 1


def test_camera_files_with_several_pictures_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = to_array(saved(image(), "MPO", save_all=True, append_images=[image()]))
    assert picture.pixels.shape == (*image().size[::-1], 3)


# -- metadata ----------------------------------------------------------------------------


def exif_of(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "vqcodec"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    if orientation:
        exif[Orientation] = orientation
    read = Image.Exif()  # Pillow's TIFF writer keeps the inner directory only of EXIF that was read
    read.load(exif.tobytes())
    return read


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_orientation_is_applied_once(format, orientation):
    stream = saved(Image.fromarray(colours(16, 24)), format, exif=exif_of(orientation))
    expected = ImageOps.exif_transpose(Image.open(stream))
    picture = to_array(Image.open(stream))
    assert np.array_equal(picture.pixels, np.asarray(expected.convert("RGB")))
    kept = Image.Exif()
    kept.load(picture.metadata["exif"])
    assert kept.get(Orientation, 1) == 1
    assert kept[ExifTags.Base.Make] == "vqcodec"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2026:01:02 03:04:05"
    again = to_array(to_pil(picture))
    assert np.array_equal(again.pixels, picture.pixels)
    assert again.metadata == picture.metadata


def test_exif_is_kept_byte_for_byte():
    """Private camera blocks would not survive rewriting; only the orientation's value changes."""
    exif = exif_of(6).tobytes() + b"private block"
    picture = to_array(saved(image(), "PNG", exif=exif))
    kept = picture.metadata["exif"]
    assert len(kept) == len(exif)
    assert sum(a != b for a, b in zip(kept, exif)) == 1
    assert kept.endswith(b"private block")


def test_orientation_in_xmp_is_applied_once():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6" note="kept"/></x:xmpmeta>'
    given = image()
    given.info["xmp"] = xmp
    picture = to_array(given)
    assert np.array_equal(picture.pixels, np.rot90(colours(), -1))
    assert b"Orientation" not in picture.metadata["xmp"] and b"kept" in picture.metadata["xmp"]
    assert np.array_equal(to_array(to_pil(picture)).pixels, picture.pixels)


def test_broken_exif_costs_no_picture():
    given = image()
    given.info["exif"] = b"Exif\0\0no TIFF"
    with pytest.warns(UserWarning, match="EXIF cannot be read and is left out"):
        picture = to_array(given)
    assert np.array_equal(picture.pixels, colours()) and picture.metadata == {}


@pytest.mark.filterwarnings("ignore")
def test_cut_off_exif_costs_no_picture():
    whole = exif_of(1).tobytes()
    for size in range(len(whole)):
        given = image()
        given.info["exif"] = whole[:size]
        assert np.array_equal(to_array(given).pixels, colours())


def test_profile_and_xmp_are_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        options = {"icc_profile": profile}
        if format != "TIFF":
            options["xmp"] = b"<x:xmpmeta/>"
        if format == "PNG":
            from PIL.PngImagePlugin import PngInfo

            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        picture = to_array(saved(image(), format, **options))
        assert picture.metadata["icc"] == profile, format
        if format != "TIFF":
            assert picture.metadata["xmp"] == b"<x:xmpmeta/>", format
        assert to_pil(picture).info["icc_profile"] == profile


def test_tiff_storage_tags_are_not_metadata():
    assert to_array(saved(image(), "TIFF")).metadata == {}


# -- arrays and tensors ------------------------------------------------------------------


def test_arrays():
    rgb = colours()
    rgba = np.dstack([rgb, rgb[..., 0]])
    assert np.array_equal(to_array(rgb).pixels, rgb)
    assert np.array_equal(to_array(rgba).pixels, rgb) and np.array_equal(to_array(rgba).alpha, rgba[..., 3])
    for grey in (rgb[..., 1], rgb[..., 1:2]):
        picture = to_array(grey)
        assert picture.grey and np.array_equal(picture.pixels, np.repeat(rgb[..., 1:2], 3, 2))
    for view in (rgb[::-1], rgb[:, ::2], np.asfortranarray(rgb), rgb.transpose(1, 0, 2)):
        picture = to_array(view)
        assert np.array_equal(picture.pixels, view) and picture.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), 1.1), r"in \[0, 1\], found 1.1 to 1.1"),
        (np.full((4, 4), np.nan), r"in \[0, 1\], found nan"),
        (np.zeros((4, 4), bool), "uint8, uint16 or float, got bool"),
        (np.zeros((4, 4, 2), np.uint8), r"got shape \(4, 4, 2\)"),
        (np.zeros((3, 4, 4, 4), np.uint8), r"got shape \(3, 4, 4, 4\)"),
        (np.zeros(4, np.uint8), r"got shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"must have pixels, got shape \(0, 4, 3\)"),
        (np.zeros((4, 0), np.uint8), r"must have pixels, got shape \(4, 0\)"),
        ([[1, 2]], "got list"),
        (None, "got NoneType"),
        ("text".encode, "got builtin_function_or_method"),
        (Image.new("RGB", (0, 4)), "must have pixels, got 0 x 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refused_arguments(array, message):
    with pytest.raises(InvalidArgument, match=message):
        to_array(array)


def test_pixels_are_not_the_callers_to_change():
    rgb = colours()
    before = rgb.copy()
    to_pil(to_array(rgb)).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(rgb, before)


def test_to_pil_carries_metadata():
    metadata = {"icc": b"profile", "exif": b"Exif\0\0MM", "xmp": b"<x/>"}
    back = to_pil(RasterImage(colours(), metadata=metadata))
    assert [back.info[name] for name in ("icc_profile", "exif", "xmp")] == list(metadata.values())


def test_does_not_load_torch():
    script = """
import sys, numpy
from vqcodec.codec import images
images.to_array(numpy.zeros((2, 2), "uint8"))
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_bytes_of_image_files_and_float_arrays():
    array = np.asarray(image())
    data = saved(image(), "PNG").getvalue()
    for given in (data, bytearray(data), memoryview(data), array / 255, (array / 255).astype(np.float32)):
        assert np.array_equal(to_array(given).pixels, to_array(array).pixels)
    with pytest.raises(ImageError, match="must be an image that Pillow can read"):
        to_array(b"no image")
