"""Muon: momentum whose matrix is made orthogonal before each step (Jordan et al. 2024).

On the priors of the default model it reaches in 1,100 steps what Adam does not reach in several times
as many: 28.8 % fewer bits than zero-order instead of 24.1 % (map 5, validation crops, equal time).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """For weights of convolutions, as matrices of outputs x (inputs * taps); other parameters want Adam.

    Steps are scaled to the root mean square that Adam's have, so that learning rates carry over
    (Liu et al. 2025, equation 4). ``torch.optim.Muon`` takes matrices only.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            keep = group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                average = state["momentum"].lerp_(weight.grad, 1 - keep)
                update = weight.grad.lerp(average, keep).flatten(1)  # Nesterov
                scale = 0.2 * max(update.shape) ** 0.5
                weight.add_(orthogonal(update).reshape(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About U V' of the singular value decomposition U S V', by a quintic Newton-Schulz iteration.

    Singular values end between 0.7 and 1.2, which serves as well as 1.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is matrix else x.T
