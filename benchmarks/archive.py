"""Whether an archive may rely on the files: a zoo of pictures there and back, memory, and damage.

    python -m benchmarks.archive zoo [--effort 0]
    python -m benchmarks.archive memory [--side 10000] [--efforts 0 3] [--photos FOLDER] [--work FOLDER]
    python -m benchmarks.archive damage [--flips 10000] [--cuts 1000] [--photos FOLDER]

Each prints a table and ends with an error if a promise is broken:

    zoo      size and mode as documented, alpha equal to the bit, metadata to the byte, the decoded code maps
             those that were encoded, the PSNR over a floor
    memory   the peak of a process under MOST for a picture of side x side pixels, everything included but an
             image of the caller's own
    damage   of files with one bit turned, or cut off: a typed error, or exactly the picture that
             docs/FORMAT.md ("Damaged files") promises, within SECONDS of processor time

Without --photos the photograph that comes with vqcodec takes their place.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

import vqcodec
from vqcodec.errors import ImageError, VqcodecError
from vqcodec.tools.demo import PHOTO

#: Bytes that a process may take for a picture of 10,000 x 10,000 pixels.
MOST = 1_500_000_000
#: Seconds of processor time, of all threads together, for a damaged file.
SECONDS = 2.0


class Broken(AssertionError):
    """A promise that was not kept."""


def promise(kept: object, what: str) -> None:
    if not kept:
        raise Broken(what)


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


# -- pictures ------------------------------------------------------------------------------


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A synthetic picture, H x W x 3 uint8: gradients, edges, a little texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / 64
    waves = np.stack([0.5 + 0.35 * np.sin(x * a + seed) * np.cos(y * b) for a, b in ((1, 0.6), (0.8, 1), (0.5, 0.9))], 2)
    waves[(x % 5 - 2) ** 2 + (y % 4 - 1.5) ** 2 < 0.8] = (0.8, 0.35, 0.2)
    waves += rng.normal(0, 0.015, (height, width, 1)).astype(np.float32)
    return (waves.clip(0, 1) * 255).round().astype(np.uint8)


def plane(width: int, height: int) -> np.ndarray:
    """An alpha plane that no lossy coder would keep."""
    return np.random.default_rng(7).integers(0, 256, (height, width), np.uint8)


# -- zoo -----------------------------------------------------------------------------------


@dataclass
class Specimen:
    """What goes in, and what must come out.

    source: what :func:`vqcodec.compress` is given. mode: of the decoded image. pixels: what it is compared with,
    H x W x 3. floor: least PSNR in dB. alpha: H x W, or None. metadata: as Pillow calls it. warns: a warning is due.
    """

    name: str
    source: Any
    mode: str
    pixels: np.ndarray
    floor: float
    alpha: np.ndarray | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    warns: bool = False


SIZES = (
    (1, 1), (1, 2), (2, 1), (7, 9), (16, 16), (17, 15), (63, 63), (64, 64), (65, 65), (65, 63), (3, 5000), (5000, 3),
    (1023, 40), (1024, 40), (1025, 40), (20_000, 20), (20, 20_000), (4000, 3000),
)  # fmt: skip


def sizes(most: int = 1 << 30) -> Iterator[Specimen]:
    """Pictures of all sizes up to ``most`` pixels, width x height."""
    for width, height in SIZES:
        if width * height <= most:
            pixels = scene(width, height)
            yield Specimen(f"{width} x {height}", pixels, "RGB", pixels, 22 if min(width, height) < 8 else 30)


def modes() -> Iterator[Specimen]:
    """Pictures of every mode of Pillow that is supported."""
    width, height = 97, 71
    rgb, alpha = scene(width, height), plane(width, height)
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb).convert("L")
    bits = image.convert("1")
    yield Specimen("1", bits, "L", thrice(np.asarray(bits).astype(np.uint8) * 255), 6)
    yield Specimen("L", grey, "L", thrice(grey), 30)
    yield Specimen("LA", merged(grey, alpha), "LA", thrice(grey), 30, alpha)
    multiplied = merged(grey, alpha).convert("La")
    yield Specimen("La", multiplied, "LA", thrice(multiplied.convert("LA").getchannel("L")), 6, alpha)
    palette = image.quantize(200)
    yield Specimen("P", palette, "RGB", np.asarray(palette.convert("RGB")), 24)
    levels = bytes(range(200))
    shown = np.array(list(levels), np.uint8)[np.asarray(palette)]
    yield Specimen("P, a level for each entry", stored(palette, "PNG", transparency=levels), "RGBA",
                   np.asarray(palette.convert("RGB")), 24, shown)
    yield Specimen("P, one entry transparent", stored(palette, "PNG", transparency=3), "RGBA",
                   np.asarray(palette.convert("RGB")), 24, np.where(np.asarray(palette) == 3, 0, 255).astype(np.uint8))
    yield Specimen("RGB", image, "RGB", rgb, 30)
    yield Specimen("RGBA", merged(image, alpha), "RGBA", rgb, 30, alpha)
    yield Specimen("RGBX", image.convert("RGBX"), "RGB", rgb, 30)
    for mode in ("CMYK", "YCbCr", "HSV"):
        given = image.convert(mode)
        yield Specimen(mode, given, "RGB", np.asarray(given.convert("RGB")), 28)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    given = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert given is not None
    yield Specimen("LAB", given, "RGB", rgb, 24)
    deep = np.asarray(grey).astype(np.uint16) * 257
    noise = np.random.default_rng(1).integers(-128, 129, deep.shape)  # less than half a step of 8 bits
    deep = (deep + noise).clip(0, 65535).astype(np.uint16)
    yield Specimen("I;16", Image.fromarray(deep), "L", thrice(grey), 30)
    yield Specimen("I", Image.fromarray(deep.astype(np.int32)), "L", thrice(grey), 30)
    yield Specimen("16-bit grey PNG", stored(Image.fromarray(deep), "PNG"), "L", thrice(grey), 30)
    yield Specimen("16-bit grey TIFF", stored(Image.fromarray(deep), "TIFF"), "L", thrice(grey), 30)
    yield Specimen("16-bit RGB PNG", deep_png(rgb), "RGB", rgb, 30)
    yield Specimen("uint8 array, RGBA", np.dstack([rgb, alpha]), "RGBA", rgb, 30, alpha)


def files() -> Iterator[Specimen]:
    """Files with more than pixels in them."""
    width, height = 97, 71
    image = Image.fromarray(scene(width, height))
    for format in ("GIF", "WEBP", "PNG"):
        frames = [Image.fromarray(scene(width, height, seed)) for seed in (1, 2)]
        data = stored(image, format, save_all=True, append_images=frames, duration=100, **({"lossless": True} if format == "WEBP" else {}))
        first = Image.open(io.BytesIO(data))
        opaque = np.full((height, width), 255, np.uint8) if first.mode == "RGBA" else None  # as Pillow reads all animated WebP
        yield Specimen(f"animated {format}", data, "RGB" if opaque is None else "RGBA", np.asarray(first.convert("RGB")), 24, opaque,
                       warns=True)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.ImageDescription] = "somebody", "a scene"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>\xc3\xa9</a></x:xmpmeta>'
    metadata = {"icc_profile": icc, "exif": b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0"), "xmp": xmp}
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    for format, options in (("PNG", {"pnginfo": text}), ("JPEG", {"quality": 95, "subsampling": 0, "xmp": xmp}),
                            ("WEBP", {"lossless": True, "xmp": xmp})):
        data = stored(image, format, icc_profile=icc, exif=exif, **options)
        yield Specimen(f"{format} with ICC, EXIF, XMP", data, "RGB", np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 28,
                       metadata=metadata)
    turned = Image.Exif()
    for orientation in range(2, 9):
        turned[ExifTags.Base.Orientation] = orientation
        stands = orientation >= 5
        data = stored(image, "JPEG", exif=turned, quality=95, subsampling=0)
        plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        flipped = {2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2), 6: plain[::-1].transpose(1, 0, 2),
                   7: plain[::-1, ::-1].transpose(1, 0, 2), 8: plain[:, ::-1].transpose(1, 0, 2)}[orientation]
        upright = Image.Exif()
        upright[ExifTags.Base.Orientation] = 1
        assert flipped.shape[:2] == ((width, height) if stands else (height, width))
        yield Specimen(f"JPEG, EXIF orientation {orientation}", data, "RGB", flipped, 28,
                       metadata={"exif": b"Exif\0\0" + upright.tobytes().removeprefix(b"Exif\0\0")})


def thrice(channel: Any) -> np.ndarray:
    return np.repeat(np.asarray(channel)[..., None], 3, 2)


def merged(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def stored(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def deep_png(rgb: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    height, width, _ = rgb.shape
    rows = (rgb.astype(">u2") * 257).astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(tag: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def there_and_back(specimen: Specimen, *, quality: float = 80, effort: int = 0, model: Any = None) -> tuple[int, float]:
    """Size of the file and PSNR. Raises :class:`Broken`."""
    def source() -> Any:
        return io.BytesIO(specimen.source) if isinstance(specimen.source, bytes) else specimen.source

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = vqcodec.compress(source(), quality=quality, effort=effort, model=model)
        promise(bool(caught) == specimen.warns, f"warnings: {[str(w.message) for w in caught]}")
        encoded = vqcodec.encode_maps(source(), quality=quality, effort=effort, model=model)
    back = vqcodec.decompress(data, model=model)
    height, width = specimen.pixels.shape[:2]
    promise(back.size == (width, height), f"size {back.size}, not {(width, height)}")
    promise(back.mode == specimen.mode, f"mode {back.mode}, not {specimen.mode}")
    alpha = np.asarray(back.getchannel("A")) if "A" in back.mode else None
    promise(same(alpha, specimen.alpha), "alpha differs")
    metadata = {name: value for name, value in back.info.items() if name in ("icc_profile", "exif", "xmp")}
    promise(metadata == specimen.metadata, f"metadata: {metadata}, not {specimen.metadata}")
    decoded = vqcodec.decode_maps(data, model=model)
    promise(all(np.array_equal(a, b) for a, b in zip(decoded, encoded)) and not any(m.any() for m in encoded[len(decoded) :]),
            "code maps differ")
    error = np.mean((np.asarray(back.convert("RGB"), np.float64) - specimen.pixels) ** 2)
    reached = 10 * np.log10(255**2 / max(error, 1e-3))
    promise(reached >= specimen.floor, f"{reached:.1f} dB, not {specimen.floor}")
    return len(data), reached


def refused(model: Any = None) -> Iterator[tuple[str, Image.Image]]:
    """Pictures that have no agreed meaning in 8 bits."""
    yield "F", Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    yield "I beyond 16 bits", Image.fromarray(np.array([[0, 65536]], np.int32))
    yield "I below 0", Image.fromarray(np.array([[0, -1]], np.int32))


def zoo(effort: int, model: Any = None) -> None:
    print(f"{'picture':36} {'bytes':>9} {'dB':>6} {'s':>7}")
    count = 0
    for specimens in (sizes(), modes(), files()):
        for specimen in specimens:
            begun = time.perf_counter()
            try:
                size, decibels = there_and_back(specimen, effort=effort, model=model)
            except Broken as error:
                raise Broken(f"{specimen.name}: {error}") from None
            print(f"{specimen.name:36} {size:9,} {decibels:6.1f} {time.perf_counter() - begun:7.2f}", flush=True)
            count += 1
    for name, image in refused():
        try:
            vqcodec.compress(image, model=model)
        except ImageError as error:
            print(f"{name:36} refused: {error}")
        else:
            raise Broken(f"{name} was not refused")
    print(f"\n{count} pictures there and back: all promises kept")


# -- memory --------------------------------------------------------------------------------


def big_picture(path: Path, side: int, photos: Path | None) -> None:
    """A picture of side x side pixels, tiled with photographs and synthetic scenes: ``path``.npy and .png."""
    names = sorted(photos.iterdir())[:40] if photos else [PHOTO]
    pixels = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.uint8, (side, side, 3))
    rng, number, band = np.random.default_rng(0), 0, 500
    for y in range(0, side, band):
        x, rows = 0, min(band, side - y)
        while x < side:
            number += 1
            part = scene(700, band, number) if number % 4 == 0 else np.asarray(Image.open(names[number % len(names)]).convert("RGB"))
            at = rng.integers(0, max(1, part.shape[0] - rows + 1))
            part = part[at : at + rows, : side - x]
            pixels[y : y + len(part), x : x + part.shape[1]] = part
            x += part.shape[1]
    pixels.flush()
    Image.MAX_IMAGE_PIXELS = None
    Image.fromarray(pixels).save(path.with_suffix(".png"), compress_level=1)


def peak(command: list[str]) -> tuple[float, int]:
    """Seconds and peak of resident bytes of a process of its own."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    promise(process.returncode == 0, f"{' '.join(command)}: {said}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def memory(side: int, efforts: list[int], photos: Path | None, work: Path) -> None:
    big, python, cli = work / "big", [sys.executable, "-c"], [sys.executable, "-m", "vqcodec"]
    maker = f"from pathlib import Path; from benchmarks.archive import big_picture as b; b(Path({str(big)!r}), {side}, "
    peak([*python, maker + (f"Path({str(photos)!r}))" if photos else "None)")])
    imports = "import numpy as np, vqcodec, PIL.Image; PIL.Image.MAX_IMAGE_PIXELS = None; "
    runs: list[tuple[str, list[str]]] = []
    held = "compress(PIL image), effort 0"  # the caller keeps an image, which takes Pillow four bytes a pixel
    for effort in efforts:
        runs.append((f"compress(array), effort {effort}", [*python, (
            f"{imports}open('{big}.vqc', 'wb').write(vqcodec.compress(np.load('{big}.npy'), effort={effort}))")]))
    runs += [
        ("vqcodec compress -e 0 big.png", [*cli, "compress", "-f", "-e", "0", f"{big}.png", f"{big}.vqc"]),
        (held, [*python, f"{imports}vqcodec.compress(PIL.Image.open('{big}.png'), effort=0)"]),
        ("for strip in open().rows()", [*python, f"{imports}sum(strip.size for strip in vqcodec.open('{big}.vqc').rows())"]),
        ("decompress()", [*python, f"{imports}vqcodec.decompress('{big}.vqc')"]),
        ("vqcodec decompress big.vqc big.ppm", [*cli, "decompress", "-f", f"{big}.vqc", f"{big}.ppm"]),
        ("vqcodec decompress big.vqc back.png", [*cli, "decompress", "-f", f"{big}.vqc", f"{work}/back.png"]),
        ("vqcodec decompress --scale 8", [*cli, "decompress", "-f", "--scale", "8", f"{big}.vqc", f"{work}/small.png"]),
    ]
    print(f"{side} x {side} pixels; peak of the whole process, at most {MOST / 1e6:,.0f} MB\n\n{'':38} {'s':>7} {'peak MB':>8}")
    for name, command in runs:
        seconds, most = peak(command)
        print(f"{name:38} {seconds:7.1f} {most / 1e6:8,.0f}", flush=True)
        promise(most < MOST + 4 * side**2 * (name == held), f"{name}: {most} bytes")


