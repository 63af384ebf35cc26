"""What each command does. Returns None or an exit status."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import json
import os
import shlex
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vqcodec.cli import arguments as command_line
from vqcodec.cli import completion as completions
from vqcodec.cli import manual as manuals
from vqcodec.cli.screen import Failure, Progress, failed, one_line, report, say, stage
from vqcodec.codec import options
from vqcodec.codec.options import LIMITS, DecodeOptions, EncodeOptions, Options
from vqcodec.errors import VqcodecError
from vqcodec.format.limits import Limits
from vqcodec.tools import files
from vqcodec.tools.files import STANDARD

if TYPE_CHECKING:
    from vqcodec.batch import Decoder, Encoder, Record


def compress(arguments: argparse.Namespace) -> int | None:
    import PIL.Image

    from vqcodec.batch import Encoder

    PIL.Image.MAX_IMAGE_PIXELS = None  # --max-pixels is checked instead, before pixels are read
    return _code(arguments, Encoder(arguments.model, arguments.device, _options(arguments, EncodeOptions)), ".vqc")


def decompress(arguments: argparse.Namespace) -> int | None:
    from vqcodec.batch import Decoder

    return _code(arguments, Decoder(arguments.model, arguments.device, _options(arguments, DecodeOptions)), ".png")


def _options(arguments: argparse.Namespace, kind: type[Options]) -> Options:
    """The given options of one kind."""
    given = {
        name: getattr(arguments, name) for name in options.names(kind) if getattr(arguments, name, None) is not None
    }
    return options.options(kind, {**given, "limits": _limits(arguments, LIMITS)})


def _limits(arguments: argparse.Namespace, usual: Limits) -> Limits:
    """``usual``, with the changes made by --max-... options."""
    names = [field.name for field in dataclasses.fields(Limits)]
    given = {name: getattr(arguments, f"max_{name}", None) for name in names}
    return dataclasses.replace(usual, **{name: value for name, value in given.items() if value})


def _code(arguments: argparse.Namespace, coder: Encoder | Decoder, suffix: str) -> int | None:
    from vqcodec import batch
    from vqcodec.cli import names

    pairs = names.pairs(arguments.files, arguments.output, suffix, arguments.recursive)
    if arguments.json and any(output == STANDARD for _, output in pairs):
        raise Failure("--json and output to - cannot be combined: both use standard output")
    if len(pairs) == 1:
        made = pairs[0][1]
        if made not in (arguments.output, *arguments.files):  # in a folder that was named, as for many files
            os.makedirs(os.path.dirname(made) or ".", exist_ok=True)
        record = _one(arguments, coder, *pairs[0])
        if record.error and not arguments.json:
            raise record.error
        return _tell(arguments, record, single=True)
    status = 0
    _set_threads(arguments)  # for --jobs 1; otherwise each process has one
    with Progress(len(pairs), arguments) as progress:
        records = batch.run(coder, pairs, jobs=arguments.jobs or arguments.threads, force=arguments.force)
        try:
            for record in records:
                progress.hide()
                status |= _tell(arguments, record)
                progress.step()
        finally:
            records.close()  # type: ignore[attr-defined]
    return status


def _one(arguments: argparse.Namespace, coder: Encoder | Decoder, source: str, output: str) -> Record:
    from vqcodec import batch

    try:
        _check_new(output, arguments)
    except (Failure, OSError) as error:
        return batch.Record(source, output, error=error)
    with stage("loading", arguments):
        stream = io.BytesIO(files.read(STANDARD)) if source == STANDARD else source
        _set_threads(arguments)
        code = coder.start()
    with stage(f"{arguments.command}ing", arguments):
        return batch.attempt(code, stream, output, lambda data: files.write(output, data, arguments.force))


def _tell(arguments: argparse.Namespace, record: Record, single: bool = False) -> int:
    """Report the result for a file. Returns the exit status."""
    from vqcodec.batch import message

    for text in record.warnings:
        say(f"vqcodec: warning: {text}" if single else f"vqcodec: warning: {record.input}: {text}")
    if arguments.json:
        print(json.dumps(record.as_dict()), flush=True)
    elif record.error:
        text = message(record.error)
        failed(text if text.startswith((record.input, record.output)) else f"{record.input}: {text}")
    else:
        origin = "from " if arguments.command == "decompress" else ""
        rate = _rate(record.bytes, record.width, record.height)
        report(
            arguments,
            f"{record.output}: {record.width} x {record.height}, {origin}{record.bytes:,} bytes, {rate}, "
            f"{record.seconds:.2f} s",
        )
    return 1 if record.error else 0


def sample(arguments: argparse.Namespace) -> None:
    each = "%d" in arguments.output
    names = [arguments.output.replace("%d", str(i)) for i in range(arguments.n)] if each else [arguments.output]
    for name in names:
        _check_new(name, arguments)
    with stage("loading", arguments):
        from vqcodec.batch import encoded, format_of
        from vqcodec.codec import images
        from vqcodec.tools.demo import grid

        format = format_of(arguments.output)
        codec = _codec(arguments)
    begun = time.perf_counter()
    with stage("sampling", arguments):
        drawn = codec.sample(
            arguments.class_id, arguments.n, size=arguments.size, seed=arguments.seed, temperature=arguments.temperature,
            top_p=arguments.top_p, candidates=arguments.candidates,
        )  # fmt: skip
    seconds = time.perf_counter() - begun
    pictures = [images.to_pil(picture) for picture in drawn]
    for name, picture in zip(names, pictures if each else [grid(pictures)], strict=True):
        _write(name, encoded(picture, format), arguments)
        report(arguments, f"{name}: {picture.width} x {picture.height}")
    chosen = f"chosen from {arguments.candidates}, " if arguments.candidates else ""
    report(arguments, f"{arguments.n} {chosen}drawn in {seconds:.2f} s")


def verify(arguments: argparse.Namespace) -> int:
    from vqcodec.cli.names import expand
    from vqcodec.format import container

    names = [name for name, _ in expand(arguments.files, ".png", arguments.recursive)]
    codec = None if arguments.quick else _codec(arguments)
    limits = _limits(arguments, LIMITS)
    status = 0
    for name in names:
        found: dict[str, Any] = {"input": name, "bytes": 0, "width": 0, "height": 0, "error": None}
        try:
            data = files.read(name)
            found["bytes"] = len(data)
            header = container.read(data, limits=limits).header
            found.update(width=header.width, height=header.height)
            if codec:
                codec.open(data, limits=limits).check()
        except (VqcodecError, OSError, MemoryError) as error:
            from vqcodec.batch import message

            status = 1
            found["error"] = {"type": type(error).__name__, "message": message(error)}
        if arguments.json:
            print(json.dumps(found), flush=True)
        elif found["error"]:
            failed(f"{name}: {found['error']['message'].removeprefix(f'{name}: ')}")
        elif not arguments.quiet:
            print(one_line(f"{name}: ok, {found['width']} x {found['height']}, {found['bytes']:,} bytes"), flush=True)
    return status


def compare(arguments: argparse.Namespace) -> None:
    if arguments.output:
        _check_new(arguments.output, arguments)
    with stage("comparing", arguments):
        from vqcodec import batch
        from vqcodec.tools.compare import compare, side_by_side

        format = batch.format_of(arguments.output) if arguments.output else ""
        _set_threads(arguments)
        found, pictures = compare(arguments.original, arguments.file, model=arguments.model, device=arguments.device)
    if found.note:
        warnings.warn(found.note, stacklevel=1)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found)))
    else:
        for name, value in dataclasses.asdict(found).items():
            if name != "note" and value is not None:
                print(f"{name.replace('_', ' '):<16}{_shown(value)}")
    if arguments.output:
        _write(arguments.output, batch.encoded(side_by_side(found, pictures), format), arguments)


def bench(arguments: argparse.Namespace) -> None:
    outputs = [name for name in (arguments.output, arguments.json, arguments.png) if name]
    for name in outputs:
        _check_new(name, arguments)
    if arguments.png and not importlib.util.find_spec("matplotlib"):
        raise Failure("--png needs matplotlib: pip install 'vqcodec[bench]'")
    with stage("loading", arguments):
        from vqcodec.tools.bench import figure, page, text
        from vqcodec.tools.bench import report as measuring

        plan = measuring.Plan(
            arguments.folder,
            arguments.quick,
            True,
            arguments.model,
            arguments.device,
            arguments.effort,
            arguments.jobs,
            arguments.threads,
            arguments.shown,
        )
    bars: dict[str, Progress] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in bars:
            report(arguments, f"{name} ...")
            bars[name] = Progress(total, arguments)
        bars[name].step() if done < total else bars[name].hide()

    options = [
        flag
        for flag, given in (("--quick", arguments.quick), (f"--effort={arguments.effort}", arguments.effort != 3))
        if given
    ]
    command = shlex.join(["vqcodec", "bench", os.path.basename(os.path.abspath(arguments.folder)), *options])
    found, gallery = measuring.run(plan, command, progress)
    print(text.text(found), end="", flush=True)
    _write(arguments.output, page.html(found, gallery).encode(), arguments)
    if arguments.json:
        _write(arguments.json, (json.dumps(found, indent=1) + "\n").encode(), arguments)
    if arguments.png:
        _write(arguments.png, figure.figure(found), arguments)
    report(arguments, f"written: {', '.join(outputs)}")


def info(arguments: argparse.Namespace) -> None:
    from vqcodec.format import container  # not through the API, which loads NumPy

    limits = _limits(arguments, Limits(pixels=1 << 62))  # nothing is decoded
    several = len(arguments.input) > 1
    for number, name in enumerate(arguments.input):
        try:
            found = container.describe(files.read(name), limits=limits)
        except VqcodecError as error:
            raise Failure(f"{name}: {error}" if several else str(error)) from error
        if arguments.json:
            print(json.dumps({"input": name, **found}) if several else json.dumps(found, indent=2))
            continue
        if several:
            print(f"{'' if number == 0 else chr(10)}{name}")
        for key, value in found.items():
            if key != "chunks":
                print(f"{key.replace('_', ' '):<16}{_shown(value)}")
        print(f"{'chunks':<16}")
        for chunk in found["chunks"]:
            print(f"  {chunk['name']:<14}{chunk['bytes']:>12,} bytes at {chunk['offset']:,}")


def classes(arguments: argparse.Namespace) -> None:
    from vqcodec.codec.codec import Codec

    names = Codec(arguments.model).model.config.classes
    if arguments.json:
        print(json.dumps(names))
        return
    for number, name in enumerate(names, 1):
        print(f"{number:>5}  {name}")


def demo(arguments: argparse.Namespace) -> None:
    from vqcodec.tools import demo

    demo.run(arguments.output, model=arguments.model)


def completion(arguments: argparse.Namespace) -> None:
    print(completions.script(command_line.parser(), arguments.shell), end="")


def manual(_: argparse.Namespace) -> None:
    print(manuals.page(command_line.parser()), end="")


#: By command-line name.
RUN: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "compress": compress,
    "decompress": decompress,
    "sample": sample,
    "verify": verify,
    "compare": compare,
    "bench": bench,
    "info": info,
    "classes": classes,
    "demo": demo,
    "completion": completion,
    "man": manual,
}


# -- helpers -----------------------------------------------------------------------------


def _set_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        import vqcodec

        vqcodec.set_num_threads(arguments.threads)


def _codec(arguments: argparse.Namespace) -> Any:
    import vqcodec

    _set_threads(arguments)
    return vqcodec.Codec(arguments.model, device=arguments.device)


def _check_new(path: str, arguments: argparse.Namespace) -> None:
    try:
        files.check_new(path, arguments.force)
    except FileExistsError as error:
        raise Failure(str(error)) from None


def _write(path: str, data: bytes, arguments: argparse.Namespace) -> None:
    try:
        files.write(path, data, arguments.force)
    except BrokenPipeError:
        raise
    except FileExistsError as error:
        raise Failure(str(error)) from None
    except OSError as error:  # it would name the temporary file
        raise Failure(f"{path}: {error.strerror or error}") from error


def _rate(size: int, width: int, height: int) -> str:
    return f"{8 * size / (width * height):.3f} bits per pixel"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
