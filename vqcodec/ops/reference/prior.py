"""The integer prior in NumPy: the definition that every other backend must equal bit for bit.

Positions (r, c) of a code map belong to step ``t = c + lag * r``. What a position needs
of its own map lies at smaller t, so the same function :meth:`PriorState.cumulative`
serves both schedules: all positions in one call (the encoder, codes known) or one call
per step (the decoder).

Matrix products run in float64. All operands are integers and all sums stay below 2**53,
so the result is the exact integer whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vqcodec.model import fixed_point as fmt
from vqcodec.model.prior import AttentionBlock, Conv, GateBlock, IntegerPrior

TOTAL = 1 << fmt.FREQUENCY_BITS
#: The nucleus that keeps all codes.
WHOLE = 1 << 16


def rounding_shift(x: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """x / 2**shift rounded to nearest, halves up: (x + 2**(shift-1)) >> shift; x itself for shift 0."""
    one = np.int64(1)
    return (x + ((one << np.asarray(shift, np.int64)) >> one)) >> shift


def saturate(x: np.ndarray, dtype: type) -> np.ndarray:
    """Clamp to the range of an integer type."""
    info = np.iinfo(dtype)
    return np.clip(x, info.min, info.max).astype(dtype)


def activation(stream: np.ndarray) -> np.ndarray:
    """int16 stream (fraction 8) -> int8 convolution input (fraction 4)."""
    return saturate(rounding_shift(stream.astype(np.int64), fmt.STREAM - fmt.ACTIVATION), np.int8)


def wavefront_steps(height: int, width: int, lag: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the positions of every step, in coding order (t, then r)."""
    steps = []
    for t in range(width + lag * (height - 1)):
        rows = np.arange(max(0, -(-(t - width + 1) // lag)), min(height - 1, t // lag) + 1)
        if len(rows):
            steps.append((rows, t - lag * rows))
    return steps


def coding_order(height: int, width: int, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of all positions in coding order."""
    steps = wavefront_steps(height, width, lag)
    return np.concatenate([r for r, _ in steps]), np.concatenate([c for _, c in steps])


def convolve(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray, conv: Conv) -> np.ndarray:
    """Rounded and shifted convolution at given positions: n x outputs, int64, not clamped.

    ``plane`` is height x width x inputs, int8; zero outside.
    """
    height, width, inputs = plane.shape
    gathered = np.zeros((len(rows), len(conv.offsets), inputs))
    for tap, (dr, dc) in enumerate(conv.offsets):
        r, c = rows + dr, columns + dc
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        gathered[inside, tap] = plane[r[inside], c[inside]]
    weight = conv.weight.reshape(conv.outputs, -1).astype(np.float64)
    sums = (gathered.reshape(len(rows), -1) @ weight.T).astype(np.int64)
    return rounding_shift(sums + conv.bias, conv.shift)


def gate(x: np.ndarray, prior: IntegerPrior) -> np.ndarray:
    """tanh(a) * sigmoid(b) by table; x is n x 2R (fraction 5), the result n x R int8 (fraction 7)."""
    a, b = np.split(saturate(x, np.int8).astype(np.int64) + 128, 2, axis=1)
    product = prior.tables.tanh[a].astype(np.int64) * prior.tables.sigmoid[b]
    return rounding_shift(product, fmt.GATE).astype(np.int8)


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, seen: np.ndarray, exp: np.ndarray) -> np.ndarray:
    """One head of integer attention: n x d int8 from queries n x d, keys and values m x d.

    ``seen`` (n x m bool) says which keys a query sees; at least one each. Weights come
    from the exponential table at the distance to the largest score, sums are exact,
    and there is one rounded floor division.
    """
    score = (query.astype(np.float64) @ key.astype(np.float64).T).astype(np.int64)
    top = np.where(seen, score, np.iinfo(np.int64).min).max(1, keepdims=True)
    distance = (top - score) >> (2 * fmt.ACTIVATION - fmt.EXP_STEP)
    weight = np.where(seen & (distance < fmt.EXP_SIZE), exp[np.clip(distance, 0, fmt.EXP_SIZE - 1)], 0).astype(np.int64)
    total = weight.sum(1, keepdims=True)
    return ((2 * (weight @ value.astype(np.int64)) + total) // (2 * total)).astype(np.int8)


def cumulative_frequencies(logits: np.ndarray, exp: np.ndarray, sharpness: int = 256, nucleus: int = WHOLE) -> np.ndarray:
    """Cumulative frequencies F (n x K+1, int64) of integer logits (n x K, fraction 5).

    With e the table's weights at the distance to the largest logit and C their running sum,

        F_k = k + floor(C_k * (2**24 - K) / C_K),

    so that F_0 = 0, F_K = 2**24 and every code has at least frequency 1. ``sharpness`` is
    256 / temperature (1 .. 65536): distances are multiplied by it and shifted right by 8.
    ``nucleus`` is 65536 * top_p (1 .. 65536): the heaviest codes that together have at least
    this share of the weight stay (with all that weigh as much as the lightest of them), the
    others get weight 0 (Holtzman et al. 2020). Files use 256 and 65536, which change nothing.
    """
    n, k = logits.shape
    distance = ((logits.max(1, keepdims=True) - logits) * sharpness) >> 8
    weight = np.where(distance < fmt.EXP_SIZE, exp[np.minimum(distance, fmt.EXP_SIZE - 1)], 0).astype(np.int64)
    if nucleus < WHOLE:
        heaviest = -np.sort(-weight, axis=1)
        sums = np.cumsum(heaviest, axis=1)
        last = (sums * WHOLE >= nucleus * sums[:, -1:]).argmax(1)
        weight[weight < heaviest[np.arange(n), last][:, None]] = 0
    running = np.zeros((n, k + 1), np.int64)
    np.cumsum(weight, axis=1, out=running[:, 1:])
    return np.arange(k + 1) + running * (TOTAL - k) // running[:, -1:]


class PriorState:
    """Features of one code map while it is coded.

    ``coarser``: the maps before (int, h/f x w/f each), ``class_id`` and ``level``: prior
    inputs. Everything that depends on the map's own codes is filled position by position.
    """

    def __init__(self, prior: IntegerPrior, shape: tuple[int, int], coarser: Sequence[np.ndarray],
                 class_id: int, level: int) -> None:
        height, width = shape
        hidden = prior.hidden
        self.prior, self.shape = prior, shape
        self.embedded = np.zeros((height, width, prior.embedding.shape[1]), np.int8)
        self.planes = [np.zeros((height, width, hidden), np.int8) for _ in prior.blocks]
        self.keys = {i: np.zeros((height * width, 3 * hidden), np.int8) for i in prior.attention}
        self.done = np.zeros(height * width, bool)
        step = prior.lag * np.arange(height)[:, None] + np.arange(width)
        self.step = step.reshape(-1)
        constant = prior.classes[class_id].astype(np.int64) + prior.levels[level]
        self.start = constant + self._condition(coarser)

    def _condition(self, coarser: Sequence[np.ndarray]) -> np.ndarray:
        """The conditioning stack over the whole map: height x width x hidden, int64."""
        prior, (height, width) = self.prior, self.shape
        if prior.condition_in is None:
            return np.zeros((height, width, prior.hidden), np.int64)
        parts = []
        for table, codes, f in zip(prior.coarser, coarser, prior.factors):
            h, w = codes.shape
            vectors = table[codes].reshape(h, w, f, f, -1).transpose(0, 2, 1, 3, 4)
            parts.append(vectors.reshape(h * f, w * f, -1)[:height, :width])
        rows, columns = (index.reshape(-1) for index in np.indices(self.shape))
        stream = saturate(convolve(np.concatenate(parts, 2), rows, columns, prior.condition_in), np.int16)
        for block in prior.condition:
            plane = activation(stream).reshape(height, width, -1)
            inner = np.clip(convolve(plane, rows, columns, block.conv), 0, 127).astype(np.int8)
            stream = _add(stream, inner, block.out)
        return stream.reshape(height, width, -1).astype(np.int64)

    def set_codes(self, rows: np.ndarray, columns: np.ndarray, codes: np.ndarray) -> None:
        """Make codes known to the positions after them."""
        self.embedded[rows, columns] = self.prior.embedding[codes]

    def cumulative(self, rows: np.ndarray, columns: np.ndarray, sharpness: int = 256, nucleus: int = WHOLE) -> np.ndarray:
        """Cumulative frequencies at given positions: n x K+1, int64.

        Every position before them (smaller t) must have been evaluated in an earlier
        call or be part of this one, and its code set.
        """
        prior = self.prior
        stream = saturate(self.start[rows, columns] + convolve(self.embedded, rows, columns, prior.first), np.int16)
        for i, block in enumerate(prior.blocks):
            self.planes[i][rows, columns] = activation(stream)
            stream = self._gate(stream, self.planes[i], rows, columns, block)
            if i in prior.attention:
                stream = self._attention(stream, rows, columns, i, prior.attention[i])
        for block in prior.output:
            inner = gate(_point(activation(stream), block.conv), prior)
            stream = _add(stream, inner, block.out)
        return cumulative_frequencies(_point(activation(stream), prior.logits), prior.tables.exp, sharpness, nucleus)

    def _gate(self, stream: np.ndarray, plane: np.ndarray, rows: np.ndarray, columns: np.ndarray,
              block: GateBlock) -> np.ndarray:
        return _add(stream, gate(convolve(plane, rows, columns, block.conv), self.prior), block.out)

    def _attention(self, stream: np.ndarray, rows: np.ndarray, columns: np.ndarray, i: int,
                   block: AttentionBlock) -> np.ndarray:
        prior, qkv = self.prior, self.keys[i]
        positions = rows * self.shape[1] + columns
        qkv[positions] = saturate(_point(activation(stream), block.qkv), np.int8)
        self.done[positions] = True
        past = np.flatnonzero(self.done)
        d = prior.hidden // prior.config.heads
        out = np.empty((len(rows), prior.hidden), np.int8)
        for part in range(0, len(rows), 256):  # bounds the score matrix
            here = positions[part : part + 256]
            seen = (self.step[past] < self.step[here][:, None]) | (past == here[:, None])
            for head in range(prior.config.heads):
                q, k, v = (slice(j * prior.hidden + head * d, j * prior.hidden + (head + 1) * d) for j in range(3))
                out[part : part + 256, head * d : (head + 1) * d] = attend(
                    qkv[here, q], qkv[past, k], qkv[past, v], seen, prior.tables.exp)
        return _add(stream, out, block.out)


def _point(x: np.ndarray, conv: Conv) -> np.ndarray:
    """A 1x1 convolution of n x inputs int8."""
    sums = (x.astype(np.float64) @ conv.weight[:, 0].T.astype(np.float64)).astype(np.int64)
    return rounding_shift(sums + conv.bias, conv.shift)


def _add(stream: np.ndarray, x: np.ndarray, conv: Conv) -> np.ndarray:
    return saturate(stream.astype(np.int64) + _point(x, conv), np.int16)


def prior_frequencies(prior: IntegerPrior, codes: np.ndarray, coarser: Sequence[np.ndarray], class_id: int,
                      level: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each code of a known map lies in its frequency table, in coding order.

    ``codes`` is height x width. Returns the cumulative frequency before the code and
    the frequency of the code, int64 each, height*width long; both out of 2**24.
    """
    height, width = codes.shape
    rows, columns = coding_order(height, width, prior.lag)
    state = PriorState(prior, codes.shape, coarser, class_id, level)
    state.set_codes(rows, columns, codes[rows, columns])
    cumulative = state.cumulative(rows, columns)
    index, symbols = np.arange(len(rows)), codes[rows, columns]
    start = cumulative[index, symbols]
    return start, cumulative[index, symbols + 1] - start


def wavefront(prior: IntegerPrior, shape: tuple[int, int], coarser: Sequence[np.ndarray], class_id: int, level: int,
              choose: Callable[[np.ndarray], np.ndarray], sharpness: int = 256, nucleus: int = WHOLE) -> np.ndarray:
    """Produce a map step by step: height x width int32.

    ``choose`` turns the cumulative frequencies of a step (n x K+1) into n codes: by
    range decoding or by drawing. It is called in coding order.
    """
    codes = np.zeros(shape, np.int32)
    state = PriorState(prior, shape, coarser, class_id, level)
    for rows, columns in wavefront_steps(*shape, prior.lag):
        chosen = choose(state.cumulative(rows, columns, sharpness, nucleus))
        codes[rows, columns] = chosen
        state.set_codes(rows, columns, chosen)
    return codes


def inverse_cdf(cumulative: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The code whose interval holds each 24-bit word: n int64 from n x K+1 and n."""
    return (cumulative[:, 1:] <= np.asarray(words, np.int64)[:, None]).sum(1)