# -- damage --------------------------------------------------------------------------------


@dataclass
class Victim:
    """A sound file, and the pictures that its first maps give."""

    name: str
    data: bytes
    chunks: list[dict[str, Any]]
    pictures: dict[int, np.ndarray]  #: by the number of maps
    alpha: np.ndarray | None
    model: Any = None

    @classmethod
    def of(cls, name: str, image: Image.Image, model: Any = None, **options: Any) -> Victim:
        data = vqcodec.compress(image, effort=0, model=model, **options)
        found = vqcodec.info(data)
        pictures = {n: np.asarray(vqcodec.decompress(data, maps=n, model=model).convert("RGB")) for n in range(1, found["maps"])}
        whole = vqcodec.decompress(data, model=model)
        pictures[found["maps"]] = np.asarray(whole.convert("RGB"))
        return cls(name, data, found["chunks"], pictures, np.asarray(whole.getchannel("A")) if "A" in whole.mode else None, model)

    def expected(self, at: int, cut: bool) -> set[tuple[int, bool]]:
        """Number of maps and whether there is alpha, of the pictures that damage at a byte may leave; 0 maps: an error."""
        whole = [c for c in self.chunks if c["offset"] + c["bytes"] <= at]
        hit = next((c["tag"] for c in self.chunks if c["offset"] <= at < c["offset"] + c["bytes"]), "magic")
        maps, alpha = sum(c["tag"] == "M" for c in whole), any(c["tag"] == "A" for c in whole)
        if cut or hit not in "iex":
            return {(maps, alpha if maps else False)}
        return {(0, False), (len(self.pictures), self.alpha is not None)}


