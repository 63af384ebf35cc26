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
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
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
from vqcodec.format.header import Box, Header, tile_grid
from vqcodec.format.wire import Cursor, Memory, Source, crc32, encode_varint, inflate

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Box", "Chunk", "Container", "Header", "Limits", "MAGIC", "VERSION",
    "chunks", "describe", "read", "read_header", "tile_grid", "write",
]  # fmt: skip

MAGIC = b"\x8fVQC"
VERSION = 1

METADATA = {"i": "icc", "e": "exif", "x": "xmp"}
_NAMES = {"H": "header", "i": "ICC profile", "e": "EXIF", "x": "XMP", "A": "alpha", "Z": "end"}
_ORDER = {"H": 0, "i": 1, "e": 1, "x": 1, "M": 2, "A": 3, "Z": 4}
_CRC_SIZE = 4
START = len(MAGIC) + 1
_LONGEST_HEAD = 6
_SHORTEST_ENTRY = 1 + _CRC_SIZE  # of a map's index


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. Exceeding one raises ``LimitExceeded``.

    pixels: width times height.
    metadata: bytes of one inflated metadata chunk.
    chunks: number of chunks in the file.
    map_bytes: bytes of one map chunk, or of one of an unknown kind.
    memory: bytes that decoding works in, as estimated from the header before anything is allocated, see
        :meth:`vqcodec.codec.decoder.Canvas.memory`. Only what decodes knows it: reading the container does not ask.

    From these follows how long any chunk may be, see ``chunk_bytes``.
    """

    pixels: int = 1 << 31
    metadata: int = 16 << 20
    chunks: int = 1024
    map_bytes: int = 1 << 30
    memory: int = 8 << 30

    def chunk_bytes(self, tag: str, pixels: int) -> int:
        """The longest payload of a chunk in a picture of ``pixels``: no zlib stream need be twice its content."""
        content = {"H": 0, "Z": 0, "A": pixels} | dict.fromkeys(METADATA, self.metadata)
        return 2 * content[tag] + 1024 if tag in content else self.map_bytes


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
    offset, size: where the whole chunk lies, in bytes. start: where its payload does.
    error: why the chunk cannot be used, or None.
    """

    tag: str
    name: str
    offset: int
    size: int
    start: int
    source: Source = field(repr=False, compare=False)
    error: FormatError | None = None

    @property
    def end(self) -> int:
        """Where the payload ends, and the CRC begins."""
        return self.offset + self.size - _CRC_SIZE

    @property
    def payload(self) -> memoryview:
        """A view, not a copy, of bytes in memory; from a file it is read each time."""
        return self.source.read(self.start, self.end)

    def check_whole(self) -> None:
        """Raise ``TruncatedFile`` if the source ends before the chunk."""
        left = self.source.size - self.start
        for size in (self.end - self.start, _CRC_SIZE):
            if size > left:
                raise TruncatedFile(self.name, f"{size} bytes expected, {left} found")
            left -= size

    def crc_error(self) -> CorruptChunk | None:
        """What the chunk's CRC says of it."""
        stored = self.source.read(self.end, self.end + _CRC_SIZE)
        return _crc_error(self.source, self.offset, self.end, int.from_bytes(stored, "little"), self.name)

    def held(self) -> Chunk:
        """The chunk read into memory, its CRC checked. Raises ``CorruptChunk``."""
        chunk = replace(self, source=Memory(self.source.read(self.offset, self.offset + self.size), self.offset))
        if error := chunk.crc_error():
            raise error
        return chunk


