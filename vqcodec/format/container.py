"""The .vqc file: a sequence of checked chunks, coarse to fine (docs/FORMAT.md, "Container").

Every chunk is a tag, a length, a payload and a CRC-32 of all three, so a damaged
file gives an error that names the chunk, and a truncated one still has its coarser maps.
Nothing here depends on what the maps mean: their streams are opaque bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from vqcodec.errors import InvalidArgument
from vqcodec.format.chunk import Chunk, encoded
from vqcodec.format.chunks import ALPHA, KINDS, METADATA, Container, header_of, read_into
from vqcodec.format.framing import MAGIC, VERSION, frames, use_whole
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.wire import Memory

__all__ = ["Container", "Header", "Limits", "chunks", "describe", "read", "read_header", "write"]


def write(container: Container) -> bytes:
    """The bytes of a file. Raises ``InvalidArgument`` if header and content do not match."""
    if len(container.maps) != container.header.maps:
        raise InvalidArgument(f"the header promises {container.header.maps} maps, got {len(container.maps)}")
    if unknown := set(container.metadata) - {kind.key for kind in METADATA}:
        raise InvalidArgument(f"metadata must be any of icc, exif, xmp, got {sorted(unknown)}")
    parts = [encoded(kind.tag, payload) for kind in KINDS for payload in kind.write(container)]
    return b"".join([MAGIC, bytes([VERSION]), *parts])


def read(data: bytes | memoryview, *, partial: bool = False, limits: Limits = Limits()) -> Container:
    """The content of a file.

    partial: return the intact parts of a damaged or truncated file, and report in ``.error``
    what is wrong. ``maps`` is then shorter than ``header.maps`` promises. The header must be
    intact. A damaged metadata chunk is dropped alone if everything else is intact; otherwise
    the maps are dropped too, because then nothing proves which map is which.

    Raises ``FormatError``: ``NotVqcodec``, ``UnsupportedVersion``, ``CorruptChunk``,
    ``TruncatedFile``, ``LimitExceeded``.
    """
    found = frames(Memory(data), limits)
    result = Container(header_of(next(found), limits))
    result.error, trusted = use_whole(found, lambda chunk: read_into(result, chunk, limits), partial)
    if not trusted:
        result.maps, result.alpha, result.digest = [], None, None
    return result


def read_header(data: bytes | memoryview, *, limits: Limits = Limits()) -> Header:
    """The header alone; what follows is not read. Raises ``FormatError``."""
    return header_of(next(frames(Memory(data), limits)), limits)


def chunks(data: bytes | memoryview, *, limits: Limits = Limits()) -> Iterator[Chunk]:
    """The chunks of a file, header first, each checked before it is returned.

    Payloads are not interpreted. Raises ``FormatError`` at the first damage.
    """
    for chunk in frames(Memory(data), limits):
        if chunk.error:
            raise chunk.error
        yield chunk


def describe(data: bytes | memoryview, *, limits: Limits = Limits()) -> dict[str, Any]:
    """What header and chunks contain, as plain JSON-compatible values. Decodes nothing.

    Makes all the checks of the chunks. Raises ``FormatError``.
    """
    header = read_header(data, limits=limits)
    found = list(chunks(data, limits=limits))
    size = Memory(data).size
    described: dict[str, Any] = {"format": VERSION, "bytes": size}
    for f in fields(header):
        value = getattr(header, f.name)
        described[f.name] = value.hex() if isinstance(value, bytes) else value
    coding = f"samples within {header.bound}" if header.bound else "lossless"
    return described | {
        "coding": coding if header.samples else "code maps",
        "bits_per_pixel": 8 * size / (header.width * header.height),
        "tiles": header.tiling.count,
        "metadata": [kind.key for c in found for kind in METADATA if c.tag == kind.tag],
        "alpha": any(c.tag == ALPHA.tag for c in found),
        "chunks": [{"tag": c.tag, "name": c.name, "offset": c.offset, "bytes": c.size} for c in found],
    }
