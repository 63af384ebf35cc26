"""A model on a device: what coding and sampling run on."""

from __future__ import annotations

import os
from typing import Any

from vqcodec import ops
from vqcodec.codec.windows import Windows
from vqcodec.errors import InvalidArgument
from vqcodec.model import file
from vqcodec.model.file import Model


class Engine:
    """``model`` on ``device``, see :class:`vqcodec.Codec`.

    backend: who computes, as :mod:`vqcodec.ops.backend` calls it.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, device: Any = "cpu") -> None:
        if not (model is None or isinstance(model, (Model, str, os.PathLike))):
            raise InvalidArgument(f"model must be a file name, a loaded model or None, got {type(model).__name__}")
        self.model = model if isinstance(model, Model) else file.load(model)
        self.config = self.model.config
        self.backend: str | None = None
        device = "cpu" if device is None else str(device)  # also a torch.device
        if device.partition(":")[0] != "cpu":
            number = ops.cuda.number_of(device)
            ops.cuda.device(number)  # BackendError if there is none
            if ops.backend.trusted(number):
                self.backend = f"cuda:{number}"

    def windows(self, height: int, width: int) -> Windows:
        """The autoencoder for an image of this many pixels."""
        return Windows(self.model.autoencoder, height, width, backend=self.backend)


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core."""
    ops.cpu.set_num_threads(n)