def write(container: Container) -> bytes:
    """The bytes of a file. Raises ``InvalidArgument`` if header and content disagree."""
    header, metadata = container.header, container.metadata
    if len(container.maps) != header.maps:
        raise InvalidArgument(f"the header promises {header.maps} maps, got {len(container.maps)}")
    if unknown := set(metadata) - set(METADATA.values()):
        raise InvalidArgument(f"metadata must be any of icc, exif, xmp, got {sorted(unknown)}")
    parts = [MAGIC, bytes([VERSION]), _chunk("H", header.to_bytes())]
    for tag, key in METADATA.items():
        if key in metadata:
            if len(metadata[key]) > Limits.metadata:
                raise InvalidArgument(f"{key} must be at most {Limits.metadata} bytes, got {len(metadata[key])}")
            parts.append(_chunk(tag, zlib.compress(metadata[key], 9)))
    for number, streams in enumerate(container.maps):
        if len(streams) != header.tile_count:
            raise InvalidArgument(f"map {number} must have {header.tile_count} tiles, got {len(streams)}")
        parts.append(_chunk("M", _join_tiles(streams)))
    if container.alpha is not None:
        from vqcodec.format import alpha  # here, because it loads NumPy, which most files do not need

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
    found = frames(Memory(data), limits)
    result = Container(header_of(next(found), limits))
    result.error, trusted = use_whole(found, lambda chunk: interpret(chunk, result, limits), partial)
    if not trusted:
        result.maps, result.alpha = [], None
    return result


def read_header(data: bytes | memoryview, *, limits: Limits = Limits()) -> Header:
    """The header alone; what follows it is not looked at. Raises ``FormatError``."""
    return header_of(next(frames(Memory(data), limits)), limits)


def chunks(data: bytes | memoryview, *, limits: Limits = Limits()) -> Iterator[Chunk]:
    """The chunks of a file, header first, each checked before it is handed out.

    Payloads are not interpreted. Raises ``FormatError`` at the first damage.
    """
    for chunk in frames(Memory(data), limits):
        if chunk.error:
            raise chunk.error
        yield chunk


def describe(data: bytes | memoryview, *, limits: Limits = Limits()) -> dict[str, Any]:
    """What header and chunks say, as plain values that JSON can hold. Decodes nothing.

    All checks of the chunks are made. Raises ``FormatError``.
    """
    header = read_header(data, limits=limits)
    found = list(chunks(data, limits=limits))
    size = Memory(data).size
    described: dict[str, Any] = {"format": VERSION, "bytes": size}
    for f in fields(header):
        value = getattr(header, f.name)
        described[f.name] = value.hex() if isinstance(value, bytes) else value
    return described | {
        "bits_per_pixel": 8 * size / (header.width * header.height),
        "tiles": header.tile_count,
        "metadata": [METADATA[c.tag] for c in found if c.tag in METADATA],
        "alpha": any(c.tag == "A" for c in found),
        "chunks": [{"tag": c.tag, "name": c.name, "offset": c.offset, "bytes": c.size} for c in found],
    }


# -- chunks ------------------------------------------------------------------------------


def _chunk(tag: str, payload: bytes) -> bytes:
    body = tag.encode("ascii") + encode_varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(_CRC_SIZE, "little")


def _crc_error(source: Source, start: int, end: int, stored: int, name: str, part: str = "") -> CorruptChunk | None:
    computed = crc32(source, start, end)
    if computed == stored:
        return None
    return CorruptChunk(name, f"{part}CRC-32 must be {stored:08x}, computed {computed:08x}")


def frames(source: Source, limits: Limits, *, checked: bool = True) -> Iterator[Chunk]:
    """Every chunk with its checks made and its order judged, the result in ``Chunk.error``.

    checked: compute the CRCs. Otherwise only those of header and end are, and the payloads
    of the others are not read: their order is that of tags that nobody vouches for.

    Raises if the framing itself ends: at a truncation, an absurd length, or after the end.
    """
    check_start(source)
    at = START
    order = Order(limits)
    while not order.ended:
        chunk = order.head(source, at)
        chunk.check_whole()
        at += chunk.size
        yield order.judge(chunk, checked)
    check_end(source, at)


