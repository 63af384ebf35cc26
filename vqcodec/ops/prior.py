"""Running the integer prior: frequencies of known codes, and the fused loop that makes codes.

Every op takes ``backend``:

    "reference"                    NumPy, the definition (`vqcodec.ops.reference.prior`): slow
    "native"                       the compiled core, with the best instruction set
    "scalar", "avx2", "avx512", "neon"    the compiled core, with that instruction set
    "cuda", "cuda:1"               a GPU, by number (`vqcodec.ops.cuda`)
    None                           what the environment variable VQCODEC_BACKEND names, or "native"

All give the same codes and frequencies to the last bit, on any number of threads.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument
from vqcodec.ops import cpu, cuda
from vqcodec.ops.reference import prior as reference_prior
from vqcodec.ops.reference.range_decoder import RangeDecoder
from vqcodec.ops.reference.rate import code_bits

if TYPE_CHECKING:
    from vqcodec.model.prior import Conv, IntegerPrior

__all__ = [
    "DecodeJob",
    "SampleJob",
    "prior_frequencies",
    "wavefront_choose",
    "wavefront_decode",
    "wavefront_decode_batch",
    "wavefront_sample",
    "wavefront_sample_batch",
]

Shape = tuple[int, int]


@dataclass(frozen=True)
class DecodeJob:
    """One picture, or one tile of it, whose maps are to be decoded."""

    shapes: Sequence[Shape]
    """Height and width, in codes, of every map to decode."""

    streams: Sequence[bytes]
    """The range coder's bytes, one stream for each of those maps."""

    class_id: int = 0
    level: int = 0

    given: Sequence[np.ndarray] = ()
    """The coarser maps, where they are known already."""


@dataclass(frozen=True)
class SampleJob:
    """One picture whose maps are to be drawn."""

    shapes: Sequence[Shape]
    """Height and width, in codes, of every map to draw."""

    words: Sequence[np.ndarray]
    """For each of those maps uniform numbers below 2**24, height * width in coding order (uint32)."""

    class_id: int = 0
    level: int = 0

    given: Sequence[np.ndarray] = ()
    """The coarser maps, where they are known already."""


Job = DecodeJob | SampleJob


def prior_frequencies(
    prior: IntegerPrior,
    codes: np.ndarray,
    coarser: Sequence[np.ndarray],
    class_id: int,
    level: int,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each code of a known map lies in its frequency table, for a range encoder.

    codes: the map, height x width, any integer type.
    coarser: the maps before it, coarse to fine.

    Returns, in coding order, the cumulative frequency before each code and its frequency: int64,
    height * width each, out of 2**24. Their logarithms are the map's size:
    ``24 * codes.size - np.log2(frequency).sum()`` bits.
    Raises InvalidArgument for codes, shapes, a class or a level that the prior does not have.
    """
    codes = _code_map("codes", codes)
    coarser = [_code_map(f"coarser map {j}", c) for j, c in enumerate(coarser)]
    if len(coarser) != len(prior.factors):
        raise InvalidArgument(f"the prior has {len(prior.factors)} coarser maps, got {len(coarser)}")
    core = _core(backend)
    if core is not None:
        return core.prior_frequencies(_network(prior, core), codes, coarser, class_id, level)
    _check_job([prior], [codes.shape], class_id, level, coarser)
    _check_codes("codes", codes, prior.codes)
    return reference_prior.prior_frequencies(prior, codes, coarser, class_id, level)


def wavefront_decode(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    streams: Sequence[bytes],
    class_id: int,
    level: int,
    *,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Decode consecutive maps of one picture or tile, coarse to fine.

    priors, shapes, streams: the prior, (height, width) and bytes of each map to decode. They
        follow the maps that are ``given``.

    Returns the decoded maps, int32. Raises CorruptChunk, which names the map, if no encoder can
    have written a stream; many damaged streams decode to wrong codes instead, so streams need
    checksums. Raises InvalidArgument for shapes, codes, a class or a level that do not fit.
    """
    job = DecodeJob(shapes, streams, class_id, level, given)
    return wavefront_decode_batch(priors, [job], backend=backend)[0]


def wavefront_decode_batch(
    priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob], *, backend: str | None = None
) -> list[list[np.ndarray]]:
    """`wavefront_decode` of several pictures or tiles: faster than one by one."""
    for job in jobs:
        _count("streams", job.streams, priors)
    streams = [[bytes(stream) for stream in job.streams] for job in jobs]
    core = _core(backend)
    if core is None:
        return _reference(priors, jobs, lambda job, m: RangeDecoder(streams[job][m]).decode)
    networks = [_network(prior, core) for prior in priors]
    maps, corrupt = core.wavefront_decode(networks, _tuples(priors, jobs, streams))
    for which, number in enumerate(corrupt):
        if number >= 0:
            raise _corrupt(number, which, jobs)
    return maps


