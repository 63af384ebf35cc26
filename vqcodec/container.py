"""The .vqc file: a chain of checked chunks, coarse to fine (docs/FORMAT.md, "Container").

    magic, version | H | i e x | M 0 | M 1 | ... | M maps-1 | A | Z
                  header  metadata    code maps           alpha  end

Every chunk is a tag, a length, a payload and a CRC-32 of all three, so that a damaged
file gives an error that names the chunk, and a truncated one still has its coarser maps.
Nothing here knows what the maps mean: their streams are opaque bytes.

Every length is checked against what is there, and every size against ``Limits``, before
anything is allocated for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from vqcodec.errors import (
    CorruptChunk,
    FormatError,
    InvalidArgument,
    LimitExceeded,
    NotVqcodec,
    TruncatedFile,
    UnsupportedVersion,
)
from vqcodec.header import Box, Header, tile_grid
from vqcodec.wire import Cursor, encode_varint, inflate

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Box", "Chunk", "Container", "Header", "Limits", "MAGIC", "VERSION",
    "chunks", "describe", "read", "read_header", "tile_grid", "write",
]  # fmt: skip

MAGIC = b"\x8fVQC"
VERSION = 1

_METADATA = {"i": "icc", "e": "exif", "x": "xmp"}
_NAMES = {"H": "header", "i": "ICC profile", "e": "EXIF", "x": "XMP", "A": "alpha", "Z": "end"}
_ORDER = {"H": 0, "i": 1, "e": 1, "x": 1, "M": 2, "A": 3, "Z": 4}
_CRC_SIZE = 4


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. Exceeding one raises ``LimitExceeded``.

    pixels: width times height.
    metadata: bytes of one inflated metadata chunk.
    chunks: number of chunks in the file.
    map_bytes: bytes of one map chunk.
    """

    pixels: int = 1 << 31
    metadata: int = 16 << 20
    chunks: int = 1024
    map_bytes: int = 1 << 30


# -- the file ----------------------------------------------------------------------------


@dataclass
class Container:
    """The content of a file.

    metadata: any of the keys "icc", "exif", "xmp", each with its raw bytes.
    maps: maps[m][t] is the stream of map m, tile t (tiles in raster order).
    alpha: uint8, height x width, or None.
    error: why something is missing after ``read(..., partial=True)``; else None.
    """

    header: Header
    metadata: dict[str, bytes] = field(default_factory=dict)
    maps: list[list[bytes]] = field(default_factory=list)
    alpha: np.ndarray | None = None
    error: FormatError | None = None


@dataclass(frozen=True)
class Chunk:
    """One chunk as it lies in the file.

    tag: one ASCII letter. name: for people, such as "map 3".
    offset, size: where the whole chunk lies, in bytes. payload: a view, not a copy.
    error: why the chunk cannot be used, or None.
    """

    tag: str
    name: str
    offset: int
    size: int
    payload: memoryview
    error: FormatError | None


def write(container: Container) -> bytes:
    """The bytes of a file. Raises ``InvalidArgument`` if header and content disagree."""
    header, metadata = container.header, container.metadata
    if len(container.maps) != header.maps:
        raise InvalidArgument(f"the header promises {header.maps} maps, got {len(container.maps)}")
    if unknown := set(metadata) - set(_METADATA.values()):
        raise InvalidArgument(f"metadata must be any of icc, exif, xmp, got {sorted(unknown)}")
    parts = [MAGIC, bytes([VERSION]), _chunk("H", header.to_bytes())]
    for tag, key in _METADATA.items():
        if key in metadata:
            if len(metadata[key]) > Limits.metadata:
                raise InvalidArgument(f"{key} must be at most {Limits.metadata} bytes, got {len(metadata[key])}")
            parts.append(_chunk(tag, zlib.compress(metadata[key], 9)))
    for number, streams in enumerate(container.maps):
        if len(streams) != header.tile_count:
            raise InvalidArgument(f"map {number} must have {header.tile_count} tiles, got {len(streams)}")
        parts.append(_chunk("M", _join_tiles(streams)))
    if container.alpha is not None:
        from vqcodec import alpha  # here, because it loads NumPy, which most files do not need

        if container.alpha.shape != (header.height, header.width):
            raise InvalidArgument(f"alpha must be {header.height} x {header.width}, got {container.alpha.shape}")
        if container.alpha.dtype != "uint8":
            raise InvalidArgument(f"alpha must be uint8, got {container.alpha.dtype}")
        parts.append(_chunk("A", alpha.encode(container.alpha)))
    parts.append(_chunk("Z", b""))
    return b"".join(parts)


