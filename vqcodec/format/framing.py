"""From bytes to chunks: checks of magic, lengths, CRCs and order (docs/FORMAT.md, "Container").

Every length is checked against the data available, and every size against ``Limits``, before any memory is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vqcodec.errors import CorruptChunk, FormatError, LimitExceeded, NotVqcodec, TruncatedFile, UnsupportedVersion
from vqcodec.format.chunk import CRC_SIZE, Chunk
from vqcodec.format.chunks import END, HEADER, MAP, METADATA_TAGS, OF_TAG
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.wire import Cursor, Source

MAGIC = b"\x8fVQC"
VERSION = 1
#: Where the first chunk begins.
START = len(MAGIC) + 1
#: Tag and length.
_LONGEST_HEAD = 6


def frames(source: Source, limits: Limits, *, checked: bool = True) -> Iterator[Chunk]:
    """Every chunk, with its checksum and order checked and the result in ``Chunk.error``.

    checked: compute all CRCs. Otherwise only those of header and end are computed, and the
    payloads of the others are not read: their order is then judged by unverified tags.

    Raises if the framing itself breaks: at a truncation, an absurd length, or after the end.
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


#: What people take for a vqcodec file, by its first bytes.
OTHERS = {
    "a PNG image": b"\x89PNG",
    "a JPEG image": b"\xff\xd8\xff",
    "a GIF image": b"GIF8",
    "a RIFF file, such as a WebP image": b"RIFF",
    "a JPEG XL image": b"\xff\x0a",
    "a TIFF image": b"II*\0",
    "a PDF document": b"%PDF",
    "a ZIP archive": b"PK\3\4",
    "a web page": b"<!DO",
}


def check_start(source: Source) -> None:
    """Magic and version. Raises ``NotVqcodec``, ``UnsupportedVersion``, ``TruncatedFile``."""
    cursor = Cursor(source.read(0, min(START, source.size)), "magic", TruncatedFile)
    start = bytes(cursor.view[: len(MAGIC)])
    if not start or not MAGIC.startswith(start):
        found = next((f"this is {name}" for name, first in OTHERS.items() if start.startswith(first)), None)
        raise NotVqcodec(
            f"a vqcodec file begins with {MAGIC.hex(' ')}, found {start.hex(' ') or 'nothing'}"
            + (f": {found}" if found else "")
        )
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
    """Reads the headers of chunks, and checks their order and number against the table of kinds.

    The order of chunks with a bad CRC is not checked: their tag may be wrong.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.chunks = 0
        self.header: Header | None = None
        self.order = -1  # of the last chunk
        self.seen: dict[str, int] = {}  # how many of each tag

    @property
    def ended(self) -> bool:
        return END.tag in self.seen

    def head(self, source: Source, at: int) -> Chunk:
        """The chunk at ``at``, of which only tag and length have been read.

        Raises ``TruncatedFile`` if these are incomplete, ``CorruptChunk``, ``LimitExceeded``.
        """
        if self.chunks >= self.limits.chunks:
            raise LimitExceeded(f"at most {self.limits.chunks} chunks are allowed, found more")
        cursor = Cursor(source.read(at, min(at + _LONGEST_HEAD, source.size)), self._expected, TruncatedFile)
        tag = chr(cursor.take(1)[0])
        cursor.chunk = name = self._name(tag, at)
        size = cursor.varint()
        return Chunk(tag, name, at, cursor.at + size + CRC_SIZE, at + cursor.at, source)

    def judge(self, chunk: Chunk, checked: bool = True) -> Chunk:
        """The chunk, which must be the next, with ``error`` set. ``checked`` as for ``frames``."""
        self.chunks += 1
        error: FormatError | None = self.too_long(chunk)
        if error is None and (checked or not self.seen or chunk.tag == END.tag):
            error = chunk.crc_error()
        error = error or self._misplaced(chunk)
        if chunk.tag == HEADER.tag and error is None:
            self.header = Header.from_bytes(chunk.payload)
        return replace(chunk, error=error)

    def too_long(self, chunk: Chunk) -> LimitExceeded | None:
        """Needs only the chunk's header."""
        kind, size = OF_TAG.get(chunk.tag), chunk.end - chunk.start
        pixels = self.header.width * self.header.height if self.header else 0
        most = kind.most(self.limits, pixels) if kind else self.limits.map_bytes
        return LimitExceeded(f"{chunk.name}: at most {most} bytes are allowed, found {size}") if size > most else None

    @property
    def _missing_maps(self) -> int:
        """How many of the maps promised by the header are still missing; negative if there are too many."""
        promised = MAP.count(self.header) if self.header and MAP.count else 0
        return promised - self.seen.get(MAP.tag, 0)

    @property
    def _expected(self) -> str:
        """Name of the first thing missing if the file ends here."""
        if not self.seen:
            return HEADER.name
        return self._name(MAP.tag, 0) if self._missing_maps > 0 else END.name

    def _name(self, tag: str, at: int) -> str:
        if tag == MAP.tag:
            return f"{MAP.name} {self.seen.get(tag, 0)}"
        return OF_TAG[tag].name if tag in OF_TAG else f"chunk {tag!r} at byte {at}"

    def _misplaced(self, chunk: Chunk) -> FormatError | None:
        tag, name = chunk.tag, chunk.name
        if not (tag.isascii() and tag.isalpha()):
            return CorruptChunk(name, f"a tag must be an ASCII letter, found {tag!r}")
        if not self.seen and tag != HEADER.tag:
            return CorruptChunk(name, "the first chunk must be the header")
        kind = OF_TAG.get(tag)
        if kind is None:
            if tag.isupper():
                return UnsupportedVersion(f"{name} is critical and unknown: the file needs a newer vqcodec")
            return None
        if tag in self.seen and kind is not MAP:
            return CorruptChunk(name, "must appear once, found again")
        if kind.order < self.order:
            return CorruptChunk(name, "comes too late: the order is header, metadata, maps, alpha, end")
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.order = kind.order
        if self._missing_maps < 0 or (kind.order > MAP.order and self._missing_maps > 0):
            assert self.header is not None  # only the header may come first
            return CorruptChunk(name, f"the header promises {self.header.maps} maps, found {self.seen.get(MAP.tag, 0)}")
        if kind is END and chunk.end > chunk.start:
            return CorruptChunk(name, f"must be empty, found {chunk.end - chunk.start} bytes")
        return None


def use_whole(found: Iterable[Chunk], use: Callable[[Chunk], None], partial: bool) -> tuple[FormatError | None, bool]:
    """Pass chunks to ``use``, which may find more damage, as described under "Damaged files" in the format.

    Returns the first damage, and whether the maps used are proved to be the right ones.
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
                if not (partial and chunk.tag in METADATA_TAGS):
                    raise
                dropped = dropped or error
    except FormatError as error:
        if not partial:
            raise
        return dropped or error, dropped is None
    return dropped, True