def wavefront_sample(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    words: Sequence[np.ndarray],
    class_id: int,
    level: int,
    *,
    sharpness: int = 256,
    nucleus: int = reference_prior.WHOLE,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Draw consecutive maps of one picture, coarse to fine.

    priors, shapes, words: the prior, (height, width) and uniform 24-bit numbers of each map to
        draw. The same words give the same maps everywhere. They follow the maps that are ``given``.
    sharpness: 256 / temperature, 1 to 65536: probabilities are raised to sharpness / 256.
    nucleus: 65536 * top_p, 1 to 65536: only the likeliest codes that together have this share are drawn
        (the others keep a frequency of 1 in 2**24).

    Returns the maps, int32. Raises InvalidArgument for shapes, words, codes, a class or a level
    that do not fit.
    """
    job = SampleJob(shapes, words, class_id, level, given)
    return wavefront_sample_batch(priors, [job], sharpness=sharpness, nucleus=nucleus, backend=backend)[0]


def wavefront_sample_batch(
    priors: Sequence[IntegerPrior],
    jobs: Sequence[SampleJob],
    *,
    sharpness: int = 256,
    nucleus: int = reference_prior.WHOLE,
    backend: str | None = None,
) -> list[list[np.ndarray]]:
    """`wavefront_sample` of several pictures: faster than one by one."""
    for name, value in (("sharpness", sharpness), ("nucleus", nucleus)):
        if not 1 <= value <= 65536:
            raise InvalidArgument(f"{name} must be in 1..65536, got {value}")
    for job in jobs:
        _count("words", job.words, priors)
    words = [[_words(w, shape) for w, shape in zip(job.words, job.shapes)] for job in jobs]
    core = _core(backend)
    if core is None:
        return _reference(priors, jobs, lambda job, m: _Draw(words[job][m]), sharpness, nucleus)
    networks = [_network(prior, core) for prior in priors]
    return core.wavefront_sample(networks, _tuples(priors, jobs, words), sharpness, nucleus)[0]


def wavefront_choose(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    candidates: Sequence[tuple[np.ndarray, np.ndarray]],
    class_id: int,
    level: int,
    *,
    given: Sequence[np.ndarray] = (),
    backend: str | None = None,
) -> list[np.ndarray]:
    """Choose the codes of consecutive maps for an encoder, by distortion and by what they will cost.

    candidates: for each map (codes, costs), each height * width x count in coding order: int32,
        and int32 costs of all but the code itself in 1/256 bit. The first map follows ``given``.

    Each code is the candidate with the lowest cost + bits under the prior (`reference.rate.code_bits`),
    the first of equals, given the codes chosen before it: a greedy rate-distortion optimisation (not one
    over all maps of codes). Returns the maps, int32, the same on every processor.
    """
    for name, items in (("shapes", shapes), ("candidates", candidates)):
        _count(name, items, priors)
    streams = [_candidates(each, shape, prior) for each, shape, prior in zip(candidates, shapes, priors)]
    job = DecodeJob(shapes, [], class_id, level, given)
    core = _core(backend)
    if core is None:
        return _reference(priors, [job], lambda _, m: _Choose(*streams[m]))[0]
    cpu = core if isinstance(core, _Cpu) else _Cpu("")
    return cpu.wavefront_choose([_network(prior, cpu) for prior in priors], _tuples(priors, [job], [streams]))[0]


# -- backends ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cpu:
    """The compiled core with an instruction set ("": the best). Arguments are those of `vqcodec.ops.cpu`."""

    variant: str

    def load_prior(self, **tensors: Any) -> Any:
        return cpu.load_prior(**tensors)

    def prior_frequencies(self, prior: Any, codes: np.ndarray, coarser: list[np.ndarray], class_id: int,
                          level: int) -> tuple[np.ndarray, np.ndarray]:
        return cpu.prior_frequencies(prior, codes, coarser, class_id, level, self.variant)

    def wavefront_decode(self, priors: list[Any], jobs: list[Any]) -> tuple[list[list[np.ndarray]], list[int]]:
        return cpu.wavefront_decode(priors, jobs, self.variant)

    def wavefront_sample(self, priors: list[Any], jobs: list[Any], sharpness: int,
                         nucleus: int) -> tuple[list[list[np.ndarray]], list[int]]:
        return cpu.wavefront_sample(priors, jobs, sharpness, nucleus, self.variant)

    def wavefront_choose(self, priors: list[Any], jobs: list[Any]) -> list[list[np.ndarray]]:
        return cpu.wavefront_choose(priors, jobs, self.variant)


def _core(backend: str | None) -> _Cpu | cuda.Device | None:
    """Who computes; None is the reference."""
    name = backend or os.environ.get("VQCODEC_BACKEND") or "native"
    if name == "reference":
        return None
    if name == "native":
        return _Cpu("")
    if name in ("scalar", "avx2", "avx512", "neon"):
        return _Cpu(name)
    if name.startswith("cuda"):
        number = cuda.number_of(name)
        device = cuda.device(number)
        return device if cuda.trusted(number) else _Cpu("")
    raise InvalidArgument(
        f"backend must be one of reference, native, scalar, avx2, avx512, neon, cuda, got {name!r}"
    )


_networks: dict[tuple[int, Any], Any] = {}


def _network(prior: IntegerPrior, core: _Cpu | cuda.Device) -> Any:
    """The prior packed for a processor: once, and as long as the prior lives."""
    key = id(prior), core if isinstance(core, cuda.Device) else None
    if key not in _networks:
        network = core.load_prior(**tensors_of(prior))
        weakref.finalize(prior, _networks.pop, key, None)
        _networks[key] = network
    return _networks[key]


def tensors_of(prior: IntegerPrior) -> dict[str, Any]:
    """The arrays of a prior as `load_prior` of a processor takes them."""

    def conv(c: Conv) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return c.weight, c.bias, c.shift

    layers = []
    for i, block in enumerate(prior.blocks):
        layers.append((conv(block.conv), conv(block.out), False))
        if i in prior.attention:
            attention = prior.attention[i]
            layers.append((conv(attention.qkv), conv(attention.out), True))
    layers += [(conv(block.conv), conv(block.out), False) for block in prior.output]
    return {
        "kernel": prior.config.kernel,
        "first_kernel": prior.config.first_kernel,
        "heads": prior.config.heads,
        "num_blocks": len(prior.blocks),
        "factors": list(prior.factors),
        "embedding": prior.embedding,
        "first": conv(prior.first),
        "classes": prior.classes,
        "levels": prior.levels,
        "coarser": list(prior.coarser),
        "condition_in": None if prior.condition_in is None else conv(prior.condition_in),
        "condition": [(conv(block.conv), conv(block.out), False) for block in prior.condition],
        "layers": layers,
        "logits": conv(prior.logits),
        "tanh": prior.tables.tanh,
        "sigmoid": prior.tables.sigmoid,
        "exp": prior.tables.exp,
    }


def _tuples(
    priors: Sequence[IntegerPrior],
    jobs: Sequence[Job],
    streams: list[list[Any]],
) -> list[Any]:
    """The jobs as the compiled core takes them."""
    return [
        (job.class_id, job.level, _given(job), _shapes(job, priors), job_streams)
        for job, job_streams in zip(jobs, streams, strict=True)
    ]


class _Draw:
    """Codes from words, step by step: the counterpart of `RangeDecoder.decode`."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words
        self._next = 0

    def __call__(self, cumulative: np.ndarray) -> np.ndarray:
        words = self._words[self._next : self._next + len(cumulative)]
        self._next += len(cumulative)
        return reference_prior.inverse_cdf(cumulative, words)


class _Choose:
    """Codes from candidates, step by step."""

    def __init__(self, codes: np.ndarray, costs: np.ndarray) -> None:
        self._codes, self._costs = codes, costs
        self._next = 0

    def __call__(self, cumulative: np.ndarray) -> np.ndarray:
        here = slice(self._next, self._next + len(cumulative))
        self._next += len(cumulative)
        codes = self._codes[here]
        frequency = np.take_along_axis(np.diff(cumulative, axis=1), codes.astype(np.int64), 1)
        cost = self._costs[here].astype(np.int64) + code_bits(frequency)
        return np.take_along_axis(codes, cost.argmin(1)[:, None], 1)[:, 0]


def _reference(
    priors: Sequence[IntegerPrior],
    jobs: Sequence[Job],
    chooser: Callable[[int, int], Callable[[np.ndarray], np.ndarray]],
    sharpness: int = 256,
    nucleus: int = reference_prior.WHOLE,
) -> list[list[np.ndarray]]:
    """All maps of all jobs, one after another. ``chooser(job, m)`` makes codes of frequencies."""
    results = []
    for number, job in enumerate(jobs):
        maps, shapes = _given(job), _shapes(job, priors)
        _check_job(priors, shapes, job.class_id, job.level, maps)
        known = len(maps)
        for m, (prior, shape) in enumerate(zip(priors, shapes, strict=True)):
            try:
                codes = reference_prior.wavefront(
                    prior, shape, maps, job.class_id, job.level, chooser(number, m), sharpness, nucleus
                )
            except FormatError:
                raise _corrupt(known + m, number, jobs) from None
            maps.append(codes)
        results.append(maps[known:])
    return results


# -- checks --------------------------------------------------------------------------------


def _corrupt(number: int, job: int, jobs: Sequence[Job]) -> CorruptChunk:
    where = f" (job {job})" if len(jobs) > 1 else ""
    return CorruptChunk(f"map {number}", f"the stream is not one that an encoder writes{where}")


def _code_map(name: str, codes: np.ndarray) -> np.ndarray:
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu" or codes.ndim != 2:
        raise InvalidArgument(f"{name} must be a height x width array of integers")
    if codes.dtype.itemsize > 4 and codes.size and not 0 <= codes.min() <= codes.max() < 2**31:
        raise InvalidArgument(f"{name}: codes must be in 0..{2**31 - 1}")
    return np.ascontiguousarray(codes, np.int32)


def _given(job: Job) -> list[np.ndarray]:
    return [_code_map(f"map {j}", codes) for j, codes in enumerate(job.given)]


def _shapes(job: Job, priors: Sequence[IntegerPrior]) -> list[Shape]:
    _count("shapes", job.shapes, priors)
    return [(int(height), int(width)) for height, width in job.shapes]


def _words(words: np.ndarray, shape: Shape) -> np.ndarray:
    words = np.asarray(words)
    count = int(shape[0]) * int(shape[1])
    if words.dtype.kind not in "iu" or words.shape != (count,):
        raise InvalidArgument(f"words must be {count} integers, got {words.dtype} {words.shape}")
    if count and not 0 <= words.min() <= words.max() < reference_prior.TOTAL:
        raise InvalidArgument("words must be in 0..2**24-1")
    return np.ascontiguousarray(words, np.uint32)


def _candidates(candidates: tuple[np.ndarray, np.ndarray], shape: Shape,
                prior: IntegerPrior) -> tuple[np.ndarray, np.ndarray]:
    codes, costs = candidates
    if codes.ndim != 2 or codes.shape != costs.shape or len(codes) != shape[0] * shape[1] or not codes.size:
        raise InvalidArgument(f"candidates and costs must be {shape[0] * shape[1]} x count, got {codes.shape}, {costs.shape}")
    if costs.dtype != np.int32:
        raise InvalidArgument(f"costs must be int32, in 1/256 bit, got {costs.dtype}")
    _check_codes("candidates", codes, prior.codes)
    return np.ascontiguousarray(codes, np.int32), np.ascontiguousarray(costs)


def _count(name: str, items: Sequence[Any], priors: Sequence[IntegerPrior]) -> None:
    if len(items) != len(priors):
        raise InvalidArgument(f"{name}: expected {len(priors)}, one for each prior, got {len(items)}")


def _check_codes(name: str, codes: np.ndarray, size: int) -> None:
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise InvalidArgument(f"{name}: codes must be in 0..{size - 1}")


def _check_job(
    priors: Sequence[IntegerPrior],
    shapes: Sequence[Shape],
    class_id: int,
    level: int,
    given: Sequence[np.ndarray],
) -> None:
    """What the compiled core checks, for the reference."""
    sizes = [codes.shape for codes in given] + list(shapes)
    for m, (prior, (height, width)) in enumerate(zip(priors, shapes, strict=True), len(given)):
        if len(prior.factors) != m:
            raise InvalidArgument(f"map {m}: its prior has {len(prior.factors)} coarser maps, expected {m}")
        if height < 1 or width < 1:
            raise InvalidArgument(f"map {m}: must have at least one code, got {height} x {width}")
        for name, value, size in (("class", class_id, len(prior.classes)), ("level", level, len(prior.levels))):
            if not 0 <= value < size:
                raise InvalidArgument(f"{name} must be in 0..{size - 1}, got {value}")
        for j, factor in enumerate(prior.factors):
            if sizes[j][0] * factor < height or sizes[j][1] * factor < width:
                raise InvalidArgument(f"map {m}: map {j} is too small for it: {sizes[j]} times {factor}")
        for j, codes in enumerate(given):
            _check_codes(f"map {j}", codes, len(prior.coarser[j]))
