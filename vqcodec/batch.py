"""Many pictures at once, on all cores.

    >>> if __name__ == "__main__":  # because workers are processes that import the script
    ...     for record in vqcodec.batch.compress("photos", "out", quality=40):
    ...         print(record.output, record.bytes, record.error)

A picture that cannot be used stops nothing: its record says why. Files appear whole or not at
all, whatever is killed. :mod:`vqcodec.ray` does the same on many machines.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

from vqcodec.errors import ImageError, InvalidArgument, VqcodecError
from vqcodec.tools import files, pool

if TYPE_CHECKING:
    import PIL.Image

    from vqcodec.codec.decoder import CodedPicture

    Path_ = str | os.PathLike[str]

__all__ = ["Decoder", "Encoder", "Record", "compress", "decompress", "pictures_in", "run"]

SUFFIX = ".vqc"


@dataclass(frozen=True)
class Record:
    """What became of one file.

    input, output: file names. bytes: size of the .vqc file, wherever that is. width, height: pixels.
    seconds: reading, coding and writing. warnings: what the codec had to say. error: what went
    wrong, and there is no output; or None.
    """

    input: str
    output: str
    bytes: int = 0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: Exception | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; ``error`` is None or has ``type`` and ``message``."""
        error = self.error and {"type": type(self.error).__name__, "message": message(self.error)}
        return {**vars(self), "seconds": round(self.seconds, 4), "warnings": list(self.warnings), "error": error}


#: From what to read and the output's name to the output's content and a record.
Coding = Callable[[Any, str], tuple[files.Content, Record]]


@dataclass(frozen=True)
class Encoder:
    """Pictures to ``.vqc`` files. ``options`` are those of :func:`vqcodec.compress`."""

    model: Path_ | None = None
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)

    def start(self) -> Coding:
        """Load the model; returns a function from a picture and the output's name to bytes and a record."""
        import vqcodec
        from vqcodec.format import container

        model = vqcodec.Codec(self.model, device=self.device).model

        def encode(source: Any, output: str) -> tuple[files.Content, Record]:
            data = vqcodec.compress(source, model=model, device=self.device, **self.options)
            header = container.read_header(data)
            return data, Record("", output, len(data), header.width, header.height)

        return encode


@dataclass(frozen=True)
class Decoder:
    """``.vqc`` files to pictures, in the format that the output's extension asks for.

    ``options`` are those of :func:`vqcodec.decompress`.
    """

    model: Path_ | None = None
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)

    def start(self) -> Coding:
        """Load the model; returns a function from a file and the output's name to its content and a record."""
        import vqcodec

        model = vqcodec.Codec(self.model, device=self.device).model
        opening = {name: value for name, value in self.options.items() if name in ("partial", "limits")}
        wanted = {name: value for name, value in self.options.items() if name not in opening}

        def decode(source: Any, output: str) -> tuple[files.Content, Record]:
            format = format_of(output)
            data = source.read() if hasattr(source, "read") else Path(source).read_bytes()
            coded = vqcodec.open(data, model=model, device=self.device, **opening)
            if coded.error:
                warnings.warn(f"the picture is not complete: {coded.error}", stacklevel=1)
            height, width = coded.shape(**{name: wanted[name] for name in ("region", "scale") if name in wanted})
            made = _rows(coded, wanted) if format == "PPM" else _picture(coded, wanted, format)
            return made, Record("", output, len(data), width, height)

        return decode


def _rows(coded: CodedPicture, wanted: dict[str, Any]) -> files.Content:
    """PPM, or PGM of a grey picture, written as it is decoded."""
    if coded.has_alpha:
        warnings.warn("PPM holds no alpha channel; it is left out", stacklevel=1)
    if not wanted.keys() & {"region", "scale", "maps"}:
        coded.verify()
    rows = coded.rows(**wanted)
    height, width = coded.shape(**{name: wanted[name] for name in ("region", "scale") if name in wanted})

    def write(file: BinaryIO) -> None:
        file.write(b"P%d\n%d %d\n255\n" % (5 if coded.header.grey else 6, width, height))
        file.writelines((strip[..., 0] if coded.header.grey else strip).tobytes() for strip in rows)

    return write


def _picture(coded: CodedPicture, wanted: dict[str, Any], format: str) -> files.Content:
    from vqcodec.codec import images

    image = images.to_pil(coded.picture(**wanted))
    return lambda file: save(image, format, file)


# -- the public functions ----------------------------------------------------------------


