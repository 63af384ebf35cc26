"""The command line's arguments. The manual page and the shell completions are generated from them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vqcodec import __version__
from vqcodec.codec.options import EncodeOptions

Number = TypeVar("Number", int, float)

_EXAMPLES = """\
examples:
  vqcodec compress photo.png                    writes photo.vqc
  vqcodec compress -q 25 photo.png small.vqc
  vqcodec compress -r photos -o compressed/     all cores, all subfolders
  vqcodec compress --lossless scan.tiff
  vqcodec compress --target-size 20k *.jpg -o 'small/{stem}.vqc'
  vqcodec decompress photo.vqc back.png
  cat photo.vqc | vqcodec decompress - - | display
  vqcodec compare photo.png photo.vqc -o side.png
  vqcodec verify *.vqc
  vqcodec sample flower-roses -n 4 --seed 1 -o roses.png
"""
_NAMES = """\
Two names are IN OUT if the second can only be an output: {output}. Otherwise all names are
inputs. A folder stands for the files in it. - is standard input or output.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="vqcodec",
        description="A learned image codec that is also a generative model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-V", "--version", action="version", version=f"vqcodec {__version__}")
    add = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    model.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: all cores)")
    model.add_argument("--device", default="cpu", metavar="DEV", help="cpu, cuda or cuda:N (default: cpu)")
    model.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    forced = argparse.ArgumentParser(add_help=False)
    forced.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    _compress(
        _coding(
            add,
            "compress",
            [model, forced],
            "convert images to .vqc",
            "Compress images.",
            "any image that Pillow can read, or a folder",
            "- or a name with .vqc",
        )
    )
    _decompress(
        _coding(
            add,
            "decompress",
            [model, forced],
            "convert .vqc to images",
            "Decompress files; the extension of OUT determines the format; PNG for - and for folders.",
            "a .vqc file, or a folder",
            "not a folder, and not a name with .vqc",
        )
    )
    _sample(
        add.add_parser(
            "sample",
            parents=[model, forced],
            help="draw new images of a class",
            description="Draw new images. The same arguments give the same code maps on every machine.",
        )
    )
    limits = argparse.ArgumentParser(add_help=False)
    _limits(limits, "pixels", "chunks", "metadata", "map_bytes", "work", "memory")
    _verify(
        add.add_parser(
            "verify",
            parents=[model, limits],
            help="check that .vqc files are intact",
            description="Check every CRC, then decode the code maps. Prints one line per file; the exit status is 1 if any is bad.",
        )
    )
    _compare(
        add.add_parser(
            "compare",
            parents=[model, forced],
            help="show what compression did to an image",
            description="Size, bits per pixel, PSNR and MS-SSIM (the latter for images of at least 176 x 176 pixels).",
        )
    )
    _bench(
        add.add_parser(
            "bench",
            parents=[model, forced],
            help="compare with other codecs",
            description="Compress the images of a folder with vqcodec, JPEG, JPEG 2000, WebP, AVIF and JPEG XL: sizes, PSNR, MS-SSIM, "
            "SSIMULACRA2, BD-rates, times and memory. Prints tables and writes one page that shows everything. "
            "pip install 'vqcodec[bench]' adds the optional codecs and metrics.",
        )
    )
    p = add.add_parser("info", help="show what .vqc files contain", description="Check files and list their chunks.")
    p.add_argument("input", metavar="FILE", nargs="+")
    p.add_argument("--json", action="store_true", help="print JSON")
    _limits(p, "chunks", "metadata", "map_bytes")
    p = add.add_parser(
        "classes", help="list the classes of a model", description="Print the number and the name of every class."
    )
    p.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    p.add_argument("--json", action="store_true", help="print a JSON list of the names")
    p = add.add_parser(
        "demo",
        help="a tour, using a photograph that ships with vqcodec",
        description="Compress, decompress and sample; prints a table and writes images and a contact sheet.",
    )
    p.add_argument("-o", "--output", metavar="FOLDER", type=Path, default=Path("out"), help="default: out")
    p.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    p = add.add_parser(
        "completion",
        help="shell completion",
        description=("Print a shell's completion script for vqcodec; docs/CLI.md says where to put it."),
    )
    p.add_argument("shell", choices=["bash", "zsh", "fish"])
    p = add.add_parser("man", help="the manual page", description="Print the manual page: vqcodec man | man -l -")
    return top


