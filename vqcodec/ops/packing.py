"""Priors and jobs in the form required by the compiled core."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vqcodec.model.prior import Conv, IntegerPrior
from vqcodec.ops.jobs import Job


class Core(Protocol):
    """Where priors are packed: on the CPU or a GPU."""

    def load_prior(self, **tensors: Any) -> Any:
        """A packed prior; csrc/bindings lists the tensors."""


_packed: dict[tuple[int, Core], Any] = {}


def packed(prior: IntegerPrior, core: Core) -> Any:
    """The prior packed for a core: once, and kept for the lifetime of the prior."""
    key = id(prior), core
    if key not in _packed:
        network = core.load_prior(**tensors_of(prior))
        weakref.finalize(prior, _packed.pop, key, None)
        _packed[key] = network
    return _packed[key]


def tensors_of(prior: IntegerPrior) -> dict[str, Any]:
    """The arrays of a prior in the form that a processor's `load_prior` takes."""

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


def tuples(jobs: Sequence[Job]) -> list[Any]:
    """(class, level, given maps, shapes, streams) of every job."""
    return [(*job.condition, job.given, job.shapes, job.streams) for job in jobs]
