"""Pictures by the million, over a cluster: ``pip install 'vqcodec[ray]'``.

    >>> files = vqcodec.ray.compress(["s3://bucket/a.png", "s3://bucket/b.png"], quality=40, workers=64)
    >>> files.select_columns(["path", "vqc"]).write_parquet("s3://bucket/compressed")
    >>> pictures = vqcodec.ray.decompress(ray.data.read_parquet("s3://bucket/compressed"), workers=64)

Both take and give a dataset of Ray Data, which is lazy and streams: a picture is in memory only while it
is worked on. Each worker is an actor that holds the model. Ray starts a worker that dies again
and repeats its pictures. A picture that cannot be used gets a row, too, which says why.

| column | | |
|---|---|---|
| ``picture`` | bytes | a file of any format that Pillow reads; what :func:`decompress` makes |
| ``vqc`` | bytes | a ``.vqc`` file; what :func:`compress` makes |
| ``width``, ``height``, ``seconds`` | | of the picture, of the work |
| ``error`` | str | empty, or what went wrong; ``width`` is 0 and the bytes are empty then |

All other columns stay, such as ``path``. The column of bytes that is read does not.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec import batch
from vqcodec.errors import InvalidArgument
from vqcodec.tools import files

if TYPE_CHECKING:
    import ray.data

    Path_ = str | os.PathLike[str]

__all__ = ["Coder", "compress", "decompress"]

#: Pictures that one call of a worker takes, and that are repeated if it dies.
BATCH = 8


class Coder:
    """The actor: a model in memory, and batches of a dataset through it.

    coder: what it does. column, made: the columns that it reads and makes. output: a file name whose
    extension says what to make. paths: the column holds names of files, and stays.
    """

    def __init__(self, coder: batch.Encoder | batch.Decoder, column: str, made: str, output: str, paths: bool) -> None:
        from vqcodec import set_num_threads

        set_num_threads(1)
        code = coder.start()
        self._code = (lambda path, output: code(_open(path), output)) if paths else code
        self._column, self._made, self._output, self._paths = column, made, output, paths

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """A batch with other columns; see the table above."""
        records, contents = [], []
        for value in rows[self._column] if self._paths else rows.pop(self._column):
            contents.append(b"")
            source = str(value) if self._paths else io.BytesIO(value)
            records.append(batch.attempt(self._code, source, self._output, lambda content: contents.__setitem__(-1, files.held(content))))
        failures = [f"{type(r.error).__name__}: {batch.message(r.error)}" if r.error else "" for r in records]
        return {
            **rows, self._made: np.array(contents, object), "width": [r.width for r in records], "height": [r.height for r in records],
            "seconds": [r.seconds for r in records], "error": failures,
        }  # fmt: skip


def _open(path: str) -> io.BytesIO:
    """A file of any file system that Arrow knows: a local path, or a URI such as ``s3://bucket/name``."""
    from pyarrow import fs

    system, name = fs.FileSystem.from_uri(path)
    with system.open_input_stream(name) as stream:
        return io.BytesIO(stream.read())


def compress(
    source: ray.data.Dataset | Sequence[Path_], *, column: str | None = None, workers: int | tuple[int, int] = 2,
    resources: dict[str, Any] | None = None, model: Path_ | None = None, device: str = "cpu", **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """Compress the pictures of a dataset, or of files, by ``workers`` actors.

    ``source``: a dataset with the column ``column`` (default: ``picture``), or names of files
    (paths or URIs, which all workers can read), which then are in the column ``path``. ``workers``: how many,
    or (least, most); leave a processor of the cluster for Ray's own reading of a dataset. ``resources``: for each
    worker, as ``ray.data.Dataset.map_batches`` knows them (default: ``num_cpus=1``; for
    ``device="cuda"`` ``num_gpus=1``, too). ``model``: a file that all machines have. ``options``: those of
    :func:`vqcodec.compress`.
    """
    return _mapped(batch.Encoder(_name(model), device, options), source, column or "picture", "vqc", "a.vqc", workers, resources)


def decompress(
    source: ray.data.Dataset | Sequence[Path_], *, column: str | None = None, extension: str = ".png",
    workers: int | tuple[int, int] = 2, resources: dict[str, Any] | None = None, model: Path_ | None = None,
    device: str = "cpu", **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """Decompress the ``.vqc`` files of a dataset, or of paths, into picture files. As :func:`compress`."""
    batch.format_of(f"a{extension}")
    coder = batch.Decoder(_name(model), device, options)
    return _mapped(coder, source, column or "vqc", "picture", f"a{extension}", workers, resources)


def _mapped(
    coder: batch.Encoder | batch.Decoder, source: ray.data.Dataset | Sequence[Path_], column: str, made: str, output: str,
    workers: int | tuple[int, int], resources: dict[str, Any] | None,
) -> ray.data.Dataset:  # fmt: skip
    import ray.data

    if paths := not isinstance(source, ray.data.Dataset):  # the workers read, so that a bad name fails alone
        column = "path"
        names = [os.fspath(each) for each in source]
        source = ray.data.from_items([{column: name if "://" in name else os.path.abspath(name)} for name in names])
    elif column not in (columns := source.columns() or []):
        raise InvalidArgument(f"the dataset must have the column {column!r}, found {', '.join(columns) or 'none'}")
    return source.map_batches(
        Coder, fn_constructor_args=(coder, column, made, output, paths), batch_size=BATCH, batch_format="numpy",
        compute=_strategy(workers), **(resources or _usual(coder.device)),
    )  # fmt: skip


def _strategy(workers: int | tuple[int, int]) -> Any:
    import ray.data

    least, most = (workers, workers) if isinstance(workers, int) else workers
    return ray.data.ActorPoolStrategy(min_size=least, max_size=most)


def _usual(device: str) -> dict[str, Any]:
    return {"num_cpus": 1} if device == "cpu" else {"num_cpus": 1, "num_gpus": 1}


def _name(model: Path_ | None) -> str | None:
    return None if model is None else os.path.abspath(model)
