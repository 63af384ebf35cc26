"""Running the integer prior: frequencies of known codes, and the fused loop that makes codes.

Every op takes ``backend``, the name of the backend (`vqcodec.ops.backend`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops import backend as backends
from vqcodec.ops.jobs import ChooseJob, DecodeJob, SampleJob, Shape, checked, code_map, corrupt

#: The nucleus that keeps all codes.
WHOLE = 1 << 16


def prior_frequencies(
    prior: IntegerPrior,
    codes: np.ndarray,
    coarser: Sequence[np.ndarray],
    condition: Condition,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each code of a known map lies in its frequency table, for a range encoder.

    codes: the map, height x width, any integer type.
    coarser: the maps before it, coarse to fine. condition: class and rate level.

    Returns, in coding order, the cumulative frequency before each code and its frequency: int64,
    height * width each, out of 2**24. Their logarithms are the map's size:
    ``24 * codes.size - np.log2(frequency).sum()`` bits.
    Raises InvalidArgument for codes, shapes, a class or a level that do not fit the prior.
    """
    codes = code_map("codes", codes)
    coarser = [code_map(f"coarser map {j}", c) for j, c in enumerate(coarser)]
    if len(coarser) != len(prior.factors):
        raise InvalidArgument(f"the prior has {len(prior.factors)} coarser maps, got {len(coarser)}")
    return backends.backend(backend).prior_frequencies(prior, codes, coarser, Condition(*condition))


def wavefront_decode(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    streams: Sequence[bytes],
    condition: Condition,
    *,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Decode consecutive maps of one image or tile, coarse to fine.

    priors, shapes, streams: the prior, (height, width) and bytes of each map to decode. They
        follow the maps that are ``given``.

    Returns the decoded maps, int32. Raises CorruptChunk, which names the map, if no encoder can
    have written a stream; many damaged streams decode to wrong codes instead, so streams need
    checksums. Raises InvalidArgument for shapes, codes, a class or a level that do not fit.
    """
    return wavefront_decode_batch(priors, [DecodeJob(shapes, streams, condition, given=given)], backend=backend)[0]


def wavefront_decode_batch(
    priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob], *, backend: str | None = None
) -> list[list[np.ndarray]]:
    """`wavefront_decode` of several images or tiles: faster than one by one."""
    maps, found = backends.backend(backend).decode(priors, [checked(priors, job) for job in jobs])
    for which, number in enumerate(found):
        if number >= 0:
            raise corrupt(number, which, jobs)
    return maps


def wavefront_sample(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    words: Sequence[np.ndarray],
    condition: Condition,
    *,
    sharpness: int = 256,
    nucleus: int = WHOLE,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Draw consecutive maps of one image, coarse to fine.

    priors, shapes, words: the prior, (height, width) and uniform 24-bit numbers of each map to
        draw. The same words give the same maps everywhere. They follow the maps that are ``given``.
    sharpness: 256 / temperature, 1 to 65536: probabilities are raised to sharpness / 256.
    nucleus: 65536 * top_p, 1 to 65536: only the most likely codes that together have this share are drawn
        (the others keep a frequency of 1 in 2**24).

    Returns the maps, int32. Raises InvalidArgument for shapes, words, codes, a class or a level
    that do not fit.
    """
    job = SampleJob(shapes, words, condition, given=given)
    return wavefront_sample_batch(priors, [job], sharpness=sharpness, nucleus=nucleus, backend=backend)[0]


def wavefront_sample_batch(
    priors: Sequence[IntegerPrior],
    jobs: Sequence[SampleJob],
    *,
    sharpness: int = 256,
    nucleus: int = WHOLE,
    backend: str | None = None,
) -> list[list[np.ndarray]]:
    """`wavefront_sample` of several images: faster than one by one."""
    for name, value in (("sharpness", sharpness), ("nucleus", nucleus)):
        if not 1 <= value <= 65536:
            raise InvalidArgument(f"{name} must be in 1..65536, got {value}")
    return backends.backend(backend).sample(priors, [checked(priors, job) for job in jobs], sharpness, nucleus)


def wavefront_choose(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    candidates: Sequence[tuple[np.ndarray, np.ndarray]],
    condition: Condition,
    *,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Choose the codes of consecutive maps for an encoder, by distortion and by cost under the prior.

    candidates: for each map (codes, costs), each height * width x count in coding order: int32,
        and float32 distortions in bits (squared error / lambda). The first map follows ``given``.

    Each code is the candidate with the lowest cost + bits under the prior, given the codes chosen
    before it: a greedy rate-distortion optimisation (not one over all maps of codes). Returns the
    maps, int32. The choice only affects which file is written, so a GPU leaves this to the CPU.
    """
    job = checked(priors, ChooseJob(shapes, candidates, condition, given=given))
    return backends.backend(backend).choose(priors, [job])[0]