def read(data: bytes | memoryview, *, partial: bool = False, limits: Limits = Limits()) -> Container:
    """The content of a file.

    partial: return what is whole of a damaged or truncated file, and say in ``.error`` what
    is wrong. ``maps`` is then shorter than ``header.maps`` promises. The header must be
    whole. A damaged metadata chunk is dropped alone if all else is whole; otherwise the
    maps are dropped with it, because then nothing proves which map is which.

    Raises ``FormatError``: ``NotVqcodec``, ``UnsupportedVersion``, ``CorruptChunk``,
    ``TruncatedFile``, ``LimitExceeded``.
    """
    frames = _frames(_view(data), limits)
    result = Container(_header(frames, limits))
    dropped: list[FormatError] = []
    try:
        for chunk in frames:
            try:
                _interpret(chunk, result, limits)
            except FormatError as error:
                if not (partial and chunk.tag in _METADATA):
                    raise
                dropped.append(error)
    except FormatError as error:
        if not partial:
            raise
        if dropped:
            result.maps, result.alpha = [], None
        dropped.append(error)
    result.error = dropped[0] if dropped else None
    return result


def read_header(data: bytes | memoryview, *, limits: Limits = Limits()) -> Header:
    """The header alone; what follows it is not looked at. Raises ``FormatError``."""
    return _header(_frames(_view(data), limits), limits)


def chunks(data: bytes | memoryview, *, limits: Limits = Limits()) -> Iterator[Chunk]:
    """The chunks of a file, header first, each checked before it is handed out.

    Payloads are not interpreted. Raises ``FormatError`` at the first damage.
    """
    for chunk in _frames(_view(data), limits):
        if chunk.error:
            raise chunk.error
        yield chunk


def describe(data: bytes | memoryview, *, limits: Limits = Limits()) -> dict[str, Any]:
    """What header and chunks say, as plain values that JSON can hold. Decodes nothing.

    All checks of the chunks are made. Raises ``FormatError``.
    """
    view = _view(data)
    header = read_header(view, limits=limits)
    found = list(chunks(view, limits=limits))
    described: dict[str, Any] = {"format": VERSION, "bytes": len(view)}
    for f in fields(header):
        value = getattr(header, f.name)
        described[f.name] = value.hex() if isinstance(value, bytes) else value
    return described | {
        "bits_per_pixel": 8 * len(view) / (header.width * header.height),
        "tiles": header.tile_count,
        "metadata": [_METADATA[c.tag] for c in found if c.tag in _METADATA],
        "alpha": any(c.tag == "A" for c in found),
        "chunks": [{"tag": c.tag, "name": c.name, "offset": c.offset, "bytes": c.size} for c in found],
    }


# -- chunks ------------------------------------------------------------------------------


def _chunk(tag: str, payload: bytes) -> bytes:
    body = tag.encode("ascii") + encode_varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(_CRC_SIZE, "little")


def _view(data: bytes | memoryview) -> memoryview:
    try:
        return memoryview(data).cast("B")
    except TypeError:
        raise InvalidArgument(f"data must be bytes-like, got {type(data).__name__}") from None


def _frames(view: memoryview, limits: Limits) -> Iterator[Chunk]:
    """Every chunk with its checks made and its order judged, the result in ``Chunk.error``.

    Raises if the framing itself ends: at a truncation, an absurd length, or after the end.
    """
    cursor = Cursor(view, "magic", TruncatedFile)
    _check_start(cursor)
    order = _Order()
    count = 0
    while not order.ended:
        cursor.chunk = order.expected
        count += 1
        if count > limits.chunks:
            raise LimitExceeded(f"at most {limits.chunks} chunks are allowed, found more")
        offset = cursor.at
        tag = chr(cursor.take(1)[0])
        cursor.chunk = name = order.name(tag, offset)
        payload = cursor.take(cursor.varint())
        computed = zlib.crc32(view[offset : cursor.at])
        stored = cursor.uint32()
        error: FormatError | None = None
        if computed != stored:
            error = CorruptChunk(name, f"CRC-32 must be {stored:08x}, computed {computed:08x}")
        else:
            error = order.judge(tag, name)
            if tag == "H" and error is None:
                order.maps = Header.from_bytes(payload).maps
        yield Chunk(tag, name, offset, cursor.at - offset, payload, error)
    cursor.finish()


def _check_start(cursor: Cursor) -> None:
    start = bytes(cursor.view[: len(MAGIC)])
    if not start or not MAGIC.startswith(start):
        raise NotVqcodec(f"a vqcodec file begins with {MAGIC.hex(' ')}, found {start.hex(' ') or 'nothing'}")
    cursor.take(len(MAGIC))
    cursor.chunk = "version"
    version = cursor.take(1)[0]
    if version != VERSION:
        raise UnsupportedVersion(f"format version {VERSION} is supported, found {version}")


