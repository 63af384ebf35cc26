"""What a file may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. Exceeding one raises :class:`~vqcodec.errors.LimitExceeded`.

    pixels: width times height.
    metadata: bytes of one inflated metadata chunk.
    chunks: number of chunks in the file.
    map_bytes: bytes of one map chunk, or of one of an unknown kind.
    memory: bytes that decoding works in, as estimated from the header before anything is allocated, see
        :meth:`vqcodec.codec.decoder.Canvas.memory`. Only what decodes knows it: reading the container does not ask.

    From these follows how long any chunk may be (:data:`vqcodec.format.chunks.KINDS`).
    """

    pixels: int = 1 << 31
    metadata: int = 16 << 20
    chunks: int = 1024
    map_bytes: int = 1 << 30
    memory: int = 8 << 30
