"""The CUDA kernels for tests: on the GPU with `pytest --gpu`, else compiled for the CPU.

Without a GPU the very sources of csrc/cuda are built by the host compiler (tests/cuda_simulator) into
`_cuda_simulator`, a module with the functions of `vqcodec._native.cuda`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vqcodec import ops
from vqcodec.ops import backend, cpu, cuda

ROOT = Path(__file__).parents[2]
#: Such as "address,undefined", see the Makefile. The sanitizers' libraries must be preloaded.
SANITIZE = os.environ.get("VQCODEC_SANITIZE", "")
BUILD = ROOT / "build" / ("cuda_simulator_sanitize" if SANITIZE else "cuda_simulator")


def build() -> ModuleType:
    """The kernels compiled for the CPU; what is up to date is not built again."""
    import pybind11

    generator = [] if (BUILD / "CMakeCache.txt").exists() else ["-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(BUILD),
        *generator,
        "-DVQCODEC_CUDA=off",
        "-DVQCODEC_CUDA_SIMULATOR=ON",
        f"-DVQCODEC_SANITIZE={SANITIZE}",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={BUILD}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # one of several test processes builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            configure,
            ["cmake", "--build", str(BUILD), "--parallel", "--target", "_cuda_simulator", "cuda_simulator_tests"],
        ):
            # What is preloaded for this process is not for compilers.
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""})
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    (path,) = BUILD.glob("_cuda_simulator.*.so")
    spec = importlib.util.spec_from_file_location("_cuda_simulator", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use(core: ModuleType, patch) -> None:
    """Make `core` what `vqcodec.ops.cuda` runs on, by pytest's monkeypatch."""
    forget()
    patch.setattr(cuda, "_core", lambda: core)


def forget() -> None:
    """What `vqcodec.ops.cuda` remembers of devices."""
    cuda.device.cache_clear()
    backend.trusted.cache_clear()


def on_gpu() -> bool:
    return cuda._core() is getattr(cpu._core(), "cuda", None)


def nearest_codebook(z, codebook, bias=None, *, return_statistics: bool = False):
    """`vqcodec.ops.nearest_codebook` by the kernels for GPUs; arrays or tensors in host memory."""
    if not isinstance(z, np.ndarray):
        found = nearest_codebook(
            *(None if a is None else a.detach().numpy() for a in (z, codebook, bias)),
            return_statistics=return_statistics,
        )
        import torch

        if not return_statistics:
            return torch.from_numpy(found)
        return torch.from_numpy(found[0]), ops.CodebookStatistics(*map(torch.from_numpy, found[1]))
    if on_gpu():
        tensors = (None if a is None else _on_gpu(a) for a in (z, codebook, bias))
        found = ops.nearest_codebook(*tensors, return_statistics=return_statistics)
        if not return_statistics:
            return found.cpu().numpy()
        return found[0].cpu().numpy(), ops.CodebookStatistics(*(a.cpu().numpy() for a in found[1]))
    device = cuda.device(0)
    indices = np.full(len(z), -7)
    bias = None if bias is None else np.ascontiguousarray(bias)
    device.nearest_codebook(_matrix(z), _matrix(codebook), 0 if bias is None else bias.ctypes.data, indices.ctypes.data)
    if not return_statistics:
        return indices
    return indices, codebook_statistics(z, indices, len(codebook))


def codebook_statistics(z: np.ndarray, indices: np.ndarray, codes: int) -> ops.CodebookStatistics:
    """`vqcodec.ops.codebook_statistics` by the kernels for GPUs."""
    if on_gpu():
        import torch

        found = ops.codebook_statistics(_on_gpu(z), torch.from_numpy(indices).cuda(), codes)
        return ops.CodebookStatistics(*(a.cpu().numpy() for a in found))
    counts, sums = np.full(codes, np.nan, np.float32), np.full((codes, z.shape[1]), np.nan, np.float32)
    cuda.device(0).codebook_statistics(_matrix(z), indices.ctypes.data, codes, counts.ctypes.data, sums.ctypes.data)
    return ops.CodebookStatistics(counts, sums)


def _matrix(x: np.ndarray) -> cuda.Matrix:
    return x.ctypes.data, *x.shape, *(stride // 4 for stride in x.strides)


def _on_gpu(x: np.ndarray) -> Any:
    """A tensor on the GPU with the strides of x, as far as torch has them (not negative)."""
    import torch

    if x.ndim == 2 and 0 < x.strides[0] < x.strides[1]:
        return torch.from_numpy(np.ascontiguousarray(x.T)).cuda().T
    return torch.from_numpy(np.ascontiguousarray(x)).cuda()
