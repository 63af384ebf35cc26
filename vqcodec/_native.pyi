"""The compiled core (csrc/bindings). tests/test_types.py holds this file against it."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Maps: TypeAlias = Sequence[NDArray[np.int32]]
_Shapes: TypeAlias = Sequence[tuple[int, int]]
# (class, level, given maps, shapes, a stream for each shape)
_DecodeJob: TypeAlias = tuple[int, int, _Maps, _Shapes, Sequence[bytes]]
_SampleJob: TypeAlias = tuple[int, int, _Maps, _Shapes, Sequence[NDArray[np.uint32]]]
_ChooseJob: TypeAlias = tuple[int, int, _Maps, _Shapes, Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]]
# The maps of every job, and its first corrupt map or -1.
_Outcome: TypeAlias = tuple[list[list[NDArray[np.int32]]], list[int]]

cuda: ModuleType  # only where nvcc was found

class PriorNetwork: ...
class IntegerNetwork: ...
class Autoencoder: ...

def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def cpu_variants() -> list[str]: ...
def select_variant(requested: str = "") -> str: ...
def nearest_codebook(
    z: NDArray[np.float32], codebook: NDArray[np.float32], bias: NDArray[np.float32] | None = None, variant: str = ""
) -> NDArray[np.int64]: ...
def codebook_statistics(
    z: NDArray[np.float32], indices: NDArray[np.int64], codes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def load_prior(**kwargs: Any) -> PriorNetwork: ...
def prior_frequencies(
    prior: PriorNetwork, codes: NDArray[np.int32], coarser: _Maps, class_id: int, level: int, variant: str = ""
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def wavefront_decode(priors: Sequence[PriorNetwork], jobs: Sequence[_DecodeJob], variant: str = "") -> _Outcome: ...
def wavefront_sample(
    priors: Sequence[PriorNetwork],
    jobs: Sequence[_SampleJob],
    sharpness: int = 256,
    nucleus: int = 65536,
    variant: str = "",
) -> _Outcome: ...
def wavefront_choose(priors: Sequence[PriorNetwork], jobs: Sequence[_ChooseJob], variant: str = "") -> _Outcome: ...
def load_network(
    inputs: Sequence[tuple[int, int]], layers: Sequence[tuple[Any, ...]], outputs: Sequence[int]
) -> IntegerNetwork: ...
def run_network(
    network: IntegerNetwork, planes: Sequence[NDArray[np.int16]], variant: str = ""
) -> list[NDArray[np.int16]]: ...
def load_autoencoder(
    maps: Sequence[tuple[int, int | None, NDArray[np.int16]]],
    analysis: IntegerNetwork,
    latents: Sequence[IntegerNetwork],
    synthesis: IntegerNetwork,
) -> Autoencoder: ...
def autoencoder_pixels(
    autoencoder: Autoencoder, maps: _Maps, window: tuple[int, int], box: tuple[int, int, int, int], variant: str = ""
) -> NDArray[np.uint8]: ...
def autoencoder_features(
    autoencoder: Autoencoder, pixels: NDArray[np.uint8], variant: str = ""
) -> list[NDArray[np.int16]]: ...
def autoencoder_latents(
    autoencoder: Autoencoder, stride: int, features: NDArray[np.int16], maps: _Maps, variant: str = ""
) -> NDArray[np.int16]: ...
def nearest_codes(
    z: NDArray[np.int16],
    codebook: NDArray[np.int16],
    lengths: NDArray[np.uint8],
    exponents: NDArray[np.int32],
    base: int,
    variant: str = "",
) -> NDArray[np.int32]: ...
def code_candidates(
    z: NDArray[np.int16],
    codebook: NDArray[np.int16],
    lengths: NDArray[np.uint8],
    exponents: NDArray[np.int32],
    base: int,
    count: int,
    variant: str = "",
) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...
