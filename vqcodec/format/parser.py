"""A file that arrives piece by piece: keeps complete chunks, buffers one chunk at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcodec.errors import TruncatedFile
from vqcodec.format import framing
from vqcodec.format.chunk import Chunk
from vqcodec.format.chunks import Container, header_of, read_into
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.once import FailsOnce
from vqcodec.format.wire import Memory

if TYPE_CHECKING:
    import numpy as np


class Parser:
    """Reads a file that arrives piece by piece.

        >>> parser = Parser()
        >>> for data in pieces:
        ...     parser.feed(data)
        ...     show(parser.header, parser.maps)
        >>> parser.close()

    How the file is split into pieces makes no difference. Stores what is listed here, and the
    bytes of the chunk in progress; a chunk that is too long for ``limits`` is rejected as soon
    as its length is known.

    header: None until it is known.
    metadata, maps, alpha, digest: as in ``Container``, complete and checked chunks only.
    finished: the end chunk has arrived, and nothing after it.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.header: Header | None = None
        self.metadata: dict[str, bytes] = {}
        self.maps: list[list[bytes]] = []
        self.alpha: np.ndarray | None = None
        self.digest: bytes | None = None
        self._limits = limits or Limits()
        self._order = framing.Order(self._limits)
        self._buffer = bytearray()
        self._at = 0  # file offset of the buffer's first byte
        self._needed = framing.START  # bytes needed in the buffer to make progress
        self._fails = FailsOnce()

    @property
    def finished(self) -> bool:
        return self._order.ended and not self._fails.failed

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises what ``container.read`` would, at the first damage and on every later call."""
        piece = Memory(data)
        with self._fails:
            self._buffer += piece.read(0, piece.size)
            if len(self._buffer) >= self._needed:
                self._advance(Memory(self._buffer, self._at))

    def close(self) -> None:
        """Signal the end of the data. Raises ``TruncatedFile`` (``NotVqcodec`` if there were no bytes) unless finished."""
        with self._fails:
            if not self.finished:
                source = Memory(self._buffer, self._at)
                if self._at == 0:
                    framing.check_start(source)
                self._order.head(source, self._at).check_whole()

    def _advance(self, source: Memory) -> None:
        """Use the complete chunks, and keep the rest in a new buffer: views of the old one may still be in use."""
        at, self._needed = self._at, 1
        if at == 0:
            framing.check_start(source)
            at = framing.START
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
            framing.check_end(source, at)
        self._buffer, self._at = bytearray(source.read(at, source.size)), at

    def _use(self, chunk: Chunk) -> None:
        if self.header is None:
            self.header = header_of(chunk, self._limits)
            return
        if chunk.error:
            raise chunk.error
        result = Container(self.header, self.metadata, self.maps, self.alpha)
        read_into(result, chunk, self._limits)
        self.alpha = result.alpha
        self.digest = result.digest or self.digest
