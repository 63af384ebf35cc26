"""The ``vqcodec`` command.

Exit status: 0 done; 1 failed, one line on standard error says why; 2 wrong usage; 130
interrupted. What pipes goes to standard output, all talk to standard error.

Heavy modules are imported where they are needed, so that ``--help``, ``--version`` and
``info`` answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vqcodec import __version__, files
from vqcodec.errors import VqcodecError
from vqcodec.files import STANDARD

if TYPE_CHECKING:
    import PIL.Image

Number = TypeVar("Number", int, float)

_EXAMPLES = """\
examples:
  vqcodec compress photo.png                    writes photo.vqc
  vqcodec compress -q 25 photo.png small.vqc
  vqcodec decompress photo.vqc back.png
  cat photo.vqc | vqcodec decompress - - | display
  vqcodec info photo.vqc
  vqcodec sample flower-roses -n 4 --seed 1 -o roses.png
"""


class Failure(Exception):
    """Something that the user should be told in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. (argparse itself exits, with 0 or 2.)"""
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings(), _terminated_as_interrupted():
        warnings.showwarning = lambda message, *_, **__: _say(f"vqcodec: warning: {message}")
        try:
            arguments.run(arguments)
            if sys.stdout:
                sys.stdout.flush()
        except (VqcodecError, Failure) as error:
            return _failed(str(error))
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return _failed(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        except MemoryError:
            return _failed("not enough memory for this picture")
        except KeyboardInterrupt:
            _say("vqcodec: interrupted")
            return 130
    return 0


# -- arguments ---------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vqcodec",
        description="A learned image codec that is also a generative model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"vqcodec {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    common.add_argument("--threads", type=_positive, metavar="N", help="processor threads (default: all cores)")
    common.add_argument("--device", default="cpu", metavar="DEV", help="cpu, cuda or cuda:N (default: cpu)")
    common.add_argument("--quiet", action="store_true", help="report nothing but warnings and errors")
    common.add_argument("-f", "--force", action="store_true", help="overwrite existing files")

    p = commands.add_parser(
        "compress", parents=[common], help="picture to .vqc",
        description="Compress a picture. As a file name, - is standard input or output.",
    )  # fmt: skip
    p.add_argument("input", metavar="IN", help="any picture that Pillow reads")
    p.add_argument("output", metavar="OUT", nargs="?", help="default: IN with the extension .vqc")
    p.add_argument("-q", "--quality", type=_quality, default=50, metavar="Q", help="0 (smallest) to 100 (default: 50)")
    p.add_argument("-e", "--effort", type=_natural, default=3, metavar="E", help="0 (fastest) to 9 (default: 3)")
    p.add_argument(
        "--class", dest="class_id", metavar="CLASS",
        help="what the picture shows, if it is a class of the model: name or number; saves some bytes",
    )  # fmt: skip
    p.set_defaults(run=_compress)

    p = commands.add_parser(
        "decompress", parents=[common], help=".vqc to picture",
        description="Decompress a file. As a file name, - is standard input or output.",
    )  # fmt: skip
    p.add_argument("input", metavar="IN", help="a .vqc file")
    p.add_argument(
        "output", metavar="OUT", nargs="?",
        help="the extension chooses the format, PNG for - (default: IN with the extension .png)",
    )  # fmt: skip
    p.add_argument("--partial", action="store_true", help="of a damaged or truncated file, give the coarser picture")
    p.set_defaults(run=_decompress)

    p = commands.add_parser(
        "sample", parents=[common], help="draw new pictures of a class",
        description="Draw new pictures. The same arguments give the same code maps on every machine.",
    )  # fmt: skip
    p.add_argument("class_id", metavar="CLASS", help="name or number; 0 for none")
    p.add_argument(
        "-o", "--output", metavar="OUT", required=True,
        help="one picture, all on a grid; or, with %%d in the name, a file for each",
    )  # fmt: skip
    p.add_argument("-n", type=_positive, default=1, metavar="N", help="how many (default: 1)")
    p.add_argument("--seed", type=_natural, default=0, metavar="S", help="which (default: 0)")
    p.add_argument("--size", type=_size, default=(256, 256), metavar="WxH", help="pixels (default: 256x256)")
    p.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="below 1: likelier and duller (default: 1)"
    )
    p.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest codes with this share (default: 1)"
    )
    p.add_argument(
        "--candidates", type=_positive, metavar="M",
        help="draw M and keep the N that a classifier thinks truest to the class",
    )  # fmt: skip
    p.set_defaults(run=_sample)

    p = commands.add_parser(
        "info", help="what a .vqc file says of itself", description="Check a file and list its chunks."
    )
    p.add_argument("input", metavar="FILE")
    p.add_argument("--json", action="store_true", help="for machines")
    p.set_defaults(run=_info)

    p = commands.add_parser(
        "demo", help="a tour on a photograph that ships with vqcodec",
        description="Compress, decompress and sample; prints a table, writes pictures and one contact sheet.",
    )  # fmt: skip
    p.add_argument("-o", "--output", metavar="FOLDER", type=Path, default=Path("out"), help="default: out")
    p.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    p.set_defaults(run=_demo)
    return parser


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


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"must be WxH such as 256x256, got {text}")
    return int(width), int(height)


def _parsed(kind: Callable[[str], Number], text: str, what: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None


# -- commands ----------------------------------------------------------------------------


def _compress(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".vqc")
    _check_new(output, arguments.force)
    with _stage("loading", arguments):
        from vqcodec import images

        standard = arguments.input == STANDARD
        picture = images.to_array(io.BytesIO(files.read(STANDARD)) if standard else arguments.input)
        codec = _codec(arguments)
    begun = time.perf_counter()
    with _stage("compressing", arguments):
        data = codec.compress(picture, quality=arguments.quality, effort=arguments.effort, class_id=arguments.class_id)
    seconds = time.perf_counter() - begun
    _write(output, data, arguments.force)
    height, width = picture.pixels.shape[:2]
    rate = _rate(len(data), width, height)
    _report(arguments, f"{output}: {width} x {height}, {len(data):,} bytes, {rate}, {seconds:.2f} s")


def _decompress(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".png")
    _check_new(output, arguments.force)
    data = files.read(arguments.input)
    with _stage("loading", arguments):
        format = _format(output)
        codec = _codec(arguments)
        from vqcodec import container, images
    begun = time.perf_counter()
    with _stage("decompressing", arguments):
        image = images.to_pil(codec.decompress(data, partial=arguments.partial))
    seconds = time.perf_counter() - begun
    if arguments.partial and (error := container.read(data, partial=True).error):
        _say(f"vqcodec: warning: the picture is not complete: {error}")
    _write(output, _encoded(image, format), arguments.force)
    rate = _rate(len(data), image.width, image.height)
    _report(arguments, f"{output}: {image.width} x {image.height}, from {len(data):,} bytes, {rate}, {seconds:.2f} s")


def _sample(arguments: argparse.Namespace) -> None:
    each = "%d" in arguments.output
    names = [arguments.output.replace("%d", str(i)) for i in range(arguments.n)] if each else [arguments.output]
    for name in names:
        _check_new(name, arguments.force)
    with _stage("loading", arguments):
        format = _format(arguments.output)
        codec = _codec(arguments)
        from vqcodec import images
        from vqcodec.demo import grid
    begun = time.perf_counter()
    with _stage("sampling", arguments):
        drawn = codec.sample(
            arguments.class_id, arguments.n,
            size=arguments.size, seed=arguments.seed, temperature=arguments.temperature,
            top_p=arguments.top_p,
            candidates=arguments.candidates,
        )  # fmt: skip
    seconds = time.perf_counter() - begun
    pictures = [images.to_pil(picture) for picture in drawn]
    for name, picture in zip(names, pictures if each else [grid(pictures)], strict=True):
        _write(name, _encoded(picture, format), arguments.force)
        _report(arguments, f"{name}: {picture.width} x {picture.height}")
    chosen = f"chosen from {arguments.candidates}, " if arguments.candidates else ""
    _report(arguments, f"{arguments.n} {chosen}drawn in {seconds:.2f} s")


def _info(arguments: argparse.Namespace) -> None:
    from vqcodec import container  # not through the API, which loads NumPy

    found = container.describe(files.read(arguments.input))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name != "chunks":
            print(f"{name.replace('_', ' '):<16}{_shown(value)}")
    print(f"{'chunks':<16}")
    for chunk in found["chunks"]:
        print(f"  {chunk['name']:<14}{chunk['bytes']:>12,} bytes at {chunk['offset']:,}")


def _demo(arguments: argparse.Namespace) -> None:
    from vqcodec import demo

    demo.run(arguments.output, model=arguments.model)


# -- helpers -----------------------------------------------------------------------------


def _codec(arguments: argparse.Namespace) -> Any:
    import vqcodec

    if arguments.threads:
        vqcodec.set_num_threads(arguments.threads)
    return vqcodec.Codec(arguments.model, device=arguments.device)


def _output(arguments: argparse.Namespace, suffix: str) -> str:
    """The output's name, by default the input's with another extension."""
    given: str | None = arguments.output
    return given or (STANDARD if arguments.input == STANDARD else os.path.splitext(arguments.input)[0] + suffix)


def _check_new(path: str, force: bool) -> None:
    try:
        files.check_new(path, force)
    except FileExistsError as error:
        raise Failure(str(error)) from None


def _write(path: str, data: bytes, force: bool) -> None:
    try:
        files.write(path, data, force)
    except BrokenPipeError:
        raise
    except FileExistsError as error:
        raise Failure(str(error)) from None
    except OSError as error:  # its file name would be that of the temporary file
        raise Failure(f"{path}: {error.strerror or error}") from error


def _format(path: str) -> str:
    """Pillow's name for the format that a file name asks for."""
    import PIL.Image

    if path == STANDARD:
        return "PNG"
    format = PIL.Image.registered_extensions().get(Path(path).suffix.lower())
    if format not in PIL.Image.SAVE:
        raise Failure(f"{path}: must have the extension of a format that Pillow writes, such as .png")
    return format