def check_start(source: Source) -> None:
    """Magic and version. Raises ``NotVqcodec``, ``UnsupportedVersion``, ``TruncatedFile``."""
    cursor = Cursor(source.read(0, min(START, source.size)), "magic", TruncatedFile)
    start = bytes(cursor.view[: len(MAGIC)])
    if not start or not MAGIC.startswith(start):
        raise NotVqcodec(f"a vqcodec file begins with {MAGIC.hex(' ')}, found {start.hex(' ') or 'nothing'}")
    cursor.take(len(MAGIC))
    cursor.chunk = "version"
    version = cursor.take(1)[0]
    if version != VERSION:
        raise UnsupportedVersion(f"format version {VERSION} is supported, found {version}")


def check_end(source: Source, at: int) -> None:
    """Raise ``CorruptChunk`` if anything follows the end chunk, which ends at ``at``."""
    if at < source.size:
        raise CorruptChunk("end", f"must end here, found {source.size - at} more bytes")


class Order:
    """Reads the heads of chunks, and judges which may follow: H, then metadata, maps, alpha, Z.

    Chunks with a bad check are not judged: their tag may be wrong.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.count = 0
        self.maps = 0  # promised by the header
        self.pixels = 0  # by the header
        self.seen_maps = 0
        self.rank = -1
        self.seen: set[str] = set()

    @property
    def ended(self) -> bool:
        return "Z" in self.seen

    def head(self, source: Source, at: int) -> Chunk:
        """The chunk at ``at``, of which only tag and length have been read.

        Raises ``TruncatedFile`` if these are not whole, ``CorruptChunk``, ``LimitExceeded``.
        """
        if self.count >= self.limits.chunks:
            raise LimitExceeded(f"at most {self.limits.chunks} chunks are allowed, found more")
        cursor = Cursor(source.read(at, min(at + _LONGEST_HEAD, source.size)), self._expected, TruncatedFile)
        tag = chr(cursor.take(1)[0])
        cursor.chunk = name = f"map {self.seen_maps}" if tag == "M" else _NAMES.get(tag, f"chunk {tag!r} at byte {at}")
        size = cursor.varint()
        return Chunk(tag, name, at, cursor.at + size + _CRC_SIZE, at + cursor.at, source)

    @property
    def _expected(self) -> str:
        """Name of what a file that ends here is missing first."""
        if not self.seen:
            return "header"
        return f"map {self.seen_maps}" if self.seen_maps < self.maps else "end"

    def judge(self, chunk: Chunk, checked: bool = True) -> Chunk:
        """The chunk, which must be the next, with ``error`` set. ``checked`` as for ``frames``."""
        self.count += 1
        error: FormatError | None = self.too_long(chunk)
        if error is None and (checked or not self.seen or chunk.tag == "Z"):
            error = chunk.crc_error()
        error = error or self._misplaced(chunk)
        if chunk.tag == "H" and error is None:
            header = Header.from_bytes(chunk.payload)
            self.maps, self.pixels = header.maps, header.width * header.height
        return replace(chunk, error=error)

    def too_long(self, chunk: Chunk) -> LimitExceeded | None:
        """Needs no more than the head."""
        most, size = self.limits.chunk_bytes(chunk.tag, self.pixels), chunk.end - chunk.start
        return LimitExceeded(f"{chunk.name}: at most {most} bytes are allowed, found {size}") if size > most else None

    def _misplaced(self, chunk: Chunk) -> FormatError | None:
        tag, name = chunk.tag, chunk.name
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
        if tag == "Z" and chunk.end > chunk.start:
            return CorruptChunk(name, f"must be empty, found {chunk.end - chunk.start} bytes")
        return None


def use_whole(found: Iterable[Chunk], use: Callable[[Chunk], None], partial: bool) -> tuple[FormatError | None, bool]:
    """Hand chunks to ``use``, which may find more damage, as "Damaged files" in the format says.

    Returns the first damage, and whether the maps that were used are those they seem to be.
    Raises ``FormatError`` at the first damage unless ``partial``.
    """
    dropped: FormatError | None = None
    try:
        for chunk in found:
            try:
                if chunk.error:
                    raise chunk.error
                use(chunk)
            except FormatError as error:
                if not (partial and chunk.tag in METADATA):
                    raise
                dropped = dropped or error
    except FormatError as error:
        if not partial:
            raise
        return dropped or error, dropped is None
    return dropped, True


# -- payloads ----------------------------------------------------------------------------


def header_of(chunk: Chunk, limits: Limits) -> Header:
    """The content of the first chunk. Raises ``FormatError``."""
    if chunk.error:
        raise chunk.error
    header = Header.from_bytes(chunk.payload)
    if header.width * header.height > limits.pixels:
        found = f"{header.width} x {header.height}"
        raise LimitExceeded(f"header: at most {limits.pixels} pixels are allowed, found {found}")
    return header


def interpret(chunk: Chunk, result: Container, limits: Limits) -> None:
    """Put the content of a sound chunk into ``result``; unknown ancillary chunks are skipped."""
    if chunk.tag in METADATA:
        content = inflate(chunk.payload, chunk.name, limits.metadata)
        if content is None:
            raise LimitExceeded(f"{chunk.name}: at most {limits.metadata} bytes are allowed, found more")
        result.metadata[METADATA[chunk.tag]] = content
    elif chunk.tag == "M":
        count = result.header.tile_count
        index = TileIndex(chunk, count)
        result.maps.append([index.stream(tile) for tile in range(count)])
    elif chunk.tag == "A":
        from vqcodec.format import alpha  # here, because it loads NumPy, which most files do not need

        result.alpha = alpha.decode(chunk.payload, result.header.width, result.header.height)


def _join_tiles(streams: list[bytes]) -> bytes:
    if len(streams) == 1:
        return streams[0]
    index = [encode_varint(len(s)) + zlib.crc32(s).to_bytes(_CRC_SIZE, "little") for s in streams]
    return b"".join([*index, *streams])


class TileIndex:
    """Where the streams of a map's tiles lie. Reads the index and nothing more of the chunk.

    Raises ``CorruptChunk`` unless the lengths add up.
    """

    def __init__(self, chunk: Chunk, count: int) -> None:
        self._chunk = chunk
        sizes, self._crcs = array("Q"), array("Q")
        at = chunk.start
        if count == 1:
            sizes.append(chunk.end - at)
        elif count * _SHORTEST_ENTRY > chunk.end - at:
            raise CorruptChunk(chunk.name, f"the index of {count} tiles does not fit into {chunk.end - at} bytes")
        rest = b""
        while len(sizes) < count:  # each time as much as the entries that are missing must at least have
            more = max(1, _SHORTEST_ENTRY * (count - len(sizes)) - len(rest))
            upto = min(at + more, chunk.end)
            cursor = Cursor(memoryview(rest + chunk.source.read(at, upto)), chunk.name, TruncatedFile if upto > at else CorruptChunk)
            at = upto
            try:
                while len(sizes) < count:
                    done = cursor.at
                    size, crc = cursor.varint(), cursor.uint32()
                    sizes.append(size)
                    self._crcs.append(crc)
            except TruncatedFile:
                rest = bytes(cursor.view[done:])
        self._starts = array("Q", [at])
        for size in sizes:
            if size > chunk.end - at:
                raise CorruptChunk(chunk.name, f"{size} bytes expected, {chunk.end - at} found")
            at += size
            self._starts.append(at)
        if at < chunk.end:
            raise CorruptChunk(chunk.name, f"must end here, found {chunk.end - at} more bytes")

    def stream(self, tile: int) -> bytes:
        """The stream of a tile, its CRC checked, unless it is the only one. Raises ``CorruptChunk``."""
        start, end = self._starts[tile : tile + 2]
        data = self._chunk.source.read(start, end)
        self.check(tile, Memory(data, start))
        return bytes(data)

    def check(self, tile: int, source: Source | None = None) -> None:
        """Raise ``CorruptChunk`` if the stream's CRC is wrong. ``source`` is where to read it."""
        if not self._crcs:
            return
        start, end = self._starts[tile : tile + 2]
        part = f"tile {tile}: "
        if error := _crc_error(source or self._chunk.source, start, end, self._crcs[tile], self._chunk.name, part):
            raise error
