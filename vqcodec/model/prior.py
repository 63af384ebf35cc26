"""The exported integer prior: arrays with checked shapes and a proof that nothing overflows.

NumPy only. This is what a model file holds and what every backend executes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vqcodec.errors import ModelError
from vqcodec.model import fixed_point as fmt
from vqcodec.model.config import CodeMap, PriorConfig


@dataclass(frozen=True)
class Tables:
    """The non-linearities, shared by all priors of a model."""

    tanh: np.ndarray  #: int8[256]
    sigmoid: np.ndarray  #: int8[256]
    exp: np.ndarray  #: uint16[512], not increasing, entry 0 positive

    @classmethod
    def standard(cls) -> Tables:
        return cls(fmt.tanh_table(), fmt.sigmoid_table(), fmt.exp_table())

    def __post_init__(self) -> None:
        _expect("table tanh", self.tanh, np.int8, (256,))
        _expect("table sigmoid", self.sigmoid, np.int8, (256,))
        _expect("table exp", self.exp, np.uint16, (fmt.EXP_SIZE,))
        if self.exp[0] == 0 or np.any(np.diff(self.exp.astype(np.int64)) > 0):
            raise ModelError("table exp must start above zero and never increase")
        for name in ("tanh", "sigmoid"):
            if np.abs(getattr(self, name).astype(int)).max() > fmt.WEIGHT_MAX:
                raise ModelError(f"table {name} must stay within -127..127")


@dataclass(frozen=True)
class Conv:
    """An integer convolution: sum over taps and inputs, plus bias; the caller applies ``shift``."""

    weight: np.ndarray  #: int8, outputs x taps x inputs
    bias: np.ndarray  #: int32, outputs
    shift: np.ndarray  #: uint8, outputs: rounding right shift of the accumulator
    offsets: tuple[tuple[int, int], ...]  #: (row, column) of each tap

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[2]

    def largest_sum(self) -> int:
        """The largest accumulator that any int8 input can cause, rounding included."""
        weights = np.abs(self.weight.astype(np.int64)).sum((1, 2))
        half = (np.int64(1) << self.shift.astype(np.int64)) >> 1
        return int((weights * 128 + np.abs(self.bias.astype(np.int64)) + half).max())


@dataclass(frozen=True)
class GateBlock:
    conv: Conv  #: hidden -> 2 residual: inputs of tanh, then of sigmoid
    out: Conv  #: residual -> hidden


@dataclass(frozen=True)
class AttentionBlock:
    qkv: Conv  #: hidden -> 3 hidden: queries, keys, values, heads side by side
    out: Conv


@dataclass(frozen=True)
class IntegerPrior:
    """The integer network of one code map. Built by :func:`load_prior`, which checks everything."""

    config: PriorConfig
    tables: Tables
    codes: int  #: K
    factors: tuple[int, ...]  #: how much coarser each earlier map is
    embedding: np.ndarray  #: int8, K x E
    first: Conv
    classes: np.ndarray  #: int16, classes + 1 x hidden
    levels: np.ndarray  #: int16, levels x hidden
    coarser: tuple[np.ndarray, ...]  #: int8, K_j x f*f*E_c
    condition_in: Conv | None
    condition: tuple[GateBlock, ...]  #: conv (3x3, then ReLU) and out
    blocks: tuple[GateBlock, ...]
    attention: Mapping[int, AttentionBlock]  #: by the gated block they follow
    output: tuple[GateBlock, ...]
    logits: Conv

    @property
    def hidden(self) -> int:
        return self.config.hidden

    @property
    def lag(self) -> int:
        return self.config.lag

    def convolutions(self) -> list[tuple[str, Conv]]:
        """Every convolution with its name, in order of execution."""
        found: list[tuple[str, Conv]] = [("first", self.first)]
        if self.condition_in is not None:
            found.append(("condition.in", self.condition_in))
        for i, block in enumerate(self.condition):
            found += [(f"condition.{i}.conv", block.conv), (f"condition.{i}.out", block.out)]
        for i, block in enumerate(self.blocks):
            found += [(f"block.{i}.gate", block.conv), (f"block.{i}.out", block.out)]
            if i in self.attention:
                found += [(f"attention.{i}.qkv", self.attention[i].qkv), (f"attention.{i}.out", self.attention[i].out)]
        for i, block in enumerate(self.output):
            found += [(f"output.{i}.gate", block.conv), (f"output.{i}.out", block.out)]
        return [*found, ("logits", self.logits)]

    def macs(self) -> int:
        """Multiply-accumulates per code (attention aside)."""
        return sum(conv.weight.size for _, conv in self.convolutions())


def load_prior(config: PriorConfig, maps: Sequence[CodeMap], classes: int, levels: int,
               tensors: Mapping[str, np.ndarray], tables: Tables) -> IntegerPrior:
    """The prior of the last of ``maps`` from its named arrays.

    Raises :class:`ModelError` if an array is missing, superfluous, of another type or
    shape than the configuration says, or if an accumulator could leave int32.
    """
    left = dict(tensors)
    own = maps[-1]

    def take(name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        if name not in left:
            raise ModelError(f"prior of map {len(maps) - 1}: tensor {name!r} is missing")
        array = left.pop(name)
        _expect(f"prior of map {len(maps) - 1}: {name}", array, dtype, shape)
        return np.ascontiguousarray(array)

    def conv(name: str, inputs: int, outputs: int, offsets: list[tuple[int, int]]) -> Conv:
        loaded = Conv(
            take(f"{name}.weight", np.int8, (outputs, len(offsets), inputs)),
            take(f"{name}.bias", np.int32, (outputs,)),
            take(f"{name}.shift", np.uint8, (outputs,)),
            tuple(offsets),
        )
        if loaded.shift.max(initial=0) > 30:
            raise ModelError(f"{name}: shift must be at most 30, got {loaded.shift.max()}")
        if loaded.largest_sum() >= 2**31:
            raise ModelError(f"{name}: an accumulator can reach {loaded.largest_sum()}, int32 ends at {2**31 - 1}")
        return loaded

    def gates(name: str, count: int, kernel: int) -> tuple[GateBlock, ...]:
        causal = fmt.causal_offsets(kernel, center=True)
        return tuple(GateBlock(conv(f"{name}.{i}.gate", hidden, 2 * config.residual, causal),
                               conv(f"{name}.{i}.out", config.residual, hidden, POINT)) for i in range(count))

    hidden = config.hidden
    factors = tuple(m.stride // own.stride for m in maps[:-1])
    window = fmt.window_offsets(3)
    conditioned = len(maps) > 1
    prior = IntegerPrior(
        config=config, tables=tables, codes=own.codes, factors=factors,
        embedding=take("embedding", np.int8, (own.codes, config.embedding)),
        first=conv("first", config.embedding, hidden, fmt.causal_offsets(config.first_kernel, center=False)),
        classes=take("class", np.int16, (classes + 1, hidden)),
        levels=take("level", np.int16, (levels, hidden)),
        coarser=tuple(take(f"coarser.{j}", np.int8, (m.codes, f * f * config.condition_embedding))
                      for j, (m, f) in enumerate(zip(maps[:-1], factors))),
        condition_in=conv("condition.in", len(factors) * config.condition_embedding, hidden, window) if conditioned else None,
        condition=tuple(GateBlock(conv(f"condition.{i}.conv", hidden, config.condition_residual, window),
                                  conv(f"condition.{i}.out", config.condition_residual, hidden, POINT))
                        for i in range(config.condition_blocks if conditioned else 0)),
        blocks=gates("block", config.layers, config.kernel),
        attention={i: AttentionBlock(conv(f"attention.{i}.qkv", hidden, 3 * hidden, POINT),
                                     conv(f"attention.{i}.out", hidden, hidden, POINT))
                   for i in range(config.layers) if config.attends_after(i)},
        output=gates("output", config.output_layers, 1),
        logits=conv("logits", hidden, own.codes, POINT),
    )
    if left:
        raise ModelError(f"prior of map {len(maps) - 1}: unexpected tensors {', '.join(sorted(left))}")
    return prior


POINT = [(0, 0)]


def _expect(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ModelError(f"{name}: expected {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}")
