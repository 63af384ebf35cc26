"""Several processes, one training: what differs from one process, and nothing where there is one.

Started by `torchrun --nproc-per-node N -m training RECIPE ...`, every process (rank) takes its
share of each batch. Gradients are averaged by torch's DistributedDataParallel; the codebooks
sum their statistics over the ranks (vqcodec.networks.quantizer), so they stay equal to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def start(device: str) -> torch.device:
    """The device of this process; joins the others if torchrun started it."""
    if "RANK" in os.environ and not dist.is_initialized():
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return torch.device(device)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def share(batch: int) -> slice:
    """This rank's part of a batch of ``batch`` items."""
    if batch % world():
        raise SystemExit(f"a batch of {batch} cannot be shared equally by {world()} processes")
    part = batch // world()
    return slice(rank() * part, (rank() + 1) * part)


def wait() -> None:
    """Until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def alone(work: Callable[[], T]) -> T | None:
    """Do ``work`` on the first rank while the others wait."""
    result = work() if first() else None
    wait()
    return result


def mean(value: float) -> float:
    """The mean over all ranks."""
    if not dist.is_initialized():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / world()


def parallel(module: nn.Module, *, unused: bool = False) -> nn.Module:
    """``module`` with gradients averaged over the ranks, and its start taken from the first.

    ``unused``: some steps do not use all parameters.
    """
    if not dist.is_initialized():
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=unused)
