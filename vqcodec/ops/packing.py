"""Priors and jobs in the form required by the compiled core."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from vqcodec.model import integer_network as definition
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.prior import Conv, IntegerPrior
from vqcodec.ops.jobs import Job


class Core(Protocol):
    """Where priors are packed: the CPU, or a GPU."""

    def load_prior(self, **tensors: Any) -> Any:
        """A packed prior; csrc/bindings lists the tensors."""


Definition = TypeVar("Definition")

_packed: dict[tuple[int, object], Any] = {}


def packed(prior: IntegerPrior, core: Core) -> Any:
    """The prior packed for a core: once, and kept for the lifetime of the prior."""
    return kept(prior, core, lambda prior: core.load_prior(**tensors_of(prior)))


def kept(definition: Definition, core: object, load: Callable[[Definition], Any]) -> Any:
    """What ``load`` makes of a definition for a core: once, and kept for the lifetime of the definition."""
    key = id(definition), core
    if key not in _packed:
        made = load(definition)
        weakref.finalize(definition, _packed.pop, key, None)
        _packed[key] = made
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


# -- integer networks ----------------------------------------------------------------------


def network_of(network: definition.IntegerNetwork) -> tuple[Any, ...]:
    """The inputs, layers and outputs of a network as `load_network` takes them."""
    inputs = [(shape.channels, shape.stride) for shape in network.inputs]
    return inputs, [layer_tuple(layer) for layer in network.layers], list(network.outputs)


def maps_of(autoencoder: IntegerAutoencoder) -> list[tuple[int, int | None, np.ndarray]]:
    """Stride, the first channel that it refines, and codebook of every map, as `load_autoencoder` takes them."""
    parts = zip(autoencoder.config.maps, autoencoder.codebooks)
    return [(m.stride, m.refines, np.ascontiguousarray(book)) for m, book in parts]


def layer_tuple(layer: definition.Layer) -> tuple[Any, ...]:
    """A layer as the compiled core takes it (csrc/bindings/integer_network.cpp)."""
    match layer:
        case definition.Unshuffle(source, factor):
            return "unshuffle", source, factor
        case definition.Convolution(source, kernel, stride, upscale, activation):
            return "convolution", source, _kernel(kernel), stride, upscale, activation
        case definition.Residual(source, first, second, activation):
            return "residual", source, _kernel(first), _kernel(second), activation
        case definition.Concatenate(sources):
            return "concatenate", list(sources)
        case definition.Add(a, b):
            return "add", a, b
        case definition.Subtract(a, b):
            return "subtract", a, b


def _kernel(kernel: definition.Kernel) -> tuple[np.ndarray, ...]:
    arrays = kernel.weight, kernel.bias, kernel.shift, np.array(kernel.offsets, np.int32)
    return tuple(np.ascontiguousarray(array) for array in arrays)
