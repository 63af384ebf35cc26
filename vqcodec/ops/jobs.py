"""What the loops over code maps work on, and its checks: the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from vqcodec.errors import CorruptChunk, InvalidArgument
from vqcodec.model.prior import Condition, IntegerPrior

Shape = tuple[int, int]
#: Uniform numbers of so many bits choose codes.
WORD_BITS = 24


@dataclass(frozen=True)
class Job:
    """One image, or one tile of it, whose next maps are to be made.

    shapes: height and width, in codes, of every map to make. streams: what each of them is made from.
    condition: class and rate level. given: the coarser maps, where they are known already.
    """

    shapes: Sequence[Shape]
    streams: Sequence[Any]
    condition: Condition = Condition()
    given: Sequence[np.ndarray] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class DecodeJob(Job):
    """A job whose ``streams`` are the range coder's bytes."""

    streams: Sequence[bytes]


@dataclass(frozen=True)
class SampleJob(Job):
    """A job whose ``streams`` are uniform numbers below 2**24, height * width in coding order (uint32)."""

    streams: Sequence[np.ndarray]


@dataclass(frozen=True)
class ChooseJob(Job):
    """A job whose ``streams`` are (codes, costs), each height * width x count in coding order: int32; costs in 1/256 bit."""

    streams: Sequence[tuple[np.ndarray, np.ndarray]]


AnyJob = TypeVar("AnyJob", bound=Job)


# -- checks --------------------------------------------------------------------------------


def checked(priors: Sequence[IntegerPrior], job: AnyJob) -> AnyJob:
    """The job with arrays and bytes as the compiled core takes them. Raises InvalidArgument."""
    for name, items in (("shapes", job.shapes), ("streams", job.streams)):
        if len(items) != len(priors):
            raise InvalidArgument(f"{name}: expected {len(priors)}, one for each prior, got {len(items)}")
    shapes = [(int(height), int(width)) for height, width in job.shapes]
    streams: list[Any] = []
    for stream, shape, prior in zip(job.streams, shapes, priors):
        if isinstance(job, DecodeJob):
            streams.append(bytes(stream))
        else:
            streams.append(_words(stream, shape) if isinstance(job, SampleJob) else _candidates(stream, shape, prior))
    given = [code_map(f"map {j}", codes) for j, codes in enumerate(job.given)]
    return type(job)(shapes, streams, Condition(*job.condition), given=given)


def code_map(name: str, codes: np.ndarray) -> np.ndarray:
    """A map as contiguous int32. Raises InvalidArgument."""
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu" or codes.ndim != 2:
        raise InvalidArgument(f"{name} must be a height x width array of integers")
    if codes.dtype.itemsize > 4 and codes.size and not 0 <= codes.min() <= codes.max() < 2**31:
        raise InvalidArgument(f"{name}: codes must be in 0..{2**31 - 1}")
    return np.ascontiguousarray(codes, np.int32)


def check_codes(name: str, codes: np.ndarray, size: int) -> None:
    """Raise InvalidArgument unless all codes are in 0..size-1."""
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise InvalidArgument(f"{name}: codes must be in 0..{size - 1}")


def corrupt(number: int, job: int, jobs: Sequence[Job]) -> CorruptChunk:
    """The error of a stream that no encoder can have written, of map ``number`` of a job."""
    where = f" (job {job})" if len(jobs) > 1 else ""
    return CorruptChunk(f"map {number}", f"the stream is not one that an encoder writes{where}")


def _words(words: np.ndarray, shape: Shape) -> np.ndarray:
    words = np.asarray(words)
    count = shape[0] * shape[1]
    if words.dtype.kind not in "iu" or words.shape != (count,):
        raise InvalidArgument(f"words must be {count} integers, got {words.dtype} {words.shape}")
    if count and not 0 <= words.min() <= words.max() < 1 << WORD_BITS:
        raise InvalidArgument("words must be in 0..2**24-1")
    return np.ascontiguousarray(words, np.uint32)


def _candidates(
    candidates: tuple[np.ndarray, np.ndarray], shape: Shape, prior: IntegerPrior
) -> tuple[np.ndarray, np.ndarray]:
    codes, costs = candidates
    count = shape[0] * shape[1]
    if codes.ndim != 2 or codes.shape != costs.shape or len(codes) != count or not codes.size:
        raise InvalidArgument(f"candidates and costs must be {count} x count, got {codes.shape}, {costs.shape}")
    check_codes("candidates", codes, prior.codes)
    if costs.dtype != np.int32:
        raise InvalidArgument(f"costs must be int32, in 1/256 bit, got {costs.dtype}")
    return np.ascontiguousarray(codes, np.int32), np.ascontiguousarray(costs, np.int32)
