"""Many images at once, on all cores.

    >>> if __name__ == "__main__":  # because workers are processes that import the script
    ...     for record in vqcodec.batch.compress("photos", "out", quality=40):
    ...         print(record.output, record.bytes, record.error)

If an image cannot be used, its record says why and the others continue. Files appear complete or
not at all, even if a process is killed. :mod:`vqcodec.ray` does the same on many machines.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

from vqcodec.codec.options import DecodeOptions, EncodeOptions
from vqcodec.codec.options import options as checked
from vqcodec.errors import ImageError, InvalidArgument, VqcodecError
from vqcodec.tools import files, pool

if TYPE_CHECKING:
    import PIL.Image

    from vqcodec.codec.decoder import CodedImage

    Path_ = str | os.PathLike[str]

__all__ = ["Decoder", "Encoder", "Record", "compress", "decompress", "pictures_in", "run"]

SUFFIX = ".vqc"


@dataclass(frozen=True)
class Record:
    """The result for one file.

    input, output: file names. bytes: size of the .vqc file, whether input or output. width, height: pixels.
    seconds: reading, coding and writing. warnings: the codec's warnings. error: what went
    wrong, in which case there is no output; or None.
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
        """Plain, JSON-compatible values; ``error`` is None or has ``type`` and ``message``."""
        error = self.error and {"type": type(self.error).__name__, "message": message(self.error)}
        return {**vars(self), "seconds": round(self.seconds, 4), "warnings": list(self.warnings), "error": error}


#: (what to read, output name) -> the output's content and a record.
Coding = Callable[[Any, str], tuple[files.Content, Record]]


@dataclass(frozen=True)
class Encoder:
    """Images to ``.vqc`` files."""

    model: Path_ | None = None
    device: str = "cpu"
    options: EncodeOptions = EncodeOptions()

    def start(self) -> Coding:
        """Load the model; returns a function from an image and the output's name to bytes and a record."""
        from vqcodec.codec import images
        from vqcodec.codec.codec import Codec
        from vqcodec.format import container

        codec = Codec(self.model, device=self.device)

        def encode(source: Any, output: str) -> tuple[files.Content, Record]:
            data = codec.compressed(images.to_array(source, self.options.limits.pixels), self.options)
            header = container.read_header(data)
            return data, Record("", output, len(data), header.width, header.height)

        return encode


@dataclass(frozen=True)
class Decoder:
    """``.vqc`` files to images, in the format given by the output's extension."""

    model: Path_ | None = None
    device: str = "cpu"
    options: DecodeOptions = DecodeOptions()

    def start(self) -> Coding:
        """Load the model; returns a function from a file and the output's name to its content and a record."""
        from vqcodec.codec.codec import Codec

        codec = Codec(self.model, device=self.device)

        def decode(source: Any, output: str) -> tuple[files.Content, Record]:
            format = format_of(output)
            data = source.read() if hasattr(source, "read") else Path(source).read_bytes()
            coded = codec.open(data, partial=self.options.partial, limits=self.options.limits)
            if coded.error:
                warnings.warn(f"the image is not complete: {coded.error}", stacklevel=1)
            height, width = coded.shape(region=self.options.region, scale=self.options.scale)
            made = (_rows if format == "PPM" else _image)(coded, self.options, format)
            return made, Record("", output, len(data), width, height)

        return decode


def _rows(coded: CodedImage, asked: DecodeOptions, format: str) -> files.Content:
    """PPM, or PGM for a grey image, written as it is decoded."""
    if coded.has_alpha:
        warnings.warn(f"{format} cannot store an alpha channel; it is left out", stacklevel=1)
    if asked.whole:
        coded.verify()
    rows = coded.strips(asked)
    height, width = coded.shape(region=asked.region, scale=asked.scale)

    def write(file: BinaryIO) -> None:
        file.write(b"P%d\n%d %d\n255\n" % (5 if coded.header.grey else 6, width, height))
        file.writelines((strip[..., 0] if coded.header.grey else strip).tobytes() for strip in rows)

    return write