def compress(
    source: Path_ | Iterable[Path_], output: Path_, *, jobs: int | None = None, recursive: bool = True, force: bool = False,
    model: Path_ | None = None, device: str = "cpu", **options: Any,
) -> Iterator[Record]:  # fmt: skip
    """Compress pictures into the folder ``output``, in ``jobs`` processes; a record for each, as it is done.

    ``source``: a folder, whose pictures keep their places below ``output``; or paths. ``jobs``: None
    for all cores (1 on a GPU); 1 works in this process, on all its threads, while every process of
    several uses one thread. ``force``: overwrite existing files. ``options``: ``quality``, ``effort``,
    ``class_id`` and the others of :func:`vqcodec.compress`.

    The iterator does the work as it is read, and stops it when it is closed. Memory holds one
    picture for each process. Raises :class:`~vqcodec.errors.VqcodecError` at once for what is wrong with
    every picture: model, device, options.
    """
    from vqcodec.codec.options import check_effort, check_quality

    check_quality(options.get("quality", 50))
    check_effort(options.get("effort", 3))
    pairs = _pairs(source, output, SUFFIX, recursive)
    return run(Encoder(model, device, options), pairs, jobs=jobs, force=force)


def decompress(
    source: Path_ | Iterable[Path_], output: Path_, *, extension: str = ".png", jobs: int | None = None, recursive: bool = True,
    force: bool = False, model: Path_ | None = None, device: str = "cpu", **options: Any,
) -> Iterator[Record]:  # fmt: skip
    """Decompress ``.vqc`` files into the folder ``output``; ``extension`` chooses the format. As :func:`compress`."""
    format_of(f"name{extension}")
    pairs = _pairs(source, output, extension, recursive)
    return run(Decoder(model, device, options), pairs, jobs=jobs, force=force)


def run(
    coder: Encoder | Decoder, pairs: Iterable[tuple[Path_, Path_]], *, jobs: int | None = None, force: bool = False
) -> Iterator[Record]:
    """As :func:`compress`, for any (input, output) names. Folders of outputs are made."""
    if jobs is None:
        jobs = pool.cores() if coder.device == "cpu" else 1
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidArgument(f"jobs must be a whole number from 1, got {jobs!r}")
    if not (coder.model is None or isinstance(coder.model, (str, os.PathLike))):
        raise InvalidArgument(f"model must be a file's name, which all processes can load, got {type(coder.model).__name__}")
    return _run(coder, pairs, jobs, force)


def pictures_in(folder: Path_, suffix: str, recursive: bool) -> Iterator[Path]:
    """The files that compressing to (``.vqc``) or decompressing to another ``suffix`` would take, in order.

    Pictures are known by the extensions that Pillow reads. Hidden files and folders are passed over, as are
    pipes and devices; links to folders are not followed.
    """
    wanted = _readable() if suffix == SUFFIX else {SUFFIX}
    closed: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in wanted and not files.is_device(str(path)):
                yield path
    yield from closed  # each fails as an input does, instead of being passed over


# -- work --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One file: what to read, where its output will be, and where that is written first."""

    input: str
    output: str
    temporary: str = ""


@dataclass(frozen=True)
class _Start:
    """Begins a worker: one thread, one model."""

    coder: Encoder | Decoder

    def __call__(self) -> Callable[[_Task], Record]:
        import PIL.Image

        from vqcodec import set_num_threads

        set_num_threads(1)
        PIL.Image.MAX_IMAGE_PIXELS = None  # a process of our own, which has the limits of ``compress``
        code = self.coder.start()

        def work(task: _Task) -> Record:
            return attempt(code, task.input, task.output, lambda content: files.write_temporary(task.temporary, content))

        return work


def attempt(code: Coding, source: Any, output: str, write: Callable[[files.Content], None]) -> Record:
    """Code one file and hand its content to ``write``: a record, whatever happens."""
    begun = time.perf_counter()
    name = files.STANDARD if hasattr(source, "read") else os.fspath(source)
    record = Record(name, output)
    with warnings.catch_warnings(record=True) as caught:
        try:
            content, record = code(source, output)
            try:
                write(content)
            except OSError as error:  # its file name would be that of the temporary file
                raise (type(error)(error.errno, error.strerror, output) if error.errno else error) from None
        except Exception as error:
            record = Record(name, output, error=error)
    said = tuple(str(w.message) for w in caught)
    return replace(record, input=name, seconds=time.perf_counter() - begun, warnings=said)


def _run(coder: Encoder | Decoder, pairs: Iterable[tuple[Path_, Path_]], jobs: int, force: bool) -> Iterator[Record]:
    refused: list[Record] = []
    tasks = _accepted(pairs, force, refused)
    if jobs == 1:
        code = coder.start()
        for task in tasks:
            yield from _drained(refused)
            yield attempt(code, task.input, task.output, lambda content, to=task.output: files.write(to, content, force))  # type: ignore[misc]
    else:
        yield from _run_in_processes(coder, tasks, jobs, force, refused)
    yield from _drained(refused)


