"""The kinds of chunks, in one table used by the writer, the readers and ``info``; see docs/FORMAT.md ("Chunks").

magic, version | H | i e x | M 0 | M 1 | ... | M maps-1 | A | d | Z
              header  metadata    maps                alpha digest end
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument, LimitExceeded
from vqcodec.format.chunk import Chunk, TileIndex, join_tiles
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.wire import inflate

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Container:
    """The content of a file.

    metadata: any of the keys "icc", "exif", "xmp", each with its raw bytes.
    maps: maps[m] are the streams of map m: tiles in raster order, with ``header.streams`` each.
    alpha: uint8, height x width, or None.
    digest: of the pixels (:func:`vqcodec.codec.samples.digest`), 16 bytes, or None.
    error: why something is missing after ``read(..., partial=True)``, or None.
    """

    header: Header
    metadata: dict[str, bytes] = field(default_factory=dict)
    maps: list[list[bytes]] = field(default_factory=list)
    alpha: np.ndarray | None = None
    digest: bytes | None = None
    error: FormatError | None = None


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    tag: one ASCII letter; unknown lower-case tags are skipped, unknown upper-case ones (critical) make a file unreadable.
    name: human-readable. order: chunks of lower order come first. count: how many there are, given the header; None: at most one.
    most: size in bytes of the longest payload for an image of that many pixels.
    write: the payloads for a content. read: puts a payload into the content. check: like ``read``, but stores nothing.
    key: the name of a metadata chunk in ``Container.metadata``.
    """

    tag: str
    name: str
    order: int
    count: Callable[[Header], int] | None
    most: Callable[[Limits, int], int]
    write: Callable[[Container], Iterator[bytes]]
    read: Callable[[Chunk, Container, Limits], None]
    check: Callable[[Chunk, Header, Limits], None]
    key: str = ""

    @property
    def critical(self) -> bool:
        return self.tag.isupper()


# -- header and end ----------------------------------------------------------------------


def _write_header(content: Container) -> Iterator[bytes]:
    yield content.header.to_bytes()


def _read_header(chunk: Chunk, content: Container, limits: Limits) -> None:
    content.header = header_of(chunk, limits)


def _check_header(chunk: Chunk, header: Header, limits: Limits) -> None:
    header_of(chunk, limits)


def header_of(chunk: Chunk, limits: Limits) -> Header:
    """The content of the first chunk. Raises ``FormatError``."""
    if chunk.error:
        raise chunk.error
    header = Header.from_bytes(chunk.payload)
    if header.width * header.height > limits.pixels:
        found = f"{header.width} x {header.height}"
        raise LimitExceeded(f"header: at most {limits.pixels} pixels are allowed, found {found}")
    return header


def _write_end(content: Container) -> Iterator[bytes]:
    yield b""


def _check_end(chunk: Chunk, *_: object) -> None:
    if chunk.end > chunk.start:
        raise CorruptChunk(chunk.name, f"must be empty, found {chunk.end - chunk.start} bytes")


# -- metadata ----------------------------------------------------------------------------


def _metadata(tag: str, name: str, key: str) -> Kind:
    """A kind of metadata: a zlib stream."""

    def write(content: Container) -> Iterator[bytes]:
        if key in content.metadata:
            if len(content.metadata[key]) > Limits.metadata:
                raise InvalidArgument(
                    f"{key} must be at most {Limits.metadata} bytes, got {len(content.metadata[key])}"
                )
            yield zlib.compress(content.metadata[key], 9)

    def read(chunk: Chunk, content: Container, limits: Limits) -> None:
        content.metadata[key] = inflated(chunk, limits)

    def check(chunk: Chunk, header: Header, limits: Limits) -> None:
        inflated(chunk, limits)

    return Kind(tag, name, 1, None, lambda limits, pixels: _deflated(limits.metadata), write, read, check, key)


def inflated(chunk: Chunk, limits: Limits) -> bytes:
    found = inflate(chunk.payload, chunk.name, limits.metadata)
    if found is None:
        raise LimitExceeded(f"{chunk.name}: at most {limits.metadata} bytes are allowed, found more")
    return found


def _deflated(size: int) -> int:
    """The longest payload allowed for this many bytes of content: no zlib stream need be twice its content."""
    return 2 * size + 1024


