"""A reader of .vqc files, version 1, written from docs/FORMAT.md and nothing else.

It imports nothing of vqcodec, uses plain Python integers, and is as slow and as direct as
the specification reads. The tests hold the library against it.
"""

from __future__ import annotations

import zlib
from typing import Any

MAGIC = bytes.fromhex("8F565143")
METADATA = "iex"
FIELDS = ("width", "height", "tile", "class", "level", "quality", "maps", "flags")
RANGES = {
    "width": (1, 2**30), "height": (1, 2**30), "tile": (0, 2**30), "class": (0, 65535),
    "level": (0, 255), "quality": (0, 100), "maps": (0, 255), "flags": (0, 7), "bound": (0, 64),
}  # fmt: skip


class Invalid(Exception):
    """The file breaks a rule of the specification."""


def require(condition: bool, rule: str) -> None:
    if not condition:
        raise Invalid(rule)


# -- Numbers -----------------------------------------------------------------------------


def number(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends."""
    value = 0
    for i in range(5):
        require(at + i < len(data), "a number must not be cut off")
        byte = data[at + i]
        value += (byte & 127) << (7 * i)
        if byte < 128:
            require(byte > 0 or i == 0, "a number must have its shortest form")
            return value, at + i + 1
    raise Invalid("a number takes at most five bytes")


def crc(data: bytes) -> bytes:
    """CRC-32, one bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return (register ^ 0xFFFFFFFF).to_bytes(4, "little")


def inflate(data: bytes, most: int) -> bytes:
    """The content of a zlib stream, which must be at most ``most`` bytes."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise Invalid("a zlib stream must be valid") from error
    require(len(content) <= most, "a zlib stream must not hold more than the specification allows")
    require(inflater.eof and not inflater.unused_data, "a zlib stream must end where its chunk ends")
    return content


# -- Chunks ------------------------------------------------------------------------------


def read(data: bytes) -> dict:
    """Everything in a file: the header's fields, "metadata", "streams"[map][tile], "alpha", "digest"."""
    require(data[:4] == MAGIC, "magic")
    require(len(data) > 4 and data[4] == 1, "version")
    found: dict[str, Any] = {"metadata": {}, "streams": [], "alpha": None, "digest": None}
    at, tags = 5, ""
    while not tags.endswith("Z"):
        require(at < len(data), "the file must not end before Z")
        size, begin = number(data, at + 1)
        end = begin + size
        require(end + 4 <= len(data), "a chunk must not be cut off")
        require(crc(data[at:end]) == data[end : end + 4], "the CRC must agree")
        tag, payload = chr(data[at]), data[begin:end]
        require(tag in "HMAZ" or ("a" <= tag <= "z"), "a critical chunk must be known")
        require((tag == "H") == (tags == ""), "H must be first, once")
        if tag == "H":
            found |= header(payload)
        elif tag in METADATA:
            require(tag not in tags and not set("MA") & set(tags), "metadata must come once, before the maps")
            found["metadata"][tag] = inflate(payload, 2**24)
        elif tag == "M":
            require("A" not in tags, "maps must come before alpha")
            found["streams"].append(tiles(payload, tile_count(found) * streams_of_a_tile(found)))
        elif tag == "A":
            require("A" not in tags, "alpha must come once")
            found["alpha"] = alpha(payload, found["width"], found["height"])
        elif tag == "d":
            require("d" not in tags and len(payload) == 16, "d must come once, with 16 bytes")
            found["digest"] = payload
        elif tag == "Z":
            require(not payload, "Z must be empty")
        require(not ("d" in tags and tag in "MAiex"), "d must come after alpha")
        if tag in "AdZ":
            require(len(found["streams"]) == found["maps"], "there must be as many maps as the header promises")
        require(len(found["streams"]) <= found["maps"], "there must be as many maps as the header promises")
        tags, at = tags + tag, end + 4
    require(at == len(data), "nothing may follow Z")
    return found


def header(payload: bytes) -> dict:
    require(len(payload) >= 16, "H must hold the fingerprint")
    fields: dict[str, Any] = {"fingerprint": payload[:16]}
    at = 16
    for name in (*FIELDS, "bound"):
        if name == "bound" and not fields["flags"] & 2:
            fields["bound"] = 0
            break
        fields[name], at = number(payload, at)
        low, high = RANGES[name]
        require(low <= fields[name] <= high, f"{name} must be in its range")
    require(fields["tile"] % 64 == 0, "tile must be a multiple of 64")
    require(at == len(payload), "H must end with the flags or the bound")
    side = fields["tile"] or max(fields["width"], fields["height"])
    require(min(side, fields["width"]) * min(side, fields["height"]) <= 2**22, "a tile has at most 2^22 pixels")
    if fields["flags"] & 2:
        require(fields["maps"] in (1, 6), "samples have 1 or 6 maps")
        others = fields["class"], fields["level"], any(fields["fingerprint"])
        require(not any(others), "samples have no model, class or level")
    else:
        require(not fields["flags"] & 4, "only samples have 16 bits")
    return fields


def tile_count(found: dict) -> int:
    side = found["tile"]
    return -(-found["width"] // side) * -(-found["height"] // side) if side else 1


def streams_of_a_tile(found: dict) -> int:
    return 3 if found["flags"] & 3 == 2 else 1


def tiles(payload: bytes, count: int) -> list[bytes]:
    if count == 1:
        return [payload]
    entries, at = [], 0
    for _ in range(count):
        size, at = number(payload, at)
        entries.append((size, payload[at : at + 4]))
        at += 4
    require(at + sum(size for size, _ in entries) == len(payload), "the lengths must add up")
    streams = []
    for size, check in entries:
        streams.append(payload[at : at + size])
        require(crc(streams[-1]) == check, "the CRC of a tile must agree")
        at += size
    return streams


def alpha(payload: bytes, width: int, height: int) -> list[list[int]]:
    """Rows of alpha values."""
    require(len(payload) > 0 and payload[0] <= 4, "alpha must have a known method")
    if payload[0] == 0:
        require(len(payload) == 2, "a constant alpha is one byte")
        return [[payload[1]] * width for _ in range(height)]
    content = inflate(payload[1:], width * height)
    require(len(content) == width * height, "alpha must have width x height bytes")
    rows = [list(content[y * width : (y + 1) * width]) for y in range(height)]
    if payload[0] in (3, 4):
        for y in range(1, height):
            rows[y] = [(byte + above) % 256 for byte, above in zip(rows[y], rows[y - 1])]
    if payload[0] in (2, 4):
        for row in rows:
            for x in range(1, width):
                row[x] = (row[x] + row[x - 1]) % 256
    return rows


# -- Range coder -------------------------------------------------------------------------


class RangeDecoder:
    """The decoder of one stream."""

    def __init__(self, stream: bytes) -> None:
        self.stream, self.at = stream, 0
        self.offset = self.word() << 32
        self.offset += self.word()
        self.range = 2**64 - 1

    def word(self) -> int:
        word = self.stream[self.at : self.at + 4].ljust(4, b"\0")
        self.at += 4
        return int.from_bytes(word, "big")

    def symbol(self, frequencies: list[int]) -> int:
        """The next symbol, whose table has these frequencies."""
        scale = self.range // 2**24
        q = self.offset // scale
        require(q < 2**24, "the stream must be valid")
        k, before = 0, 0
        while q >= before + frequencies[k]:
            before += frequencies[k]
            k += 1
        self.offset -= scale * before
        self.range = scale * frequencies[k]
        if self.range < 2**32:
            self.range *= 2**32
            self.offset = (self.offset << 32) + self.word()
        return k