def _image(coded: CodedImage, asked: DecodeOptions, format: str) -> files.Content:
    image = coded.picture(asked)
    return lambda file: save(image, format, file)


# -- the public functions ----------------------------------------------------------------


def compress(
    source: Path_ | Iterable[Path_], output: Path_, *, jobs: int | None = None, recursive: bool = True, force: bool = False,
    model: Path_ | None = None, device: str = "cpu", **options: Any,
) -> Iterator[Record]:  # fmt: skip
    """Compress images into the folder ``output`` in ``jobs`` processes; yields a record as each is done.

    ``source``: a folder, whose images keep their relative paths in ``output``; or paths. ``jobs``: None
    for all cores (1 on a GPU); 1 works in this process, with all its threads, whereas each of several
    processes uses one thread. ``force``: overwrite existing files. ``options``: ``quality``, ``effort``,
    ``class_id`` and the others of :func:`vqcodec.compress`.

    The work is done as the iterator is consumed, and stops when it is closed. Memory holds one
    image per process. Raises :class:`~vqcodec.errors.VqcodecError` at once for errors that concern
    all images: model, device, options.
    """
    asked = checked(EncodeOptions, options)
    pairs = _pairs(source, output, SUFFIX, recursive)
    return run(Encoder(model, device, asked), pairs, jobs=jobs, force=force)


def decompress(
    source: Path_ | Iterable[Path_], output: Path_, *, extension: str = ".png", jobs: int | None = None, recursive: bool = True,
    force: bool = False, model: Path_ | None = None, device: str = "cpu", **options: Any,
) -> Iterator[Record]:  # fmt: skip
    """Decompress ``.vqc`` files into the folder ``output``; ``extension`` determines the format. Otherwise like :func:`compress`."""
    format_of(f"name{extension}")
    asked = checked(DecodeOptions, options)
    pairs = _pairs(source, output, extension, recursive)
    return run(Decoder(model, device, asked), pairs, jobs=jobs, force=force)


def run(
    coder: Encoder | Decoder, pairs: Iterable[tuple[Path_, Path_]], *, jobs: int | None = None, force: bool = False
) -> Iterator[Record]:
    """Like :func:`compress`, for arbitrary (input, output) names. Output folders are created."""
    if jobs is None:
        jobs = pool.cores() if coder.device == "cpu" else 1
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidArgument(f"jobs must be a whole number from 1, got {jobs!r}")
    if not (coder.model is None or isinstance(coder.model, (str, os.PathLike))):
        raise InvalidArgument(
            f"model must be a file name, so that all processes can load it, got {type(coder.model).__name__}"
        )
    return _run(coder, pairs, jobs, force)


def pictures_in(folder: Path_, suffix: str, recursive: bool) -> Iterator[Path]:
    """The files that compressing to (``.vqc``) or decompressing to another ``suffix`` would use, in order.

    Images are recognised by the extensions that Pillow knows. Hidden files and folders are skipped, as are
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
    yield from closed  # each fails like an input, instead of being skipped


# -- work --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One file: what to read, where its output will be, and where that is written first."""

    input: str
    output: str
    temporary: str = ""


@dataclass(frozen=True)
class _Start:
    """Starts a worker: one thread, one model."""

    coder: Encoder | Decoder

    def __call__(self) -> Callable[[_Task], Record]:
        import PIL.Image

        from vqcodec import set_num_threads

        set_num_threads(1)
        PIL.Image.MAX_IMAGE_PIXELS = None  # our own process, which applies the limits of ``compress``
        code = self.coder.start()

        def work(task: _Task) -> Record:
            return attempt(
                code, task.input, task.output, lambda content: files.write_temporary(task.temporary, content)
            )

        return work