# -- maps --------------------------------------------------------------------------------


def _write_maps(content: Container) -> Iterator[bytes]:
    count = _streams(content.header)
    for number, streams in enumerate(content.maps):
        if len(streams) != count:
            raise InvalidArgument(f"map {number} must have {count} streams, got {len(streams)}")
        yield join_tiles(streams)


def _read_map(chunk: Chunk, content: Container, limits: Limits) -> None:
    count = _streams(content.header)
    index = TileIndex(chunk, count)
    content.maps.append([index.stream(number) for number in range(count)])


def _check_map(chunk: Chunk, header: Header, limits: Limits) -> None:
    count = _streams(header)
    index = TileIndex(chunk, count)
    for number in range(count):
        index.check(number)


def _streams(header: Header) -> int:
    return header.tiling.count * header.streams


# -- alpha: imported where it is used, because it loads NumPy, which most files do not need ---


def _write_alpha(content: Container) -> Iterator[bytes]:
    if content.alpha is None:
        return
    from vqcodec.format import alpha

    header = content.header
    if content.alpha.shape != (header.height, header.width):
        raise InvalidArgument(f"alpha must be {header.height} x {header.width}, got {content.alpha.shape}")
    if content.alpha.dtype != "uint8":
        raise InvalidArgument(f"alpha must be uint8, got {content.alpha.dtype}")
    yield alpha.encode(content.alpha)


def _read_alpha(chunk: Chunk, content: Container, limits: Limits) -> None:
    from vqcodec.format import alpha

    content.alpha = alpha.decode(chunk.payload, content.header.width, content.header.height)


def _check_alpha(chunk: Chunk, header: Header, limits: Limits) -> None:
    from vqcodec.format import alpha

    alpha.check(chunk.source, chunk.start, chunk.end, header.width * header.height)


# -- digest ------------------------------------------------------------------------------

DIGEST_SIZE = 16


def _write_digest(content: Container) -> Iterator[bytes]:
    if content.digest is not None:
        if len(content.digest) != DIGEST_SIZE:
            raise InvalidArgument(f"digest must be {DIGEST_SIZE} bytes, got {len(content.digest)}")
        yield content.digest


def _read_digest(chunk: Chunk, content: Container, limits: Limits) -> None:
    _check_digest(chunk, content.header, limits)
    content.digest = bytes(chunk.payload)


def _check_digest(chunk: Chunk, header: Header, limits: Limits) -> None:
    if chunk.end - chunk.start != DIGEST_SIZE:
        raise CorruptChunk(chunk.name, f"must be {DIGEST_SIZE} bytes, found {chunk.end - chunk.start}")


# -- the table ---------------------------------------------------------------------------

HEADER = Kind(
    "H", "header", 0, lambda header: 1, lambda limits, pixels: 1024, _write_header, _read_header, _check_header
)
MAP = Kind(
    "M",
    "map",
    2,
    lambda header: header.maps,
    lambda limits, pixels: limits.map_bytes,
    _write_maps,
    _read_map,
    _check_map,
)
ALPHA = Kind("A", "alpha", 3, None, lambda limits, pixels: _deflated(pixels), _write_alpha, _read_alpha, _check_alpha)
DIGEST = Kind("d", "digest", 4, None, lambda limits, pixels: 1024, _write_digest, _read_digest, _check_digest)
END = Kind("Z", "end", 5, lambda header: 1, lambda limits, pixels: 1024, _write_end, _check_end, _check_end)
METADATA = (_metadata("i", "ICC profile", "icc"), _metadata("e", "EXIF", "exif"), _metadata("x", "XMP", "xmp"))

#: In file order.
KINDS = (HEADER, *METADATA, MAP, ALPHA, DIGEST, END)
OF_TAG = {kind.tag: kind for kind in KINDS}
METADATA_TAGS = frozenset(kind.tag for kind in METADATA)


def read_into(content: Container, chunk: Chunk, limits: Limits) -> None:
    """Put an intact chunk into ``content``; unknown chunks are skipped. Raises ``FormatError``."""
    if kind := OF_TAG.get(chunk.tag):
        kind.read(chunk, content, limits)
