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
_ChooseJob: TypeAlias = tuple[int, int, _Maps, _Shapes, Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]]]
# The maps of every job, and its first corrupt map or -1.
_Outcome: TypeAlias = tuple[list[list[NDArray[np.int32]]], list[int]]

cuda: ModuleType  # only where nvcc was found

class PriorNetwork: ...

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
