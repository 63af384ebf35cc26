"""Parts of a .vqc file without the rest: reads chunk headers and only the payloads that are needed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, TypeVar

from vqcodec.errors import FormatError, InvalidArgument
from vqcodec.format import framing
from vqcodec.format.chunk import Chunk, TileIndex
from vqcodec.format.chunks import ALPHA, DIGEST, MAP, METADATA_TAGS, OF_TAG, Container, header_of, read_into
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.wire import File, Memory, Source

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Reader:
    """Reads parts of a file.

        >>> with open("photo.vqc", "rb") as file:
        ...     coarse = Reader(file).streams(tiles=[17], maps=2)

    source: bytes-like, or a seekable binary file that contains nothing but the .vqc file, from
    its first byte on. It must stay open and unchanged. Threads may share a reader, but nothing else
    may use its file meanwhile, and ``verify`` with ``partial`` must come first.
    partial: keep the intact parts of a damaged or truncated file, and report in ``.error`` what
    is wrong, as ``container.read`` does. The header must be intact.

    header: the content of the header chunk.
    chunks: those of the file, header first; with ``partial`` the intact ones, as far as known.
    error: with ``partial``, the first damage detected; otherwise None.

    Opening reads the headers of the chunks, and the header and end chunks. If these are wrong,
    it reads the whole file, to find the damage that ``container.read`` would find.

    What is read is checked, but lazy reading does not detect damage in what it does not read:
    other tiles, the CRC of a tiled map's chunk, chunks of unknown kinds. Nor does it detect
    several chunks damaged so that they form a valid sequence with one map in the place of
    another, which no single damaged chunk can do. ``verify`` detects everything.

    Raises ``FormatError`` as ``container.read`` does, ``InvalidArgument``, and the file's ``OSError``.
    """

    def __init__(
        self, source: bytes | memoryview | IO[bytes], *, partial: bool = False, limits: Limits | None = None
    ) -> None:
        self._source = _open(source)
        self._partial, self._limits = partial, limits or Limits()
        self._settled = False  # everything has been checked
        self._indexes: dict[int, TileIndex] = {}
        self.error: FormatError | None = None
        found = framing.frames(self._source, self._limits, checked=False)
        self.chunks = [next(found)]
        self.header: Header = header_of(self.chunks[0], self._limits)
        try:
            framing.use_whole(found, self.chunks.append, partial=False)
        except FormatError:
            self.verify()
            if not partial:
                raise

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._source.size

    @property
    def maps(self) -> int:
        """Number of maps; with ``partial``, of intact ones as far as known."""
        return len(self._tagged(MAP.tag))

    @property
    def has_alpha(self) -> bool:
        """Whether there is an alpha plane; with ``partial``, an intact one as far as known."""
        return bool(self._tagged(ALPHA.tag))

    def metadata(self) -> dict[str, bytes]:
        """Any of the keys "icc", "exif", "xmp", each with its raw bytes."""
        return self._whole(lambda: self._content(METADATA_TAGS).metadata)

    def alpha(self) -> np.ndarray | None:
        """The alpha plane: uint8, height x width; or None."""
        return self._whole(lambda: self._content(ALPHA.tag).alpha)

    def digest(self) -> bytes | None:
        """What the pixels' digest must be, or None."""
        return self._whole(lambda: self._content(DIGEST.tag).digest)

    def streams(self, tiles: Iterable[int] | None = None, maps: int | None = None) -> list[list[bytes]]:
        """The streams of some tiles (default: all) in the first ``maps`` maps (default: all).

        Returns one list per map, with ``header.streams`` streams for each tile in the order of ``tiles``. With
        ``partial`` it ends before the first damaged map, as far as these tiles show. For a map
        with several streams, reads the index (once) and the requested streams.
        """
        count = self.header.tiling.count
        wanted = range(count) if tiles is None else [_number("tile", tile, count - 1) for tile in tiles]
        each = self.header.streams
        upto = self.header.maps if maps is None else _number("maps", maps, self.header.maps)
        return self._whole(lambda: [
            [index.stream(tile * each + number) for tile in wanted for number in range(each)]
            for index in map(self._index, self._tagged(MAP.tag)[:upto])
        ])  # fmt: skip

    def verify(self) -> None:
        """Check everything: CRCs, metadata, alpha, tiles. Reads the whole file, in small blocks.

        Raises ``FormatError`` at the first damage; with ``partial`` sets ``.error`` instead, and
        from then on only intact parts are available.
        """
        found = framing.frames(self._source, self._limits)
        whole = [next(found)]
        header_of(whole[0], self._limits)

        def use(chunk: Chunk) -> None:
            self._check(chunk)
            whole.append(chunk)

        self.error, trusted = framing.use_whole(found, use, self._partial)
        self.chunks = [chunk for chunk in whole if trusted or chunk.tag not in (MAP.tag, ALPHA.tag)]
        self._settled = True

    def _whole(self, get: Callable[[], T]) -> T:
        try:
            return get()
        except FormatError:
            if not self._partial or self._settled:
                raise
            self.verify()
            return get()

    def _tagged(self, tags: Iterable[str]) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk.tag in tags]

    def _content(self, tags: Iterable[str]) -> Container:
        result = Container(self.header)
        for chunk in self._tagged(tags):
            read_into(result, chunk.held(), self._limits)
        return result

    def _index(self, chunk: Chunk) -> TileIndex:
        count = self.header.tiling.count * self.header.streams
        if count == 1:
            return TileIndex(chunk.held(), count)
        if chunk.offset not in self._indexes:
            self._indexes[chunk.offset] = TileIndex(chunk, count)
        return self._indexes[chunk.offset]

    def _check(self, chunk: Chunk) -> None:
        """The content of a chunk whose CRC is correct."""
        if kind := OF_TAG.get(chunk.tag):
            kind.check(chunk, self.header, self._limits)


def _open(source: bytes | memoryview | IO[bytes]) -> Source:
    try:
        return Memory(source)  # type: ignore[arg-type]
    except InvalidArgument:
        return File(source)  # type: ignore[arg-type]


def _number(name: str, value: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= most:
        raise InvalidArgument(f"{name} must be an integer from 0 to {most}, got {value!r}")
    return number