def _encoded(image: PIL.Image.Image, format: str) -> bytes:
    """The bytes of an image file, with the metadata that the format can hold."""
    stream = io.BytesIO()
    if format in ("JPEG", "BMP", "PPM", "GIF") and "A" in image.getbands():
        warnings.warn(f"{format} holds no alpha channel; it is left out", stacklevel=1)
        image = image.convert(image.mode.removesuffix("A"))
    metadata = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if name in image.info}
    try:
        image.save(stream, format, **metadata)
    except (OSError, ValueError) as error:
        raise Failure(f"{format} cannot hold this picture: {error}") from error
    return stream.getvalue()


def _rate(size: int, width: int, height: int) -> str:
    return f"{8 * size / (width * height):.3f} bits per pixel"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _stage(name: str, arguments: argparse.Namespace) -> Iterator[None]:
    """On a terminal, show what is going on for as long as it does."""
    line = f"{name} ..." if sys.stderr.isatty() and not arguments.quiet else ""
    print(line, end="\r", file=sys.stderr, flush=True) if line else None
    try:
        yield
    finally:
        print(" " * len(line), end="\r", file=sys.stderr, flush=True) if line else None


def _report(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _failed(text: str) -> int:
    _say(f"vqcodec: {text}")
    return 1


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A terminated run cleans up as an interrupted one does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
