"""Named arrays in one file: the safetensors format, read and written with NumPy.

    8 bytes   length of the header, little-endian
    header    JSON: each array's dtype, shape and place; under "__metadata__", texts
    data      the arrays, little-endian, row by row, one after the other

Reading trusts nothing: whatever a file says, no more memory is used than a few times its size.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

#: Bytes of a header, at most.
LARGEST_HEADER = 1 << 24
DTYPES = {
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
METADATA = "__metadata__"


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Only the texts. Raises as :func:`read`."""
    with Path(path).open("rb") as stream:
        return _texts(_header(stream))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays by name, in native byte order, and the texts.

    Raises :class:`OSError`, and :class:`ValueError` if the file is not sound: arrays that overlap, leave gaps, leave the
    file or are of another size than their shape says, names that occur twice, unknown dtypes.
    """
    with Path(path).open("rb") as stream:
        header = _header(stream)
        data = stream.read()
    texts = _texts(header)
    arrays: dict[str, np.ndarray] = {}
    places: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == METADATA:
            continue
        dtype, shape, begin, end = _entry(name, entry)
        if not begin <= end <= len(data) or math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(
                f"array {name!r:.80} of {dtype} {shape} does not fit into bytes {begin} to {end} of {len(data)}"
            )
        found = np.frombuffer(data, dtype.newbyteorder("<"), math.prod(shape), begin if end > begin else 0)
        arrays[name] = found.astype(dtype).reshape(shape)
        places.append((begin, end))
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise ValueError(f"expected the next array at byte {reached}, found one at {begin}")
        reached = end
    if reached != len(data):
        raise ValueError(f"expected {reached} bytes of arrays, found {len(data)}")
    return arrays, texts


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Write a file: a temporary one beside ``path``, then a rename. The same arrays and texts give the same bytes."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: dict(texts)}
    place = 0
    # The largest elements first: every array lies at a multiple of its element's size.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    for name, array in ordered:
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("=")],
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            stream.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
    temporary.chmod(0o644)
    os.replace(temporary, path)


def _header(stream: BinaryIO) -> dict[str, Any]:
    length = int.from_bytes(stream.read(8), "little")
    if length > min(LARGEST_HEADER, os.fstat(stream.fileno()).st_size - 8):
        raise ValueError(f"a header of {length} bytes cannot be right")
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("the header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("the header must be an object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the header has a name twice")
    return found


def _texts(header: dict[str, Any]) -> dict[str, str]:
    texts = header.get(METADATA, {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"{METADATA} must hold texts")
    return texts


def _entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """dtype, shape, begin and end of an array."""
    try:
        dtype, shape, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"array {name!r:.80}: {error!r:.80}") from error
    if len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 62 for n in (*shape, begin, end)):
        raise ValueError(
            f"array {name!r:.80}: expected whole numbers, found {shape!r:.80} and {begin!r:.20}, {end!r:.20}"
        )
    return dtype, shape, begin, end