def victims(photos: Path | None = None, model: Any = None) -> list[Victim]:
    """Small files of all kinds: with and without tiles, alpha, metadata and colours."""
    names = sorted(photos.glob("*.png"))[:4] if photos else [PHOTO]
    crops = [Image.open(names[i % len(names)]).convert("RGB").crop((60, 40, 60 + w, 40 + h))
             for i, (w, h) in enumerate([(96, 80), (160, 130), (112, 64), (150, 70)])]
    crops[0].info |= {"icc_profile": b"a profile" * 20, "xmp": b"<x/>"}
    crops[1] = merged(crops[1], np.add.outer(np.arange(130), np.arange(160)).astype(np.uint8))
    crops[1].info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    return [
        Victim.of("one tile, ICC, XMP", crops[0], model, quality=60),
        Victim.of("tiles, alpha, EXIF", crops[1], model, quality=50, tile=64),
        Victim.of("one tile, grey", crops[2].convert("L"), model, quality=80),
        Victim.of("tiles", crops[3], model, quality=30, tile=64),
    ]


def injured(victim: Victim, data: bytes, expected: set[tuple[int, bool]], partial: bool) -> str:
    """What became of a damaged file: "error", "coarser" or "whole". Raises :class:`Broken`."""
    try:
        image = vqcodec.decompress(data, partial=partial, model=victim.model)
    except VqcodecError:
        promise(not partial or (0, False) in expected, "an error, although something is whole")
        return "error"
    promise(partial, "damage was not noticed")
    pixels, alpha = np.asarray(image.convert("RGB")), np.asarray(image.getchannel("A")) if "A" in image.mode else None
    for maps, with_alpha in expected - {(0, False)}:
        if np.array_equal(pixels, victim.pictures[maps]) and (alpha is not None) == with_alpha:
            promise(alpha is None or same(alpha, victim.alpha), "alpha differs")
            return "whole" if maps == len(victim.pictures) else "coarser"
    raise Broken(f"the picture is not that of {expected}")


