"""Limits on what a file may require."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits on what a file may require. Exceeding one raises :class:`~vqcodec.errors.LimitExceeded`.

    pixels: width times height.
    metadata: bytes of one inflated metadata chunk.
    chunks: number of chunks in the file.
    map_bytes: bytes of one map chunk, or of one of an unknown kind.
    work: multiply-adds that decoding may take, beside 1.5 * 10^9 for every byte of the file, as estimated from the header
        (:mod:`vqcodec.codec.work`): some seconds, so that few bytes cannot take hours. Applies only to decoding.
    memory: bytes of working memory for decoding, as estimated from the header before anything is allocated, see
        :meth:`vqcodec.codec.decoder.Canvas.memory`. Applies only to decoding, not to reading the container.

    These determine how long each chunk may be (:data:`vqcodec.format.chunks.KINDS`).
    """

    pixels: int = 1 << 28
    metadata: int = 16 << 20
    chunks: int = 1024
    map_bytes: int = 1 << 30
    work: int = 200_000_000_000
    memory: int = 8 << 30
