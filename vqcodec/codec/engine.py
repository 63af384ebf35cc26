"""A model on a device: what coding and sampling run on."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from vqcodec import ops
from vqcodec.model import file
from vqcodec.model.file import Model

if TYPE_CHECKING:
    from vqcodec.networks.autoencoder import Autoencoder


class Engine:
    """``model`` on ``device``, see :class:`vqcodec.Codec`.

    backend: who computes the prior, as :mod:`vqcodec.ops.prior` calls it.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, device: str = "cpu") -> None:
        self.model = model if isinstance(model, Model) else file.load(model)
        self.backend: str | None = None
        if device != "cpu":
            number = ops.cuda.number_of(device)
            ops.cuda.device(number)  # BackendError if there is none
            if ops.cuda.trusted(number):
                self.backend = f"cuda:{number}"

    @functools.cached_property
    def place(self) -> str:
        """Where the autoencoder runs, as torch calls it."""
        if self.backend is None or torch().cuda.is_available():
            return self.backend or "cpu"
        warnings.warn("this PyTorch has no CUDA: the GPU computes the prior, the CPU the autoencoder",
                      RuntimeWarning, stacklevel=5)
        return "cpu"

    @property
    def autoencoder(self) -> Autoencoder:
        torch()
        return self.model.autoencoder_on(self.place)


_threads: int | None = None


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core and, once it is loaded, in torch."""
    global _threads
    ops.cpu.set_num_threads(n)
    _threads = n
    if "torch" in sys.modules:
        torch()


def torch() -> ModuleType:
    """torch, imported when pixels are first needed."""
    import torch

    if _threads is not None and torch.get_num_threads() != _threads:
        torch.set_num_threads(_threads)
    return torch


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """torch reports a failed allocation as a RuntimeError; callers expect MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "CUDA out of memory" in str(error):
            raise MemoryError("not enough memory for a picture of this size") from error
        raise