def damages(victim: Victim, flips: int, cuts: int, seed: int = 0) -> Iterator[tuple[str, bytes, set[tuple[int, bool]]]]:
    """Kind, damaged file, what may come of it."""
    rng = np.random.default_rng(seed)
    for bit in rng.integers(0, 8 * len(victim.data), flips):
        at = int(bit) // 8
        data = bytearray(victim.data)
        data[at] ^= 1 << (bit % 8)
        yield "bit", bytes(data), victim.expected(at, cut=False)
    for size in rng.integers(0, len(victim.data), cuts):
        yield "cut", victim.data[:size], victim.expected(int(size), cut=True)


def damage(flips: int, cuts: int, photos: Path | None, model: Any = None) -> None:
    found = victims(photos, model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{'file':22} {'bytes':>6} {'':4} {'partial':8} {'cases':>6} {'error':>6} {'coarser':>8} {'whole':>6} {'slowest s':>10}")
    for victim in found:
        outcomes: dict[tuple[str, bool], Counter[str]] = {(kind, partial): Counter() for kind in ("bit", "cut") for partial in (False, True)}
        slowest = dict.fromkeys(outcomes, 0.0)
        for kind, data, expected in damages(victim, flips // len(found), cuts // len(found)):
            for partial in (False, True):
                begun = time.process_time()
                outcomes[kind, partial][injured(victim, data, expected, partial)] += 1
                slowest[kind, partial] = max(slowest[kind, partial], time.process_time() - begun)
        for (kind, partial), counted in outcomes.items():
            print(f"{victim.name:22} {len(victim.data):6,} {kind:4} {'yes' if partial else 'no':8} {counted.total():6} "
                  f"{counted['error']:6} {counted['coarser']:8} {counted['whole']:6} {slowest[kind, partial]:10.3f}", flush=True)
            promise(slowest[kind, partial] < SECONDS, f"{victim.name}: {slowest[kind, partial]:.1f} s")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\npeak memory {before / 1e3:,.0f} MB before, {after / 1e3:,.0f} MB after")
    promise(after - before < 100e3, "memory grew")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_subparsers(dest="what", required=True)
    p = add.add_parser("zoo")
    p.add_argument("--effort", type=int, default=0)
    p = add.add_parser("memory")
    p.add_argument("--side", type=int, default=10_000)
    p.add_argument("--efforts", type=int, nargs="*", default=[0, 3])
    p.add_argument("--photos", type=Path)
    p.add_argument("--work", type=Path)
    p = add.add_parser("damage")
    p.add_argument("--flips", type=int, default=10_000)
    p.add_argument("--cuts", type=int, default=1_000)
    p.add_argument("--photos", type=Path)
    args = parser.parse_args()
    if args.what == "zoo":
        zoo(args.effort)
    elif args.what == "damage":
        damage(args.flips, args.cuts, args.photos)
    else:
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            memory(args.side, args.efforts, args.photos, Path(work))


if __name__ == "__main__":
    main()