# -- commands ----------------------------------------------------------------------------


def _coding(
    add: Any,
    name: str,
    parents: list[argparse.ArgumentParser],
    summary: str,
    description: str,
    inputs: str,
    outputs: str,
) -> argparse.ArgumentParser:
    """What compress and decompress share."""
    p: argparse.ArgumentParser = add.add_parser(
        name, parents=parents, help=summary, description=f"{description} {_NAMES.format(output=outputs)}",
        usage=f"vqcodec {name} [options] IN [OUT]\n       vqcodec {name} [options] IN ... [-o OUT]",
    )  # fmt: skip
    p.add_argument("files", metavar="IN", nargs="+", help=inputs)
    p.add_argument(
        "-o", "--output", metavar="OUT",
        help="a folder (end a new one with /), a file, or a name containing the input's {name}, {stem} or {parent} "
             "(default: next to the input)",
    )  # fmt: skip
    p.add_argument("-r", "--recursive", action="store_true", help="include subfolders")
    p.add_argument(
        "-j", "--jobs", type=_positive, metavar="N", help="files processed in parallel (default: --threads; 1 on a GPU)"
    )
    p.add_argument("--json", action="store_true", help="print one line of JSON per file, errors included")
    return p


def _compress(p: argparse.ArgumentParser) -> None:
    chosen = p.add_mutually_exclusive_group()
    chosen.add_argument(
        "-q",
        "--quality",
        type=_quality,
        metavar="Q",
        help=f"0 (smallest) to 100 (lossless; default: {EncodeOptions.quality})",
    )
    chosen.add_argument(
        "--target-size",
        dest="target_bytes",
        type=_bytes,
        metavar="BYTES",
        help="instead of a quality: the largest file size allowed, such as 20k or 1.5M (k is 1000)",
    )
    chosen.add_argument("--target-psnr", type=float, metavar="DB", help="instead of a quality: the lowest PSNR allowed")
    chosen.add_argument(
        "--lossless", action="store_const", const=True, help="instead of a quality: the exact pixels, 16-bit ones too"
    )
    chosen.add_argument(
        "--max-error",
        type=_natural,
        metavar="N",
        help="instead of a quality: no sample differs by more than N, from 1 to 64",
    )
    p.add_argument(
        "-e", "--effort", type=_natural, metavar="E", help=f"0 (fastest) to 9 (default: {EncodeOptions.effort})"
    )
    p.add_argument(
        "--class",
        dest="class_id",
        metavar="CLASS",
        help="what the image shows, if it is a class of the model: name or number; saves some bytes",
    )
    p.add_argument("--tile", type=_natural, metavar="PIXELS", help="side of a tile, a multiple of 64; 0 for one tile")
    p.add_argument(
        "--strip", dest="metadata", action="store_const", const=False, help="leave out ICC profile, EXIF and XMP"
    )
    _limits(p, "pixels")


def _decompress(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--partial", action="store_const", const=True, help="decode a damaged or truncated file to a coarser image"
    )
    p.add_argument(
        "--region", type=_region, metavar="X0,Y0,X1,Y1", help="only these pixels: x0 <= x < x1, y0 <= y < y1"
    )
    p.add_argument("--scale", type=_positive, metavar="N", help="reduce by 2, 4, 8 or 16; faster than full size")
    p.add_argument("--maps", type=_positive, metavar="N", help="use only the first N code maps: a coarser image")
    _limits(p, "pixels", "chunks", "metadata", "map_bytes", "work", "memory")


def _sample(p: argparse.ArgumentParser) -> None:
    p.add_argument("class_id", metavar="CLASS", help="name or number; 0 for no class")
    p.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="one image with all samples in a grid; or, with %%d in the name, one file each",
    )
    p.add_argument("-n", type=_positive, default=1, metavar="N", help="number of samples (default: 1)")
    p.add_argument("--seed", type=_natural, default=0, metavar="S", help="random seed (default: 0)")
    p.add_argument("--size", type=_size, default=(256, 256), metavar="WxH", help="size in pixels (default: 256x256)")
    p.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="below 1: more typical and duller (default: 1)"
    )
    p.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the likeliest codes with this total probability (default: 1)",
    )
    p.add_argument(
        "--candidates",
        type=_positive,
        metavar="M",
        help="draw M and keep the N that a classifier rates truest to the class",
    )


