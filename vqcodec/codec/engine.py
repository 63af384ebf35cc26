"""A model on a device, as used by coding and sampling."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vqcodec import ops
from vqcodec.model import file
from vqcodec.model.file import Model
from vqcodec.model.rate import Rate
from vqcodec.tiling import Box


class Autoencoder(Protocol):
    """The networks between pixels and code maps, applied to one image: NumPy in, NumPy out.

    side: of the windows they work in, in pixels.
    """

    side: int

    def latents(self, pixels: np.ndarray, stride: int, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
        """The latents that the maps of a stride quantise, in a box: D x h x w, float32.

        pixels: H x W x 3 uint8. maps: the coarser maps of the whole image. box: of whole codes of the coarsest stride,
        or it ends with the image.
        """

    def nearest(self, number: int, vectors: np.ndarray, rate: Rate | None) -> np.ndarray:
        """The code of map ``number`` for each vector (N x D), by error and, with a rate, by how common the code is: N, int32."""

    def candidates(
        self, number: int, vectors: np.ndarray, rate: Rate, count: int, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``count`` codes of map ``number`` for each vector (N x D), with errors weighted by ``weights`` (N), and their costs.

        Returns codes (int32) and costs in bits excluding those of the prior (float32), N x count each.
        """

    def code_vectors(self, number: int, codes: np.ndarray) -> np.ndarray:
        """The vectors of codes (N) of map ``number``: N x D, float32."""

    def around(self, box: Box) -> Box:
        """The box of all pixels whose codes affect the pixels of a box."""

    def pixels(self, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
        """The image in a box, h x w x 3 uint8, from the code maps of the whole image; fewer maps give a coarser image."""


class Engine:
    """``model`` on ``device``, see :class:`vqcodec.Codec`.

    backend: name of the backend for the prior, see :mod:`vqcodec.ops.backend`.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, device: str = "cpu") -> None:
        self.model = model if isinstance(model, Model) else file.load(model)
        self.config = self.model.config
        self.backend: str | None = None
        if device != "cpu":
            number = ops.cuda.number_of(device)
            ops.cuda.device(number)  # BackendError if there is none
            if ops.backend.trusted(number):
                self.backend = f"cuda:{number}"

    def autoencoder(self, height: int, width: int) -> Autoencoder:
        """The autoencoder for an image of this many pixels. PyTorch is imported here and nowhere else in the codec."""
        from vqcodec.networks import loading
        from vqcodec.networks.windows import Windows

        loading.use_threads(_threads)
        return Windows(loading.autoencoder(self.model, self._place), height, width)

    @functools.cached_property
    def _place(self) -> str:
        """torch's name for the device of the autoencoder."""
        from vqcodec.networks import loading

        if self.backend is None or loading.has_cuda():
            return self.backend or "cpu"
        warnings.warn(
            "this PyTorch has no CUDA: the GPU computes the prior, the CPU the autoencoder",
            RuntimeWarning,
            stacklevel=5,
        )
        return "cpu"


_threads: int | None = None


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core and, once it is loaded, in torch."""
    global _threads
    ops.cpu.set_num_threads(n)
    _threads = n
    if "torch" in sys.modules:
        from vqcodec.networks import loading

        loading.use_threads(n)
