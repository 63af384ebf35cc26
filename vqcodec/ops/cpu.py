"""The only importer of the compiled core, `vqcodec._native`.

The core is loaded by the first call that needs it. Environment variables:

    VQCODEC_CPU           scalar | avx2 | avx512: the instruction set of the kernels
                          (default: the best that the CPU has), read at every call
    VQCODEC_NUM_THREADS   number of threads (default: the cores that the process may use),
                          read once, when the core is loaded
"""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument

if TYPE_CHECKING:
    from vqcodec import _native

__all__ = [
    "autoencoder_features",
    "autoencoder_latents",
    "autoencoder_pixels",
    "code_candidates",
    "codebook_statistics",
    "cpu_variants",
    "cuda_core",
    "get_num_threads",
    "load_autoencoder",
    "load_network",
    "load_prior",
    "nearest_codebook",
    "nearest_codes",
    "prior_frequencies",
    "run_network",
    "select_variant",
    "set_num_threads",
    "wavefront_choose",
    "wavefront_decode",
    "wavefront_sample",
]


@functools.cache
def _core() -> ModuleType:
    try:
        from vqcodec import _native
    except ImportError as error:
        raise BackendError(
            f"the compiled core vqcodec._native cannot be loaded ({error}); "
            "build it with `pip install .`, or with `make build` in a source checkout"
        ) from error
    threads = os.environ.get("VQCODEC_NUM_THREADS")
    if threads:
        try:
            _native.set_num_threads(int(threads))
        except ValueError as error:  # InvalidArgument is one
            raise InvalidArgument(
                f"VQCODEC_NUM_THREADS must be a number from 1 to 1024, got {threads!r}"
            ) from error
    return _native


class _Lazy:
    """Stands for the compiled core until it is asked for something."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_core(), name)


if not TYPE_CHECKING:
    _native = _Lazy()


def cuda_core() -> ModuleType:
    """The kernels for GPUs. Raises BackendError in a build without them."""
    core: ModuleType | None = getattr(_native, "cuda", None)
    if core is None:
        raise BackendError("this build of vqcodec has no CUDA kernels: it was compiled without nvcc")
    return core


def set_num_threads(n: int) -> None:
    """Set how many threads the compiled core uses, 1 to 1024. Results never depend on it."""
    _native.set_num_threads(n)


def get_num_threads() -> int:
    """How many threads the compiled core uses: by default the cores that the process may use."""
    return _native.get_num_threads()


def cpu_variants() -> list[str]:
    """The kernel variants that this CPU runs: "scalar" and perhaps "avx2" and "avx512"."""
    return _native.cpu_variants()


def select_variant(requested: str | None = None) -> str:
    """The variant that a kernel would use: the requested one, else VQCODEC_CPU, else the best.

    Raises InvalidArgument for an unknown name, BackendError if this CPU cannot run it.
    """
    return _native.select_variant(requested or "")


def nearest_codebook(
    z: np.ndarray,
    codebook: np.ndarray,
    bias: np.ndarray | None = None,
    variant: str | None = None,
) -> np.ndarray:
    """See `vqcodec.ops.nearest_codebook`."""
    return _native.nearest_codebook(z, codebook, bias, variant or "")


def codebook_statistics(
    z: np.ndarray, indices: np.ndarray, codes: int
) -> tuple[np.ndarray, np.ndarray]:
    """See `vqcodec.ops.codebook_statistics`."""
    return _native.codebook_statistics(z, indices, codes)


def load_prior(**tensors: Any) -> Any:
    """Check and pack a prior; csrc/bindings/prior.cpp lists the tensors."""
    return _native.load_prior(**tensors)


def prior_frequencies(
    prior: Any,
    codes: np.ndarray,
    coarser: list[np.ndarray],
    class_id: int,
    level: int,
    variant: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """See `vqcodec.ops.prior_frequencies`; ``prior`` comes from `load_prior`."""
    return _native.prior_frequencies(prior, codes, coarser, class_id, level, variant)


def wavefront_decode(
    priors: list[Any], jobs: list[Any], variant: str = ""
) -> tuple[list[list[np.ndarray]], list[int]]:
    """The maps of every job, and for each job its first corrupt map or -1.

    A job is (class, level, given maps, shapes, streams); see `vqcodec.ops.wavefront_decode`.
    """
    return _native.wavefront_decode(priors, jobs, variant)


def wavefront_sample(
    priors: list[Any], jobs: list[Any], sharpness: int = 256, nucleus: int = 65536, variant: str = ""
) -> tuple[list[list[np.ndarray]], list[int]]:
    """As `wavefront_decode`, with words in place of streams."""
    return _native.wavefront_sample(priors, jobs, sharpness, nucleus, variant)


def wavefront_choose(priors: list[Any], jobs: list[Any], variant: str = "") -> list[list[np.ndarray]]:
    """As `wavefront_decode`, with (codes, costs) in place of streams; see `vqcodec.ops.wavefront_choose`."""
    return _native.wavefront_choose(priors, jobs, variant)[0]


def load_network(inputs: list[tuple[int, int]], layers: list[tuple[Any, ...]], outputs: list[int]) -> Any:
    """Check and pack an integer network; csrc/bindings/integer_network.cpp lists the layers."""
    return _native.load_network(inputs, layers, outputs)


def run_network(network: Any, planes: list[np.ndarray], variant: str = "") -> list[np.ndarray]:
    """See `vqcodec.ops.run_network`; ``network`` comes from `load_network`."""
    return _native.run_network(network, planes, variant)


def load_autoencoder(maps: list[tuple[int, bool, np.ndarray]], analysis: Any, latents: list[Any], synthesis: Any) -> Any:
    """Put codebooks and networks together: (stride, residual, codebook) of each map; a latent network of each stride."""
    return _native.load_autoencoder(maps, analysis, latents, synthesis)


def autoencoder_pixels(autoencoder: Any, maps: list[np.ndarray], window: tuple[int, int], box: tuple[int, int, int, int],
                       variant: str = "") -> np.ndarray:
    """See `vqcodec.ops.autoencoder_pixels`."""
    return _native.autoencoder_pixels(autoencoder, maps, window, box, variant)


def autoencoder_features(autoencoder: Any, pixels: np.ndarray, variant: str = "") -> list[np.ndarray]:
    """See `vqcodec.ops.autoencoder_features`."""
    return _native.autoencoder_features(autoencoder, pixels, variant)


def autoencoder_latents(autoencoder: Any, stride: int, features: np.ndarray, maps: list[np.ndarray],
                        variant: str = "") -> np.ndarray:
    """See `vqcodec.ops.autoencoder_latents`; ``stride`` is a number, coarse to fine."""
    return _native.autoencoder_latents(autoencoder, stride, features, maps, variant)


def nearest_codes(z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int,
                  variant: str = "") -> np.ndarray:
    """See `vqcodec.ops.nearest_codes`."""
    return _native.nearest_codes(z, codebook, lengths, exponents, base, variant)


def code_candidates(z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int,
                    variant: str = "") -> tuple[np.ndarray, np.ndarray]:
    """See `vqcodec.ops.code_candidates`."""
    return _native.code_candidates(z, codebook, lengths, exponents, base, count, variant)
