"""Reading from untrusted bytes: numbers, bounds, bounded inflation."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Protocol

from vqcodec.errors import CorruptChunk, InvalidArgument, TruncatedFile
from vqcodec.locks import Lock

_BLOCK = 1 << 18  # bytes read at a time where not all need to be in memory


def encode_varint(value: int) -> bytes:
    """Unsigned LEB128: seven bits per byte, lowest first; the high bit means that more follow.

    >>> encode_varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """Reads a view from start to end.

    chunk: name of what is being read, for errors.
    short: the error to raise for missing bytes.
    at: bytes read so far.
    """

    def __init__(self, view: memoryview, chunk: str, short: type[CorruptChunk | TruncatedFile] = CorruptChunk) -> None:
        self.view, self.chunk, self.short, self.at = view, chunk, short, 0

    @property
    def left(self) -> int:
        """Number of bytes left."""
        return len(self.view) - self.at

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes, not copied."""
        if size > self.left:
            raise self.short(self.chunk, f"{size} bytes expected, {self.left} found")
        self.at += size
        return self.view[self.at - size : self.at]

    def varint(self) -> int:
        """One LEB128 number of at most five bytes, in its shortest form."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    spent = shift // 7 + 1
                    raise CorruptChunk(self.chunk, f"{value} must be in its shortest form, found {spent} bytes")
                return value
        raise CorruptChunk(self.chunk, "a number must have at most 5 bytes, found more")

    def uint32(self) -> int:
        """Four bytes, little endian."""
        return int.from_bytes(self.take(4), "little")

    def finish(self) -> None:
        """Raise ``CorruptChunk`` unless everything has been read."""
        if self.left:
            raise CorruptChunk(self.chunk, f"must end here, found {self.left} more bytes")


class Source(Protocol):
    """Bytes with random access. size: their number."""

    size: int

    def read(self, start: int, end: int) -> memoryview:
        """The bytes from ``start`` to ``end``, both at most ``size``."""


class Memory:
    """A source in memory: the bytes from ``base`` on. Reading copies nothing."""

    def __init__(self, data: bytes | bytearray | memoryview, base: int = 0) -> None:
        try:
            self._view = memoryview(data).cast("B")
        except TypeError:
            raise InvalidArgument(f"data must be bytes-like, got {type(data).__name__}") from None
        self._base, self.size = base, base + len(self._view)

    def read(self, start: int, end: int) -> memoryview:
        return self._view[start - self._base : end - self._base]


class File:
    """A source in a seekable binary file, for any number of threads. Raises ``TruncatedFile`` if it shrinks, and ``OSError``.

    A plain file is read without moving its position, which forked processes share; others may not be used by
    several processes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._file, self.size = file, file.seek(0, 2)
            self._lock = Lock()  # between finding the place and reading there
            whole = isinstance(file.read(0), bytes)
        except (AttributeError, TypeError, OSError) as error:
            raise InvalidArgument(
                f"source must be bytes-like or a binary file that can seek, got {type(file).__name__}"
            ) from error
        if not whole:
            raise InvalidArgument("source must be a binary file, got one of text")
        raw = file.raw if type(file) is io.BufferedReader else file
        self._plain = type(raw) is io.FileIO and hasattr(os, "pread")

    def read(self, start: int, end: int) -> memoryview:
        pieces, left = [], end - start
        while left and (piece := self._piece(end - left, left)):
            pieces.append(piece)
            left -= len(piece)
        if left:
            raise TruncatedFile("file", f"{end - start} bytes expected at byte {start}, {end - start - left} found")
        return memoryview(b"".join(pieces))

    def _piece(self, at: int, size: int) -> bytes:
        if self._plain:
            return os.pread(self._file.fileno(), size, at)
        with self._lock:
            self._file.seek(at)
            return self._file.read(size)


def blocks(source: Source, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from ``start`` to ``end``, a few at a time."""
    for at in range(start, end, _BLOCK):
        yield source.read(at, min(at + _BLOCK, end))


def crc32(source: Source, start: int, end: int) -> int:
    """The CRC-32 of the bytes from ``start`` to ``end``."""
    crc = 0
    for block in blocks(source, start, end):
        crc = zlib.crc32(block, crc)
    return crc


def inflate(stream: bytes | memoryview, chunk: str, most: int) -> bytes | None:
    """The content of a zlib stream, or None if that is more than ``most`` bytes.

    Never holds more than ``most`` + 1 bytes of it. Raises ``CorruptChunk``, naming ``chunk``.
    """
    content = b"".join(inflate_blocks(blocks(Memory(stream), 0, len(stream)), chunk, most))
    return None if len(content) > most else content


def inflate_blocks(stream: Iterable[bytes | memoryview], chunk: str, most: int) -> Iterator[bytes]:
    """The content of a zlib stream in small pieces; the last is cut at ``most`` + 1 bytes in all.

    Raises ``CorruptChunk``, naming ``chunk``, after everything valid has been returned.
    """
    inflater = zlib.decompressobj()
    left, surplus = most + 1, 0
    for block in stream:
        if inflater.eof:
            surplus += len(block)
            continue
        while block:
            try:
                piece = inflater.decompress(block, min(left, _BLOCK))
            except zlib.error as error:
                raise CorruptChunk(chunk, f"must be a zlib stream, found: {error}") from None
            yield piece
            left -= len(piece)
            if left == 0:
                return
            block = inflater.unconsumed_tail
        surplus += len(inflater.unused_data)
    if not inflater.eof:
        raise CorruptChunk(chunk, "must be a whole zlib stream, found only its beginning")
    if surplus:
        raise CorruptChunk(chunk, f"must end with its zlib stream, found {surplus} more bytes")