def attempt(code: Coding, source: Any, output: str, write: Callable[[files.Content], None]) -> Record:
    """Code one file and pass its content to ``write``. Returns a record, whatever happens."""
    begun = time.perf_counter()
    name = files.STANDARD if hasattr(source, "read") else os.fspath(source)
    record = Record(name, output)
    with warnings.catch_warnings(record=True) as caught:
        try:
            content, record = code(source, output)
            try:
                write(content)
            except OSError as error:  # it would name the temporary file
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
            yield attempt(code, task.input, task.output, functools.partial(files.write, task.output, force=force))
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
    """The pairs that can be processed; the others go to ``refused``."""
    outputs: dict[str, str] = {}
    for pair in pairs:
        try:
            source, target = map(_name, pair)
        except InvalidArgument as error:
            refused.append(Record(str(pair[0])[:100], str(pair[1])[:100], error=error))
            continue
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


def _pairs(
    source: Path_ | Iterable[Path_], output: Path_, suffix: str, recursive: bool
) -> Iterator[tuple[Path_, Path_]]:
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isdir(source):
            raise InvalidArgument(f"{os.fspath(source)} must be a folder; pass a single file in a list")
        return (
            (path, Path(output, path.relative_to(source)).with_suffix(suffix))
            for path in pictures_in(source, suffix, recursive)
        )
    return ((path, _inside(output, path, suffix)) for path in source)


def _inside(folder: Path_, name: Path_, suffix: str) -> Path_:
    """The output in a folder for an input, which may be no name at all."""
    try:
        return Path(folder, Path(name).with_suffix(suffix).name)
    except (TypeError, ValueError):
        return folder


def _name(value: Path_) -> str:
    if not isinstance(value, (str, os.PathLike)) or not (name := os.fspath(value)) or "\0" in name:
        raise InvalidArgument(f"a file name is expected, got {value!r:.100}")
    return name


# -- images and their formats ----------------------------------------------------------


def message(error: Exception) -> str:
    """What to tell the user about an error, in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, (VqcodecError, OSError)) else f"{type(error).__name__}: {error}"


def format_of(path: str) -> str:
    """Pillow's name for the format of a file name, PNG for ``-``. Raises :class:`ImageError`."""
    import PIL.Image

    if path == files.STANDARD:
        return "PNG"
    extension = Path(path).suffix.lower()
    PIL.Image.preinit()  # the usual formats; all of them take much longer
    format = PIL.Image.EXTENSION.get(extension) or PIL.Image.registered_extensions().get(extension)
    if format is None or format not in PIL.Image.SAVE:
        raise ImageError(f"{path}: must have the extension of a format that Pillow can write, such as .png")
    return format


def encoded(image: PIL.Image.Image, format: str) -> bytes:
    """The bytes of an image file, with the metadata that the format can hold. Raises :class:`ImageError`."""
    return files.held(lambda file: save(image, format, file))


def save(image: PIL.Image.Image, format: str, file: BinaryIO) -> None:
    """Write an image file, with the metadata that the format can hold. Raises :class:`ImageError`, and ``OSError`` of the file."""
    if format in ("JPEG", "BMP", "PPM", "GIF") and "A" in image.getbands():
        warnings.warn(f"{format} cannot store an alpha channel; it is left out", stacklevel=1)
        image = image.convert(image.mode.removesuffix("A"))
    how = {"compress_level": 3} if format == "PNG" else {}  # twice as fast as Pillow's 6, and as small for photographs
    metadata = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if name in image.info}
    # Hides the file descriptor: Pillow would write to it directly and lose the reason for a failure.
    stream: Any = SimpleNamespace(**{name: getattr(file, name) for name in ("write", "read", "seek", "tell", "flush")})
    try:
        image.save(stream, format, **metadata, **how)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ImageError(f"{format} cannot hold this image: {error}") from error


def _readable() -> set[str]:
    import PIL.Image

    PIL.Image.init()
    readable = set(PIL.Image.OPEN) - {"BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow only knows their names
    return {extension for extension, format in PIL.Image.registered_extensions().items() if format in readable} - {
        SUFFIX
    }
