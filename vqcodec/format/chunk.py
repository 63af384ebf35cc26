"""One chunk as stored in a file, and the streams of a map's tiles in it (docs/FORMAT.md, "Chunks").

tag | length | payload | CRC-32 of all three
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vqcodec.errors import CorruptChunk, FormatError, TruncatedFile
from vqcodec.format.wire import Cursor, Memory, Source, crc32, encode_varint

CRC_SIZE = 4
#: Size of the shortest entry in a map's index.
_SHORTEST_ENTRY = 1 + CRC_SIZE


@dataclass(frozen=True)
class Chunk:
    """One chunk as stored in the file.

    tag: one ASCII letter. name: human-readable, such as "map 3".
    offset, size: position of the whole chunk, in bytes. start: where its payload starts.
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
        return self.offset + self.size - CRC_SIZE

    @property
    def payload(self) -> memoryview:
        """The payload: a view, not a copy, of bytes in memory; read again each time from a file."""
        return self.source.read(self.start, self.end)

    def check_whole(self) -> None:
        """Raise ``TruncatedFile`` if the source ends before the chunk."""
        left = self.source.size - self.start
        for size in (self.end - self.start, CRC_SIZE):
            if size > left:
                raise TruncatedFile(self.name, f"{size} bytes expected, {left} found")
            left -= size

    def crc_error(self) -> CorruptChunk | None:
        """The error if the chunk's CRC is wrong, else None."""
        stored = self.source.read(self.end, self.end + CRC_SIZE)
        return crc_error(self.source, self.offset, self.end, int.from_bytes(stored, "little"), self.name)

    def held(self) -> Chunk:
        """The chunk read into memory, its CRC checked. Raises ``CorruptChunk``."""
        chunk = replace(self, source=Memory(self.source.read(self.offset, self.offset + self.size), self.offset))
        if error := chunk.crc_error():
            raise error
        return chunk


def encoded(tag: str, payload: bytes) -> bytes:
    """The bytes of a chunk."""
    body = tag.encode("ascii") + encode_varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(CRC_SIZE, "little")


def crc_error(source: Source, start: int, end: int, stored: int, name: str, part: str = "") -> CorruptChunk | None:
    """None, or the error if the CRC-32 of the bytes from ``start`` to ``end`` is not ``stored``."""
    computed = crc32(source, start, end)
    if computed == stored:
        return None
    return CorruptChunk(name, f"{part}CRC-32 must be {stored:08x}, computed {computed:08x}")


def join_tiles(streams: Sequence[bytes]) -> bytes:
    """The payload of a map: its only stream; or an index (length and CRC-32 of each stream), then the streams."""
    if len(streams) == 1:
        return streams[0]
    index = [encode_varint(len(s)) + zlib.crc32(s).to_bytes(CRC_SIZE, "little") for s in streams]
    return b"".join([*index, *streams])


class TileIndex:
    """Positions of the streams of a map's tiles. Reads only the index of the chunk.

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
        while len(sizes) < count:  # each time, the minimum size of the missing entries
            more = max(1, _SHORTEST_ENTRY * (count - len(sizes)) - len(rest))
            upto = min(at + more, chunk.end)
            cursor = Cursor(
                memoryview(rest + chunk.source.read(at, upto)), chunk.name, TruncatedFile if upto > at else CorruptChunk
            )
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
        """Raise ``CorruptChunk`` if the stream's CRC is wrong. It is read from ``source``."""
        if not self._crcs:
            return
        start, end = self._starts[tile : tile + 2]
        part = f"tile {tile}: "
        if error := crc_error(source or self._chunk.source, start, end, self._crcs[tile], self._chunk.name, part):
            raise error
