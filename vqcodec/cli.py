"""The ``vqcodec`` command.

Exit status: 0 done, 1 failed (one line on standard error says why), 2 usage, 130 interrupted.
Files appear whole or not at all: they are written under another name and renamed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcodec import __version__
from vqcodec.errors import VqcodecError

if TYPE_CHECKING:
    import PIL.Image

STANDARD = "-"


class Failure(Exception):
    """Something to tell the user in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
    # A terminated run cleans up as an interrupted one does.
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if getattr(arguments, "threads", None):
            import vqcodec

            vqcodec.set_num_threads(arguments.threads)
        arguments.run(arguments)
        sys.stdout.flush()
    except (VqcodecError, Failure) as error:
        return _failed(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say to anyone
        return 1
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError:
        return _failed("not enough memory for a picture of this size")
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vqcodec", description="A learned image codec that is also a generative model.")
    parser.add_argument("--version", action="version", version=f"vqcodec {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", metavar="FILE", help="model file (default: the one that ships with vqcodec)")
    common.add_argument("--threads", type=_positive, metavar="N", help="threads to use (default: all cores)")
    common.add_argument("--quiet", action="store_true", help="no report on standard error")
    common.add_argument("-f", "--force", action="store_true", help="overwrite the output")

    p = commands.add_parser("compress", parents=[common], help="picture -> .vqc",
                            description="Compress a picture. '-' is standard input or output.")
    p.add_argument("input", help="any picture that Pillow reads")
    p.add_argument("output", nargs="?", help="default: the input's name with .vqc")
    p.add_argument("-q", "--quality", type=_quality, default=50, help="0 (smallest) to 100 (default: 50)")
    p.add_argument("--class", dest="class_id", metavar="CLASS", help="class of the picture, by name or number, if known")
    p.set_defaults(run=_compress)

    p = commands.add_parser("decompress", parents=[common], help=".vqc -> picture",
                            description="Decompress a file. '-' is standard input or output (PNG).")
    p.add_argument("input")
    p.add_argument("output", nargs="?", help="the extension chooses the format (default: the input's name with .png)")
    p.add_argument("--partial", action="store_true", help="accept a damaged or truncated file: the coarser picture")
    p.set_defaults(run=_decompress)

    p = commands.add_parser("sample", parents=[common], help="draw new pictures of a class",
                            description="Draw new pictures. The code maps depend on the arguments alone, not on the machine.")
    p.add_argument("class_id", metavar="CLASS", help="name or number; 0 for no class")
    p.add_argument("-n", type=_positive, default=1, help="how many (default: 1)")
    p.add_argument("-o", "--output", required=True, help="one picture, all side by side; or a name with %%d: one file each")
    p.add_argument("--size", type=_size, default=(256, 256), metavar="WxH", help="pixels (default: 256x256)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier, duller (default: 1)")
    p.set_defaults(run=_sample)

    p = commands.add_parser("info", help="what a .vqc file says of itself", description="Header and chunks of a file.")
    p.add_argument("input")
    p.add_argument("--json", action="store_true", help="machine-readable")
    p.set_defaults(run=_info)

    p = commands.add_parser("demo", help="a tour on a picture that ships with vqcodec",
                            description="Compress, decompress and sample; writes pictures and a contact sheet.")
    p.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (default: out)")
    p.add_argument("--model", metavar="FILE", help=argparse.SUPPRESS)
    p.set_defaults(run=_demo)
    return parser


# -- commands ----------------------------------------------------------------------------


def _compress(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".vqc")
    _refuse_overwrite(output, arguments.force)
    with _stage("loading", arguments):
        import vqcodec
        from vqcodec import images

        image = images.read_stream(sys.stdin.buffer.read()) if arguments.input == STANDARD else arguments.input
        picture = images.to_array(image)
    begun = time.perf_counter()
    with _stage("compressing", arguments):
        data = vqcodec.Codec(arguments.model).compress(picture, quality=arguments.quality, class_id=arguments.class_id)
    _write(output, data, arguments.force)
    height, width = picture.pixels.shape[:2]
    _report(arguments, f"{output}: {width} x {height}, {len(data):,} bytes, {8 * len(data) / (width * height):.3f} bits per pixel, "
                       f"{time.perf_counter() - begun:.2f} s")


def _decompress(arguments: argparse.Namespace) -> None:
    output = _output(arguments, ".png")
    _refuse_overwrite(output, arguments.force)
    data = _read(arguments.input)
    with _stage("loading", arguments):
        import PIL.Image

        import vqcodec
    format = "PNG" if output == STANDARD else PIL.Image.registered_extensions().get(Path(output).suffix.lower())
    if format is None or format not in PIL.Image.SAVE:
        raise Failure(f"{output}: Pillow cannot write pictures with this extension")
    begun = time.perf_counter()
    with _stage("decompressing", arguments):
        image = vqcodec.decompress(data, model=arguments.model, partial=arguments.partial)
    _write(output, _encoded(image, format), arguments.force)
    _report(arguments, f"{output}: {image.width} x {image.height}, {time.perf_counter() - begun:.2f} s")


def _sample(arguments: argparse.Namespace) -> None:
    several = "%d" in arguments.output
    names = [arguments.output.replace("%d", str(i)) for i in range(arguments.n)] if several else [arguments.output]
    for name in names:
        _refuse_overwrite(name, arguments.force)
    with _stage("sampling", arguments):
        import PIL.Image

        import vqcodec
        from vqcodec.demo import side_by_side

        format = "PNG" if names[0] == STANDARD else PIL.Image.registered_extensions().get(Path(names[0]).suffix.lower())
        if format is None or format not in PIL.Image.SAVE:
            raise Failure(f"{names[0]}: Pillow cannot write pictures with this extension")
        class_id = int(arguments.class_id) if arguments.class_id.isdecimal() else arguments.class_id
        pictures = vqcodec.sample(class_id, arguments.n, size=arguments.size, seed=arguments.seed,
                                  temperature=arguments.temperature, model=arguments.model)
    for name, picture in zip(names, pictures if several else [side_by_side(pictures)]):
        _write(name, _encoded(picture, format), arguments.force)
        _report(arguments, f"{name}: {picture.width} x {picture.height}")


def _info(arguments: argparse.Namespace) -> None:
    from vqcodec import container

    found = container.describe(_read(arguments.input))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name != "chunks":
            print(f"{name.replace('_', ' '):16} {f'{value:.3f}' if isinstance(value, float) else value}")
    for chunk in found["chunks"]:
        print(f"  {chunk['name']:14} {chunk['bytes']:9,} bytes at {chunk['offset']:,}")


def _demo(arguments: argparse.Namespace) -> None:
    from vqcodec import demo

    demo.run(arguments.output, model=arguments.model)


# -- files -------------------------------------------------------------------------------


def _output(arguments: argparse.Namespace, suffix: str) -> str:
    if arguments.output:
        return arguments.output
    return STANDARD if arguments.input == STANDARD else str(Path(arguments.input).with_suffix(suffix))


def _refuse_overwrite(path: str, force: bool) -> None:
    if path == STANDARD:
        if sys.stdout.isatty():
            raise Failure("standard output is a terminal; name an output file")
    elif not force and os.path.lexists(path):
        raise Failure(f"{path} exists; use -f to overwrite it")


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == STANDARD else Path(path).read_bytes()


def _encoded(image: PIL.Image.Image, format: str) -> bytes:
    """``image`` in a file format, with the metadata that the format can hold."""
    stream = io.BytesIO()
    if format in ("JPEG", "BMP") and image.mode in ("RGBA", "LA"):
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    keep: dict[str, Any] = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif", "xmp")}
    image.save(stream, format, **keep)
    return stream.getvalue()


def _write(path: str, data: bytes, force: bool) -> None:
    """Write a whole file or none: a temporary file in the same folder, then a rename."""
    if path == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null, a pipe: nothing to rename
        Path(path).write_bytes(data)
        return
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        if force:
            os.replace(temporary, target)
        else:
            try:
                os.link(temporary, target)  # fails if another process was faster
            except FileExistsError:
                raise Failure(f"{path} exists; use -f to overwrite it") from None
            except OSError:  # a file system without hard links
                os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# -- talking -----------------------------------------------------------------------------


@contextlib.contextmanager
def _stage(name: str, arguments: argparse.Namespace) -> Iterator[None]:
    """Show what is going on, on a terminal, while it goes on."""
    show = sys.stderr.isatty() and not arguments.quiet
    if show:
        print(f"{name} ...", end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if show:
            print(" " * (len(name) + 4), end="\r", file=sys.stderr, flush=True)


def _report(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _failed(text: str) -> int:
    _say(f"vqcodec: {text}")
    return 1


def _quality(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"quality must be 0 to 100, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WxH such as 256x256, got {text}")
    return int(width), int(height)