class _Order:
    """Which chunk may follow: H, then metadata, then maps, then alpha, then Z.

    Chunks with a bad check are not judged: their tag may be wrong.
    """

    def __init__(self) -> None:
        self.maps = 0  # promised by the header
        self.seen_maps = 0
        self.rank = -1
        self.seen: set[str] = set()

    @property
    def ended(self) -> bool:
        return "Z" in self.seen

    @property
    def expected(self) -> str:
        """Name of what a file that ends here is missing first."""
        if not self.seen:
            return "header"
        return f"map {self.seen_maps}" if self.seen_maps < self.maps else "end"

    def name(self, tag: str, offset: int) -> str:
        if tag == "M":
            return f"map {self.seen_maps}"
        return _NAMES.get(tag, f"chunk {tag!r} at byte {offset}")

    def judge(self, tag: str, name: str) -> FormatError | None:
        if not (tag.isascii() and tag.isalpha()):
            return CorruptChunk(name, f"a tag must be an ASCII letter, found {tag!r}")
        if not self.seen and tag != "H":
            return CorruptChunk(name, "the first chunk must be the header")
        if tag not in _ORDER:
            if tag.isupper():
                return UnsupportedVersion(f"{name} is critical and unknown: the file needs a newer vqcodec")
            return None
        if tag in self.seen and tag != "M":
            return CorruptChunk(name, "must appear once, found again")
        if _ORDER[tag] < self.rank:
            return CorruptChunk(name, "comes too late: the order is header, metadata, maps, alpha, end")
        self.seen.add(tag)
        self.rank = _ORDER[tag]
        self.seen_maps += tag == "M"
        if self.seen_maps > self.maps or (tag in "AZ" and self.seen_maps < self.maps):
            return CorruptChunk(name, f"the header promises {self.maps} maps, found {self.seen_maps}")
        return None


# -- payloads ----------------------------------------------------------------------------


def _header(frames: Iterator[Chunk], limits: Limits) -> Header:
    chunk = next(frames)
    if chunk.error:
        raise chunk.error
    header = Header.from_bytes(chunk.payload)
    if header.width * header.height > limits.pixels:
        found = f"{header.width} x {header.height}"
        raise LimitExceeded(f"header: at most {limits.pixels} pixels are allowed, found {found}")
    return header


def _interpret(chunk: Chunk, result: Container, limits: Limits) -> None:
    """Put the content of a chunk into ``result``; unknown ancillary chunks are skipped."""
    if chunk.error:
        raise chunk.error
    if chunk.tag in _METADATA:
        content = inflate(chunk.payload, chunk.name, limits.metadata)
        if content is None:
            raise LimitExceeded(f"{chunk.name}: at most {limits.metadata} bytes are allowed, found more")
        result.metadata[_METADATA[chunk.tag]] = content
    elif chunk.tag == "M":
        if (size := len(chunk.payload)) > limits.map_bytes:
            raise LimitExceeded(f"{chunk.name}: at most {limits.map_bytes} bytes are allowed, found {size}")
        result.maps.append(_split_tiles(chunk, result.header.tile_count))
    elif chunk.tag == "A":
        from vqcodec import alpha  # here, because it loads NumPy, which most files do not need

        result.alpha = alpha.decode(chunk.payload, result.header.width, result.header.height)
    elif chunk.tag == "Z" and len(chunk.payload):
        raise CorruptChunk(chunk.name, f"must be empty, found {len(chunk.payload)} bytes")


def _join_tiles(streams: list[bytes]) -> bytes:
    if len(streams) == 1:
        return streams[0]
    index = [encode_varint(len(s)) + zlib.crc32(s).to_bytes(_CRC_SIZE, "little") for s in streams]
    return b"".join([*index, *streams])


def _split_tiles(chunk: Chunk, count: int) -> list[bytes]:
    if count == 1:
        return [bytes(chunk.payload)]
    if count * (1 + _CRC_SIZE) > len(chunk.payload):
        raise CorruptChunk(chunk.name, f"the index of {count} tiles does not fit into {len(chunk.payload)} bytes")
    cursor = Cursor(chunk.payload, chunk.name)
    index = [(cursor.varint(), cursor.uint32()) for _ in range(count)]
    streams = []
    for number, (size, crc) in enumerate(index):
        stream = bytes(cursor.take(size))
        if (computed := zlib.crc32(stream)) != crc:
            raise CorruptChunk(chunk.name, f"tile {number}: CRC-32 must be {crc:08x}, computed {computed:08x}")
        streams.append(stream)
    cursor.finish()
    return streams