def _verify(p: argparse.ArgumentParser) -> None:
    p.add_argument("files", metavar="FILE", nargs="+", help="a .vqc file, or a folder")
    p.add_argument("-r", "--recursive", action="store_true", help="include subfolders")
    p.add_argument("--quick", action="store_true", help="check only the CRCs; needs no model")
    p.add_argument("--json", action="store_true", help="print one line of JSON per file")


def _compare(p: argparse.ArgumentParser) -> None:
    p.add_argument("original", metavar="ORIGINAL", help="any image that Pillow can read")
    p.add_argument("file", metavar="FILE", help="a .vqc file, or another image, such as a JPEG")
    p.add_argument("-o", "--output", metavar="OUT", help="write both images side by side")
    p.add_argument("--json", action="store_true", help="print JSON")


_MOST = {
    "pixels": ("N", "width times height; 100M is 100,000,000 (default: 268M)"),
    "work": ("N", "multiply-adds, beside 1.5G for every byte of the file (default: 200G)"),
    "chunks": ("N", "chunks in the file (default: 1024)"),
    "metadata": ("BYTES", "ICC profile, EXIF or XMP, after decompression (default: 16 MiB)"),
    "map_bytes": ("BYTES", "one code map in the file (default: 1 GiB)"),
    "memory": ("BYTES", "working memory for decoding, as estimated beforehand (default: 8 GiB)"),
}


def _limits(p: argparse.ArgumentParser, *names: str) -> None:
    """``--max-...`` for some fields of :class:`vqcodec.format.container.Limits`."""
    for name in names:
        value, text = _MOST[name]
        kind = _bytes if value == "BYTES" else _count
        p.add_argument(f"--max-{name.replace('_', '-')}", type=kind, metavar=value, help=f"reject more: {text}")


def _bench(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="FOLDER", help="folder of images, preferably stored losslessly")
    p.add_argument("-o", "--output", metavar="OUT", default="bench.html", help="the page (default: bench.html)")
    p.add_argument("--json", metavar="OUT", help="write all the numbers as JSON")
    p.add_argument("--png", metavar="OUT", help="write the curves as an image; needs matplotlib")
    p.add_argument("--quick", action="store_true", help="at most six images, fewer settings and rounds")
    p.add_argument(
        "--shown",
        type=_positive,
        metavar="N",
        help="images behind the page's slider, a few megabytes each (default: 4)",
    )
    p.add_argument(
        "-e",
        "--effort",
        type=_natural,
        default=EncodeOptions.effort,
        metavar="E",
        help=f"effort of vqcodec, 0 (fastest) to 9 (default: {EncodeOptions.effort})",
    )
    p.add_argument(
        "-j",
        "--jobs",
        type=_positive,
        metavar="N",
        help="images processed in parallel (default: all cores; 1 on a GPU)",
    )


# -- values ------------------------------------------------------------------------------


def _quality(text: str) -> float:
    value = _parsed(float, text, "a number from 0 to 100")
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 100, got {text}")
    return int(value) if value.is_integer() else value


def _natural(text: str, least: int = 0) -> int:
    value = _parsed(int, text, "a whole number")
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return value


def _positive(text: str) -> int:
    return _natural(text, least=1)


def _bytes(text: str) -> int:
    return _count(text, "a number of bytes")


def _count(text: str, what: str = "a number") -> int:
    found = re.fullmatch(r"([0-9]*\.?[0-9]+|[0-9]+\.)\s*([kmg]?)(i?)(b?)", text.strip().lower())
    if found is None or (found[3] and not found[2]):
        raise argparse.ArgumentTypeError(f"must be {what} such as 900, 20k, 1.5M or 8GiB, got {text!r}")
    value = float(found[1]) * (1024 if found[3] else 1000) ** " kmg".index(found[2] or " ")
    if not 1 <= value < 1 << 60:
        raise argparse.ArgumentTypeError(f"must be {what} from 1, got {text}")
    return int(value)


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"must be WxH such as 256x256, got {text}")
    return int(width), int(height)


def _region(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"must be X0,Y0,X1,Y1 such as 0,0,256,256, got {text}")
    return tuple(int(number) for number in numbers)


def _parsed(kind: Callable[[str], Number], text: str, what: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None
