"""Reading from bytes that nobody vouches for: numbers, bounds, bounded inflation."""

from __future__ import annotations

import zlib

from vqcodec.errors import CorruptChunk, TruncatedFile


def encode_varint(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first; the high bit says that more follow.

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
    """Reads a view from front to back.

    chunk: name of what is being read, for errors.
    short: the error for bytes that are missing.
    at: bytes read so far.
    """

    def __init__(self, view: memoryview, chunk: str, short: type[CorruptChunk | TruncatedFile] = CorruptChunk) -> None:
        self.view, self.chunk, self.short, self.at = view, chunk, short, 0

    @property
    def left(self) -> int:
        """Bytes that remain."""
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


def inflate(stream: bytes | memoryview, chunk: str, most: int) -> bytes | None:
    """The content of a zlib stream, or None if that is more than ``most`` bytes.

    Never holds more than ``most`` + 1 bytes of it. Raises ``CorruptChunk``, naming ``chunk``.
    """
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stream, most + 1)
    except zlib.error as error:
        raise CorruptChunk(chunk, f"must be a zlib stream, found: {error}") from None
    if len(content) > most:
        return None
    if not inflater.eof:
        raise CorruptChunk(chunk, "must be a whole zlib stream, found only its beginning")
    if inflater.unused_data:
        raise CorruptChunk(chunk, f"must end with its zlib stream, found {len(inflater.unused_data)} more bytes")
    return content
