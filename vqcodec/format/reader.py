"""Parts of a .vqc file without the rest of it, and files that are still arriving.

    Reader    seeks: reads heads, and of the payloads what is asked for
    Parser    is fed bytes as they come: keeps what is whole, holds one chunk at a time

Both see chunks as ``container.read`` does, and raise its errors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TypeVar

from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument, TruncatedFile
from vqcodec.format import container
from vqcodec.format.container import METADATA, Chunk, Container, Header, Limits, Order, TileIndex
from vqcodec.format.wire import File, Memory, Source, blocks, inflate_blocks

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Parser", "Reader"]

T = TypeVar("T")


class Reader:
    """Reads parts of a file.

        >>> with open("photo.vqc", "rb") as file:
        ...     coarse = Reader(file).streams(tiles=[17], maps=2)

    source: bytes-like, or a binary file that can seek, of which everything from its first byte
    on is the .vqc file. The file must stay open and unchanged; one thread at a time.
    partial: keep what is whole of a damaged or truncated file, and say in ``.error`` what is
    wrong, as ``container.read`` does. The header must be whole.

    header: what the header chunk says.
    chunks: those of the file, header first; with ``partial`` the whole ones, as far as known.
    error: with ``partial``, the first damage that was noticed; else None.

    Opening reads the heads of the chunks, and header and end. If these are wrong it goes
    through the whole file, so that it finds the damage that ``container.read`` would find.

    What is read is checked, but lazy reading does not notice damage in what it does not read:
    other tiles, the CRC of a tiled map's chunk, chunks of unknown kinds. Nor does it notice
    that several chunks, damaged so as to look like others, still make a sound row in which a
    map stands in another's place: no single damaged chunk can. ``verify`` notices all.

    Raises ``FormatError`` as ``container.read`` does, ``InvalidArgument``, and the file's ``OSError``.
    """

    def __init__(self, source: bytes | memoryview | IO[bytes], *, partial: bool = False, limits: Limits | None = None) -> None:
        self._source = _open(source)
        self._partial, self._limits = partial, limits or Limits()
        self._settled = False  # everything has been checked
        self._indexes: dict[int, TileIndex] = {}
        self.error: FormatError | None = None
        found = container.frames(self._source, self._limits, checked=False)
        self.chunks = [next(found)]
        self.header: Header = container.header_of(self.chunks[0], self._limits)
        try:
            container.use_whole(found, self.chunks.append, partial=False)
        except FormatError:
            self.verify()
            if not partial:
                raise

    def metadata(self) -> dict[str, bytes]:
        """Any of the keys "icc", "exif", "xmp", each with its raw bytes."""
        return self._whole(lambda: self._content(METADATA).metadata)

    def alpha(self) -> np.ndarray | None:
        """The alpha plane: uint8, height x width; or None."""
        return self._whole(lambda: self._content("A").alpha)

    def streams(self, tiles: Iterable[int] | None = None, maps: int | None = None) -> list[list[bytes]]:
        """The streams of some tiles (default: all) in the first ``maps`` maps (default: all).

        Returns a list for each map, of a stream for each tile in the order of ``tiles``. With
        ``partial`` it ends before the first map that is not whole, as far as these tiles tell.
        Of a map with several tiles, reads the index, once, and the wanted streams.
        """
        count = self.header.tile_count
        wanted = range(count) if tiles is None else [_number("tile", tile, count - 1) for tile in tiles]
        upto = self.header.maps if maps is None else _number("maps", maps, self.header.maps)
        return self._whole(lambda: [
            [index.stream(tile) for tile in wanted] for index in map(self._index, self._tagged("M")[:upto])
        ])  # fmt: skip

    def verify(self) -> None:
        """Check everything: CRCs, metadata, alpha, tiles. Reads the whole file, in small blocks.

        Raises ``FormatError`` at the first damage; with ``partial`` sets ``.error`` instead, and
        from then on only what is whole is there.
        """
        found = container.frames(self._source, self._limits)
        whole = [next(found)]
        container.header_of(whole[0], self._limits)

        def use(chunk: Chunk) -> None:
            self._check(chunk)
            whole.append(chunk)

        self.error, trusted = container.use_whole(found, use, self._partial)
        self.chunks = [chunk for chunk in whole if trusted or chunk.tag not in "MA"]
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
            container.interpret(chunk.held(), result, self._limits)
        return result

    def _index(self, chunk: Chunk) -> TileIndex:
        count = self.header.tile_count
        if count == 1:
            return TileIndex(chunk.held(), count)
        if chunk.offset not in self._indexes:
            self._indexes[chunk.offset] = TileIndex(chunk, count)
        return self._indexes[chunk.offset]

    def _check(self, chunk: Chunk) -> None:
        """The content of a chunk whose CRC is right."""
        if chunk.tag == "M":
            count = self.header.tile_count
            index = TileIndex(chunk, count)
            for tile in range(count):
                index.check(tile)
        elif chunk.tag == "A":
            _check_alpha(chunk, self.header.width * self.header.height)
        else:
            container.interpret(chunk, Container(self.header), self._limits)


def _open(source: bytes | memoryview | IO[bytes]) -> Source:
    try:
        return Memory(source)  # type: ignore[arg-type]
    except InvalidArgument:
        return File(source)  # type: ignore[arg-type]


def _check_alpha(chunk: Chunk, pixels: int) -> None:
    """What ``alpha.decode`` checks, without holding the plane."""
    from vqcodec.format import alpha  # here, because it loads NumPy, which most files do not need

    source, start, end = chunk.source, chunk.start, chunk.end
    first = source.read(start, min(start + 3, end))
    if not first or first[0] not in range(1, 5):  # no zlib stream
        alpha.decode(first, 1, 1)
        return
    size = sum(len(piece) for piece in inflate_blocks(blocks(source, start + 1, end), chunk.name, pixels))
    if size != pixels:
        raise CorruptChunk(chunk.name, f"must hold {pixels} bytes, found {'more' if size > pixels else size}")


def _number(name: str, value: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= most:
        raise InvalidArgument(f"{name} must be an integer from 0 to {most}, got {value!r}")
    return number


class Parser:
    """Reads a file that arrives piece by piece.

        >>> parser = Parser()
        >>> for data in pieces:
        ...     parser.feed(data)
        ...     show(parser.header, parser.maps)
        >>> parser.close()

    How the file was cut into pieces makes no difference. Holds what is listed here, and the
    bytes of the chunk in progress; a chunk that is too long for ``limits`` is refused when its
    length is known.

    header: None until it is known.
    metadata, maps, alpha: as in ``Container``, whole and checked chunks only.
    finished: the end chunk has come, and nothing after it.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.header: Header | None = None
        self.metadata: dict[str, bytes] = {}
        self.maps: list[list[bytes]] = []
        self.alpha: np.ndarray | None = None
        self._limits = limits or Limits()
        self._order = Order(self._limits)
        self._buffer = bytearray()
        self._at = 0  # where in the file the buffer begins
        self._needed = container.START  # bytes in the buffer, to get any further
        self._error: FormatError | None = None

    @property
    def finished(self) -> bool:
        return self._order.ended and self._error is None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises what ``container.read`` would, at the first damage, and ever after."""
        piece = Memory(data)
        with self._failing_for_good():
            self._buffer += piece.read(0, piece.size)
            if len(self._buffer) >= self._needed:
                self._advance(Memory(self._buffer, self._at))

    def close(self) -> None:
        """Say that no more will come. Raises ``TruncatedFile`` (``NotVqcodec`` of no bytes) unless finished."""
        with self._failing_for_good():
            if not self.finished:
                source = Memory(self._buffer, self._at)
                if self._at == 0:
                    container.check_start(source)
                self._order.head(source, self._at).check_whole()

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        if self._error:
            raise self._error
        try:
            yield
        except FormatError as error:
            self._error, self._buffer = error, bytearray()
            raise

    def _advance(self, source: Memory) -> None:
        """Use the chunks that are whole, and keep the rest in a new buffer: views of the old one may live on."""
        at, self._needed = self._at, 1
        if at == 0:
            container.check_start(source)
            at = container.START
        while not self._order.ended:
            try:
                chunk = self._order.head(source, at)
            except TruncatedFile:
                self._needed = source.size - at + 1
                break
            if error := self._order.too_long(chunk):
                raise error
            if at + chunk.size > source.size:
                self._needed = chunk.size
                break
            at += chunk.size
            self._use(self._order.judge(chunk))
        else:
            container.check_end(source, at)
        self._buffer, self._at = bytearray(source.read(at, source.size)), at

    def _use(self, chunk: Chunk) -> None:
        if self.header is None:
            self.header = container.header_of(chunk, self._limits)
            return
        if chunk.error:
            raise chunk.error
        result = Container(self.header, self.metadata, self.maps, self.alpha)
        container.interpret(chunk, result, self._limits)
        self.alpha = result.alpha
