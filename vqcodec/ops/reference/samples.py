"""Samples in subscale order, as docs/FORMAT.md ("Samples") defines them: integers, one sample at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vqcodec.errors import FormatError
from vqcodec.ops.reference.range_decoder import RangeDecoder

if TYPE_CHECKING:
    from vqcodec.ops.samples import Streams, TileShape

TAPS = 40  #: of a filter, with padding
SHIFTS = 7, 12  #: how fast the two filters forget
BINS = 40  #: of the energy of errors
NODES = 64  #: decisions: 16 for each of 4 sizes of buckets
INPUTS = 11  #: of a mixture: 4 predictions, 6 counts, 1 constant
HASH_BITS = 14

#: Nearby samples of the channel itself, in halves of the pass, for each pass: (rows, columns).
OWN = (
    ((-1, -1), (-1, 1), (1, -1), (1, 1), (0, -2), (-2, 0), (-2, -2), (-2, 2), (-1, -3), (-1, 3), (1, -3), (1, 3),
     (-3, -1), (3, -1), (-3, 1), (3, 1)),
    ((0, -1), (0, 1), (-1, 0), (1, 0), (0, -2), (-2, 0), (-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2),
     (1, -2), (1, 2), (0, -3), (0, 3), (-3, 0), (3, 0)),
    ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2),
     (1, -2), (1, 2), (0, -3), (0, 3), (-3, 0), (3, 0)),
)  # fmt: skip
#: Those of the two channels before.
OTHER = (
    ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (0, -2), (-2, 0), (0, 2), (2, 0)),
    ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (0, -2), (-2, 0), (0, 2), (2, 0)),
    ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)),
)


class Tables(NamedTuple):
    """Functions in integers.

    survival: 2^22 / (1 + exp(-t / 64)), t = -1024 to 1023. squash: 2^16 / (1 + exp(-t / 256)), t = -2048 to 2047.
    stretch: its inverse, of (i + 1/2) / 4096. rate: 2^16 / (n + 3/2). ends: upper ends of bins.
    """

    survival: list[int]
    squash: list[int]
    stretch: list[int]
    rate: list[int]
    ends: list[int]


@functools.cache
def tables() -> Tables:
    one = 1 << 32
    survival, power = [0] * 2048, one
    for t in range(1025):
        p = (one << 22) // (one + power)
        if t < 1024:
            survival[1024 + t] = p
        survival[1024 - t] = (1 << 22) - p
        power = power * 4228378656 >> 32  # exp(-1/64)
    squash, power = [0] * 4096, one
    for t in range(2049):
        p = (one << 16) // (one + power)
        if t < 2048:
            squash[2048 + t] = min(p, 65535)
        squash[2048 - t] = 65536 - p
        power = power * 4278222763 >> 32  # exp(-1/256)
    stretch, t = [], 0
    for i in range(4096):
        while t < 4095 and squash[t] < i * 16 + 8:
            t += 1
        stretch.append(t - 2048)
    ends = [2, 5, 8, 12, 17, 24, 33, 43, 56, 73, 94, 120, 153, 195, 248, 314, 398, 504, 637, 804, 1015]
    while len(ends) < BINS:
        ends.append(ends[-1] * 3 // 2)
    return Tables(survival, squash, stretch, [131072 // (2 * n + 3) for n in range(256)], ends)


def bin_of(x: int) -> int:
    """The bin of an energy."""
    return next((number for number, end in enumerate(tables().ends[:-1]) if x < end), BINS - 1)


def wrapped(x: np.ndarray) -> np.ndarray:
    """As 32-bit integers: what overflows wraps around."""
    return (x + 2**31) % 2**32 - 2**31


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def towards_zero(a: int, b: int) -> int:
    return abs(a) // b * (1 if a >= 0 else -1)


class Filter:
    """A linear filter whose weights follow by recursive least squares."""

    def __init__(self, taps: int, weights: dict[int, int], shift: int) -> None:
        self.taps, self.padded, self.shift = taps, -(-taps // 8) * 8, shift
        self.covariance = np.zeros((TAPS, TAPS), np.int64)
        self.covariance[range(taps), range(taps)] = 6400
        self.residue = np.zeros(TAPS, np.int64)
        self.weights = np.zeros(TAPS, np.int64)
        for tap, weight in weights.items():
            self.weights[tap] = weight

    def predict(self, x: np.ndarray) -> int:
        return int(wrapped(self.weights @ x + 64)) >> 7

    def learn(self, x: np.ndarray, gain: int, error: int) -> None:
        half, shift = 1 << (self.shift - 1), self.shift
        weighted = (gain * x[: self.taps] + 32) >> 6
        rows = self.covariance[: self.taps, : self.padded]
        forgotten = wrapped(rows + half) >> shift
        rows[...] = wrapped(rows + weighted[:, None] * x[: self.padded] - forgotten)
        residue = self.residue[: self.padded]
        forgotten = wrapped(residue + half) >> shift
        residue[...] = wrapped(residue + ((gain * error + 32) >> 6) * x[: self.padded] - forgotten)
        for _ in range(2):
            best = int(np.argmax(np.where(residue < 0, ~residue, residue)))
            diagonal = max(int(self.covariance[best, best]), 0) + 1
            weight = int(self.weights[best])
            step = clamp(towards_zero(int(residue[best]) * 512, diagonal), -32768 - weight, 32767 - weight)
            self.weights[best] += step
            row = self.covariance[best, : self.padded]
            residue[...] = wrapped(residue - wrapped((step * row + 256) >> 9))


#: Of a context and a decision: the probability of yes in 2^-22, and how often it was asked.
Counts = dict[tuple[int, ...], tuple[int, int]]


class PassModel:
    """What is learned about a channel in one pass."""

    def __init__(self, number: int, channel: int) -> None:
        taps = len(OWN[number]) + 9 * min(channel, 2)
        weights = dict.fromkeys(range(4), 2048)
        if channel:
            weights |= {taps - 9: 8192} | dict.fromkeys(range(taps - 8, taps - 4), -2048)
        self.filters = [Filter(taps, weights, shift) for shift in SHIFTS]
        errors: list[int] = []
        for b in range(BINS):
            errors.append((64 + (16 << b // 3) * (3 + b % 3) // 3) << 8 if b < 24 else errors[-1] // 2 * 3)
        self.scales = [[[error, 0] for error in errors] for _ in SHIFTS]
        self.bias = [[0] * 1024 for _ in range(2)]
        self.counts: list[Counts] = [{} for _ in range(4)]
        self.mixers: dict[tuple[int, ...], list[int]] = {}


@dataclass(frozen=True)
class Pass:
    half: int
    number: int
    slice: int

    def rows(self, height: int) -> range:
        return range(0 if self.number == 1 else self.half, height, 2 * self.half)

    def columns(self, width: int) -> range:
        return range(0 if self.number == 2 else self.half, width, 2 * self.half)


def passes(shape: TileShape) -> Iterator[Pass]:
    """In the order of coding."""
    half = 1
    while half < max(shape.height, shape.width):
        half *= 2
    while half > 1:
        half //= 2
        for number in range(3):
            found = 0 if half >= 8 else {4: 1, 2: 2}.get(half, 3 + number)
            yield Pass(half, number, 0 if shape.slices == 1 else found)


def bound_at(bound: int, half: int) -> int:
    """By how much samples may differ that are coded with this half."""
    return (bound * {1: 4, 2: 3, 4: 2}.get(half, 1) + 2) // 4


def guess(p: int, _: bool | None) -> bool:
    """Stands for taking predictions instead of deciding."""
    raise AssertionError


#: (probability of yes in 2^-16, whether it is, if known) -> whether it is
Decide = Callable[[int, "bool | None"], bool]


class Tile:
    """See :class:`vqcodec.ops.samples.SampleTile`."""

    def __init__(self, shape: TileShape) -> None:
        self.shape, self.known = shape, 0
        size = shape.channels, shape.height, shape.width
        self._values = np.zeros(size, np.int64)
        self._sizes = np.zeros(size, np.int64)  # of errors, in quarters
        self._rounded = np.zeros(size, np.int64)  # errors, in halves
        self._models = [[PassModel(number, c) for number in range(3)] for c in range(shape.channels)]
        self._hashed: list[Counts] = [{} for _ in range(shape.channels)]

    def set_samples(self, samples: np.ndarray) -> None:
        self._values[...] = samples

    def samples(self) -> np.ndarray:
        return self._values.astype(np.uint16)

    def fill(self) -> None:
        height, width = self.shape.height, self.shape.width
        for at in passes(self.shape):
            if at.slice < self.known:
                continue
            across = at.half if at.number == 0 else 0
            taps = ((-at.half, -across), (at.half, across), (across, -at.half), (-across, at.half))
            for plane in self._values:
                for y in at.rows(height):
                    for x in at.columns(width):
                        near = [
                            int(plane[y + dy, x + dx])
                            for dy, dx in taps
                            if 0 <= y + dy < height and 0 <= x + dx < width
                        ]
                        plane[y, x] = (sum(near) + len(near) // 2) // len(near)

    def code(
        self,
        channel: int,
        end: int,
        decide: Callable[[int], Decide],
        first: Callable[[], int] | None,
        learn: bool = True,
    ) -> None:
        """Code the next slices of a channel; ``decide`` is asked for every slice. first: the first sample, for a decoder."""
        if self.known == 0 and first is not None:
            self._values[channel, 0, 0] = first()
        for at in passes(self.shape):
            if self.known <= at.slice < end:
                decider = decide(at.slice)
                coder = _Sample(self, channel, at, decider, first is None, learn)
                for y in at.rows(self.shape.height):
                    for x in at.columns(self.shape.width):
                        if (plain := getattr(decider, "plain", None)) is not None:
                            coder.knows = True
                            self._values[channel, y, x] = plain()
                        coder.code(y, x)


class _Sample:
    """Codes the samples of a channel in one pass."""

    def __init__(self, tile: Tile, channel: int, at: Pass, decide: Decide, knows: bool, learn: bool) -> None:
        self.tile, self.channel, self.at, self.decide, self.knows, self.learn = tile, channel, at, decide, knows, learn
        self.model = tile._models[channel][at.number]
        self.depth, self.top = tile.shape.depth, 1 << tile.shape.depth
        self.bound = bound_at(tile.shape.bound, at.half)

    def _inside(self, y: int, x: int) -> bool:
        return 0 <= y < self.tile.shape.height and 0 <= x < self.tile.shape.width

    def _value(self, channel: int, y: int, x: int, tap: tuple[int, int], absent: int) -> int:
        y, x = y + tap[0] * self.at.half, x + tap[1] * self.at.half
        return int(self.tile._values[channel, y, x]) if self._inside(y, x) else absent

    def code(self, y: int, x: int) -> None:
        table, model, channel, number = tables(), self.model, self.channel, self.at.number
        # What is known around, less means.
        certain = self._value(channel, y, x, OWN[number][2 if number == 2 else 0], 0)
        v = [self._value(channel, y, x, tap, certain) for tap in OWN[number][:4]]
        total = sum(v)
        mean = (total + 2) >> 2
        v += [self._value(channel, y, x, tap, mean) for tap in OWN[number][4:]]
        d = [value - mean for value in v]
        centres = []
        for c in range(max(0, channel - 2), channel):
            centre = self._value(c, y, x, (0, 0), 0)
            near = [centre] + [self._value(c, y, x, tap, centre) for tap in OTHER[number][1:]]
            d += [value - ((sum(near[1:5]) + 2) >> 2) for value in near]
            centres.append(centre)
        largest, reduced = max(map(abs, d)), 0
        while largest >> reduced > 255:
            reduced += 1
        taps = np.zeros(TAPS, np.int64)
        taps[: len(d)] = np.array(d) >> reduced
        most = (self.top - 1) << 6
        raw = [mean * 64 + model_filter.predict(taps) * 2**reduced for model_filter in model.filters]
        mu = [clamp(prediction, 0, most) for prediction in raw]

        # What errors are to be expected.
        errors, left, above = self._energy(y, x)
        spread = sum(abs(4 * value - total) for value in v[:4])
        others, rounded = errors // 2, 0
        if channel > 0:
            others = int(self.tile._sizes[channel - 1, y, x]) * 4
            if channel > 1:
                others = (others + int(self.tile._sizes[channel - 2, y, x]) * 4) // 2
            rounded = int(self.tile._rounded[channel - 1, y, x])
        expected = (errors * 77 + spread * 16 + others * 64) >> 7
        energy = bin_of(expected)

        # Both predictions, weighted by precision, and corrected.
        scale = [max(scales[energy][0] >> 8, 46) for scales in model.scales]
        least = min(scale)
        precision = [((least << 10) // s) ** 2 for s in scale]
        blend = sum(p * m for p, m in zip(precision, mu)) // sum(precision)
        contexts = [
            energy * 16 + (clamp((rounded + 32) >> 2, 0, 15) if channel else mean >> (self.depth - 4)),
            sum((value * 64 > blend) << i for i, value in enumerate(v[:8])),
        ]
        bias = (model.bias[0][contexts[0]] + model.bias[1][contexts[1]]) >> 9
        corrected = clamp(blend + bias, 0, most)
        centre = (corrected + 32) >> 6
        inverse = [(1613193 << 16) // s for s in (*scale, least)]
        inverse.append(inverse[2] * 2 // 3)

        interval = 2 * self.bound + 1
        bucket = 0
        while bucket < self.depth - 2 and (interval << bucket) * 7680 < least * 13:
            bucket += 1
        size_class = min(bucket, 3)
        keys = (
            min(15, bin_of(left * 4) * 2 // 3) * 16 + min(15, bin_of(above * 4) * 2 // 3),
            contexts[1],
            bin_of(spread) * 4 + min(3, energy // 6),
            centre >> (self.depth - 8),
        )
        exact = colour = number
        for value in v[:4]:
            exact = exact * 271 + value
        for value in centres:
            exact = exact * 517 + value
        if channel > 0:
            colour = colour * 65536 + centres[-1] * 256 + (centres[0] if channel > 1 else mean)
        else:
            colour = colour * 65536 + v[0] * 256 + v[1]
        lines = [
            ((key + size_class * 0x9E3779B1) * 0xC2B2AE35 % 2**32) >> (32 - HASH_BITS)
            for key in (exact * 0x9E3779B1, colour * 0x85EBCA6B)
        ]
        decider = _Decider(self, energy, (*mu, corrected, blend), inverse, keys, lines, size_class)
        known = int(self.tile._values[channel, y, x]) if self.knows else None
        found = centre if self.decide is guess else decider.find(known, centre, self.bound, 1 << bucket)
        value = clamp(found, 0, self.top - 1)
        self.tile._values[channel, y, x] = value

        # Learn.
        off = value * 64 - corrected
        self.tile._sizes[channel, y, x] = min(65535, (abs(off) + 8) >> 4)
        self.tile._rounded[channel, y, x] = clamp((off + 16) >> 5, -127, 127)
        if not self.learn:
            return
        for scales, prediction in zip(model.scales, mu):
            entry = scales[energy]
            error = min(abs(value * 64 - prediction), 1 << 20) << 10
            entry[0] += ((error - entry[0]) * table.rate[entry[1]] + 32768) >> 16
            entry[1] = min(entry[1] + 1, 255)
        for biases, context in zip(model.bias, contexts):
            biases[context] += ((value * 64 - blend) * 256 - biases[context] + 128) >> 8
        largest = min(255, max(largest, abs(value - mean)) >> reduced)
        calm = min(expected >> reduced, 1 << 14)
        gain = clamp(min(2048 * 64 // (64 + (calm * calm >> 4)), (1 << 26) // max(1, largest * largest)), 1, 2048)
        drop = 2 + reduced
        for model_filter, prediction in zip(model.filters, raw):
            error = clamp((value * 64 - prediction + (1 << (drop - 1))) >> drop, -1023, 1023)
            model_filter.learn(taps, gain, error)

    def _energy(self, y: int, x: int) -> tuple[int, int, int]:
        """How large errors were around here, in 1/16; and to the left and above."""
        half = self.at.half

        def error(dy: int, dx: int) -> int:
            inside = self._inside(y + dy * half, x + dx * half)
            return int(self.tile._sizes[self.channel, y + dy * half, x + dx * half]) if inside else 0

        left, above = error(0, -2), error(-2, 0)
        near = 2 * left + 2 * above + error(-2, 2) + error(-2, -2)
        if self.at.number == 0:
            return near * 4 // 6, left, above
        vertical = error(-1, 0) + error(1, 0)
        if self.at.number == 1:
            return (2 * near + 3 * vertical) * 4 // 18, left, above
        return (2 * near + 3 * (vertical + error(0, -1) + error(0, 1))) * 4 // 24, left, above


class _Decider:
    """The decisions about one sample."""

    def __init__(
        self, sample: _Sample, energy: int, mu: Sequence[int], inverse: Sequence[int], keys: Sequence[int],
        lines: Sequence[int], size_class: int,
    ) -> None:  # fmt: skip
        self.sample, self.model, self.top = sample, sample.model, sample.top
        self.energy, self.mu, self.inverse, self.keys, self.lines = energy, mu, inverse, keys, lines
        self.size_class = size_class

    def _survivals(self, x: int) -> list[int]:
        """Probabilities, in 2^-22, that the sample is x or more, by every prediction."""
        if x <= 0 or x >= self.top:
            return [1 << 22 if x <= 0 else 0] * 4
        survival = tables().survival
        return [
            survival[clamp((m - (x << 6) + 32) * i >> 28, -1023, 1023) + 1024] for m, i in zip(self.mu, self.inverse)
        ]

    def decide(self, node: int, low: int, middle: int, high: int, value: int | None) -> bool:
        """Whether the sample is ``middle`` or more, if it is known to be at least ``low`` and below ``high``."""
        table, node = tables(), self.size_class * 16 + node
        opinions = []
        for a, b, c in zip(*map(self._survivals, (low, middle, high))):
            p = 2048 if a - c < 16 else ((b - c) << 12) // (a - c)
            opinions.append(table.stretch[min(p, 4095)])
        places: list[tuple[Counts, tuple[int, ...]]] = [
            (counts, (key, node)) for counts, key in zip(self.model.counts, self.keys)
        ]
        hashed = self.sample.tile._hashed[self.sample.channel]
        places += [(hashed, (k, line, node % 16)) for k, line in enumerate(self.lines)]
        for counts, place in places:
            p, seen = counts.get(place, (1 << 21, 0))
            opinions.append(table.stretch[p >> 10] * min(8, seen + 1) >> 3)
        opinions.append(77)
        mixers = [self.model.mixers.setdefault(name, [16384] * INPUTS) for name in ((node,), (node, self.energy))]
        found = [clamp(sum((w >> 2) * o for w, o in zip(mixer, opinions)) >> 14, -2047, 2047) for mixer in mixers]
        p = clamp(table.squash[(sum(found) >> 1) + 2048], 24, 65536 - 24)
        yes = self.sample.decide(p, None if value is None else value >= middle)
        if not self.sample.learn:
            return yes
        for mixer, at in zip(mixers, found):
            off = (65536 if yes else 0) - table.squash[at + 2048]
            for i, opinion in enumerate(opinions):
                mixer[i] = clamp(mixer[i] + ((off * opinion + 8192) >> 14), 1 - (1 << 18), (1 << 18) - 1)
        for counts, place in places:
            p, seen = counts.get(place, (1 << 21, 0))
            goal = (1 << 22) - 1 if yes else 0
            counts[place] = p + ((goal - p) * table.rate[seen] >> 16), min(seen + 1, 60)
        return yes

    def find(self, value: int | None, centre: int, bound: int, step: int) -> int:
        """The middle of the sample's interval."""
        interval, zero = 2 * bound + 1, centre - bound
        bucket, turn = step * interval, 0
        if zero <= 0 or self.decide(0, 0, zero, self.top, value):
            search, low = 6, zero
            while True:
                if low + bucket >= self.top:
                    high = low + -(-(self.top - low) // interval) * interval
                    break
                high = low + bucket
                if not self.decide(1 + min(turn, 4), low, high, self.top, value):
                    break
                low, turn = high, turn + 1
                bucket *= 1 if turn < 4 else 2
        else:
            search, high = 11, zero
            while True:
                if high - bucket <= 0:
                    low = high - -(-high // interval) * interval
                    break
                low = high - bucket
                if self.decide(7 + min(turn, 3), 0, low, high, value):
                    break
                high, turn = low, turn + 1
                bucket *= 1 if turn < 4 else 2
        left = (high - low) // interval
        while left > 1:
            middle = low + left // 2 * interval
            if self.decide(search, low, middle, high, value):
                low, left = middle, left - left // 2
            else:
                high, left = middle, left // 2
        return low + bound


# -- coders ------------------------------------------------------------------------------


def plain(tile: Tile, channel: int, number: int) -> bytes:
    """The samples of a slice as they are."""
    plane = tile._values[channel]
    samples = [plane[0, 0]] if number == 0 else []
    for at in passes(tile.shape):
        if at.slice == number:
            samples += [plane[y, x] for y in at.rows(tile.shape.height) for x in at.columns(tile.shape.width)]
    return np.array(samples, ">u2" if tile.shape.depth == 16 else np.uint8).tobytes()


def encode(tile: Tile, end: int) -> Streams:
    """The streams of the next slices of every channel."""
    from vqcodec.ops.range_coder import encode_stream

    streams: Streams = []
    for channel in range(tile.shape.channels):
        samples = [plain(tile, channel, number) for number in range(end)]
        written: list[list[tuple[int, bool]]] = [[] for _ in range(end)]

        def decide(number: int, written: list[list[tuple[int, bool]]] = written) -> Decide:
            def code(p: int, yes: bool | None) -> bool:
                written[number].append((p, bool(yes)))
                return bool(yes)

            return code

        if tile.known == 0:
            first = int(tile._values[channel, 0, 0])
            written[0] += [(32768, bool(first >> bit & 1)) for bit in reversed(range(tile.shape.depth))]
        tile.code(channel, end, decide, None)
        streams.append([])
        for number in range(tile.known, end):
            splits = [(p << 8, yes) for p, yes in written[number]]
            starts = np.array([0 if yes else split for split, yes in splits], np.int64)
            frequencies = np.array([split if yes else (1 << 24) - split for split, yes in splits], np.int64)
            stream = encode_stream(starts, frequencies)
            streams[-1].append(stream if len(stream) < len(samples[number]) else samples[number])
    tile.known = end
    return streams


def decode(tile: Tile, end: int, streams: Streams) -> bool:
    """Decode the next slices; False if no encoder can have written the streams."""
    sound, known = True, tile.known
    for channel, slices in enumerate(streams):
        readers = [
            _Reader(stream, len(plain(tile, channel, known + i)), tile.shape.depth) for i, stream in enumerate(slices)
        ]
        if all(reader.sound for reader in readers):
            tile.code(channel, end, lambda number, readers=readers: readers[number - known], readers[0].first)  # type: ignore[misc]
        sound &= all(reader.sound for reader in readers)
    tile.known = end
    return sound


class _Reader:
    """Answers decisions from a stream, or gives the samples that it is."""

    def __init__(self, stream: bytes, size: int, depth: int) -> None:
        self._decoder, self._depth, self.sound = RangeDecoder(stream), depth, len(stream) <= size
        dtype = ">u2" if depth == 16 else np.uint8
        self._samples = iter(np.frombuffer(stream, dtype).tolist()) if 0 < len(stream) == size else None
        self.plain = None if self._samples is None else self._samples.__next__

    def first(self) -> int:
        """The first sample: bits of probability 1/2."""
        if self.plain is not None:
            return self.plain()
        value = 0
        for _ in range(self._depth):
            value = 2 * value + self(32768)
        return value

    def __call__(self, p: int, yes: bool | None = None) -> bool:
        if self.plain is not None:
            return bool(yes)
        try:
            return bool(self.sound and self._decoder.decode(np.array([[0, p << 8, 1 << 24]]))[0] == 0)
        except FormatError:
            self.sound = False
            return False


def draw(tile: Tile, end: int, seed: int | None) -> None:
    """Draw the next slices, with words of SplitMix64. Nothing is learned: its own samples would lead a model astray."""
    for channel in range(tile.shape.channels):
        state = ((seed or 0) + channel * 0xD1342543DE82EF95) % 2**64

        def decide(p: int, _: bool | None) -> bool:
            nonlocal state
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
            return (z ^ z >> 31) >> 48 < p

        answer: Decide = guess if seed is None else decide
        tile.code(channel, end, lambda _, answer=answer: answer, lambda: 1 << (tile.shape.depth - 1), learn=False)  # type: ignore[misc]
    tile.known = end
