"""Random small priors for tests: every part switched on and off, weights large enough to matter."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from training.networks.prior import Prior
from vqcodec.model.config import CodeMap, PriorConfig
from vqcodec.model.prior import IntegerPrior, Tables, load_prior

CLASSES, LEVELS = 3, 2


@st.composite
def prior_cases(draw: st.DrawFn) -> tuple[PriorConfig, tuple[CodeMap, ...], tuple[int, int], int]:
    """A configuration, its maps, a map shape (in codes) and a seed."""
    heads = draw(st.sampled_from([0, 1, 2]))
    layers = draw(st.integers(1, 3))
    config = PriorConfig(
        hidden=4 * draw(st.integers(1, 5)) * max(heads, 1),
        residual=draw(st.integers(1, 9)),
        layers=layers,
        kernel=draw(st.sampled_from([1, 3, 5])),
        first_kernel=draw(st.sampled_from([3, 5])),
        embedding=draw(st.integers(1, 9)),
        attention_layers=draw(st.integers(1, layers)) if heads else 0,
        heads=heads,
        output_layers=draw(st.integers(0, 2)),
        condition_embedding=draw(st.integers(1, 5)),
        condition_blocks=draw(st.integers(0, 2)),
        condition_residual=draw(st.integers(1, 9)),
    )
    strides = sorted(draw(st.lists(st.sampled_from([2, 4, 8]), max_size=3)), reverse=True) + [2]
    maps = tuple(CodeMap(stride=s, dim=1, codes=draw(st.integers(3, 40))) for s in strides)
    block = strides[0] // 2  # shapes are multiples of the coarsest map
    shape = (block * draw(st.integers(1, 6 // block + 1)), block * draw(st.integers(1, 8 // block + 1)))
    return config, maps, shape, draw(st.integers(0, 2**31))


def random_prior(config: PriorConfig, maps: tuple[CodeMap, ...], seed: int, *, classes: int = CLASSES,
                 levels: int = LEVELS) -> Prior:
    """A float prior whose activations use their whole range and now and then saturate."""
    torch.manual_seed(seed)
    prior = Prior(config, maps, classes, levels).eval()
    prior.quantized = True
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif "embedding" in name or "coarser" in name:
                parameter.normal_(std=2.0)
            else:
                parameter.normal_(std=3.0 * parameter[0].numel() ** -0.5)
    return prior


def integer_prior(prior: Prior, config: PriorConfig, maps: tuple[CodeMap, ...]) -> IntegerPrior:
    return load_prior(config, maps, CLASSES, LEVELS, prior.export(), Tables.standard())


def random_maps(maps: tuple[CodeMap, ...], shape: tuple[int, int], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    own = maps[-1].stride
    return [rng.integers(0, m.codes, (shape[0] * own // m.stride, shape[1] * own // m.stride)).astype(np.int32) for m in maps]