def _run_in_processes(
    coder: Encoder | Decoder, tasks: Iterator[_Task], jobs: int, force: bool, refused: list[Record]
) -> Iterator[Record]:
    unfinished: set[str] = set()

    def named() -> Iterator[_Task]:
        for task in tasks:
            task = replace(task, temporary=files.temporary_name(task.output))
            unfinished.add(task.temporary)
            yield task

    workers: pool.Pool[_Task, Record] = pool.Pool(_Start(coder), jobs)
    results = workers.run(named())
    try:
        for task, result in results:
            yield from _drained(refused)
            record = result if isinstance(result, Record) else Record(task.input, task.output, error=result)
            if record.error is None:
                try:
                    files.publish(task.temporary, task.output, force)
                except OSError as error:
                    record = Record(task.input, task.output, warnings=record.warnings, error=error)
            _remove(task.temporary)
            unfinished.discard(task.temporary)
            yield record
    finally:
        results.close()  # type: ignore[attr-defined]
        for name in unfinished:
            _remove(name)


def _accepted(pairs: Iterable[tuple[Path_, Path_]], force: bool, refused: list[Record]) -> Iterator[_Task]:
    """The pairs that may be worked on; the others go to ``refused``."""
    outputs: dict[str, str] = {}
    for source, target in ((os.fspath(a), os.fspath(b)) for a, b in pairs):
        try:
            if other := outputs.get(os.path.abspath(target)):
                raise FileExistsError(f"{source}: {target} is already the output of {other}")
            outputs[os.path.abspath(target)] = source
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            files.check_new(target, force)
        except OSError as error:
            refused.append(Record(source, target, error=error))
        else:
            yield _Task(source, target)


def _drained(records: list[Record]) -> Iterator[Record]:
    while records:
        yield records.pop(0)


def _remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def _pairs(source: Path_ | Iterable[Path_], output: Path_, suffix: str, recursive: bool) -> Iterator[tuple[Path_, Path_]]:
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isdir(source):
            raise InvalidArgument(f"{os.fspath(source)} must be a folder; a file goes into a list")
        return ((path, Path(output, path.relative_to(source)).with_suffix(suffix)) for path in pictures_in(source, suffix, recursive))
    return ((path, Path(output, Path(path).with_suffix(suffix).name)) for path in source)


# -- pictures and their formats ----------------------------------------------------------


def message(error: Exception) -> str:
    """What to tell the user of an error, in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory for this picture"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, (VqcodecError, OSError)) else f"{type(error).__name__}: {error}"


def format_of(path: str) -> str:
    """Pillow's name for the format that a file name asks for, PNG for ``-``. Raises :class:`ImageError`."""
    import PIL.Image

    if path == files.STANDARD:
        return "PNG"
    format = PIL.Image.registered_extensions().get(Path(path).suffix.lower())
    if format is None or format not in PIL.Image.SAVE:
        raise ImageError(f"{path}: must have the extension of a format that Pillow writes, such as .png")
    return format


def encoded(image: PIL.Image.Image, format: str) -> bytes:
    """The bytes of an image file, with the metadata that the format can hold. Raises :class:`ImageError`."""
    return files.held(lambda file: save(image, format, file))


def save(image: PIL.Image.Image, format: str, file: BinaryIO) -> None:
    """Write an image file, with the metadata that the format can hold. Raises :class:`ImageError`, and ``OSError`` of the file."""
    if format in ("JPEG", "BMP", "PPM", "GIF") and "A" in image.getbands():
        warnings.warn(f"{format} holds no alpha channel; it is left out", stacklevel=1)
        image = image.convert(image.mode.removesuffix("A"))
    metadata = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if name in image.info}
    # Without the file's number, to which Pillow would write by itself and lose the reason of a failure.
    stream: Any = SimpleNamespace(**{name: getattr(file, name) for name in ("write", "read", "seek", "tell", "flush")})
    try:
        image.save(stream, format, **metadata)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ImageError(f"{format} cannot hold this picture: {error}") from error


def _readable() -> set[str]:
    import PIL.Image

    PIL.Image.init()
    readable = set(PIL.Image.OPEN) - {"BUFR", "GRIB", "HDF5", "MPEG"}  # of which Pillow knows the names only
    return {extension for extension, format in PIL.Image.registered_extensions().items() if format in readable} - {SUFFIX}
