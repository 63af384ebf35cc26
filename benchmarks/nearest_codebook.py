"""How fast is nearest_codebook? Against PyTorch (addmm + argmin) and faiss.IndexFlatL2.

    python -m benchmarks.nearest_codebook [--threads 2] [--rows 65536] [--codes 512]
    VQCODEC_CPU=avx2 python -m benchmarks.nearest_codebook       # as on a CPU with AVX2 only:
                                                                 # holds for the peers, too

Before any timing the indices are compared with the NumPy definition (all equal) and the peers'
(equal but for near-ties, which they may round otherwise). Contenders take turns, so that a slow
moment of the machine hits all of them; the table shows medians.

    memory  growth of the peak resident size over one call, the result left out
    peak    share of the FMA rate that this machine reaches, for the instruction set in use: N K D
            multiply-accumulates per call, over the best rate that benchmarks/fma_peak.cpp measures
            between the rows of the table

faiss is optional: `pip install faiss-cpu`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if os.environ.get("VQCODEC_CPU") == "avx2":  # read by the peers when they are imported
    os.environ.setdefault("FAISS_SIMD_LEVEL", "AVX2")
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import torch

from benchmarks.rows import Row, dump
from vqcodec.ops import cpu, nearest_codebook
from vqcodec.ops.reference import quantizer as reference_quantizer

try:
    import faiss
except ImportError:
    faiss = None

NAMES = ["vqcodec", "torch", "faiss"]
FLAGS = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx2", "-mfma", "-mavx512f"]}


class FmaPeak:
    """Measures 10^9 multiply-accumulates per second of all threads together, as often as it is called."""

    def __init__(self, variant: str, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._command = [f"{self._folder.name}/fma_peak", str(threads)]
        source = Path(__file__).with_name("fma_peak.cpp")
        compile_it = ["c++", "-O3", "-std=c++17", "-pthread", *FLAGS[variant], str(source), "-o", self._command[0]]
        subprocess.run(compile_it, check=True)

    def __call__(self) -> float:
        return float(subprocess.run(self._command, capture_output=True, check=True).stdout)


def peak_growth(call: Callable[[], np.ndarray]) -> float:
    """Growth of the peak resident size during a call beyond its result, in MB (Linux)."""

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    ctypes.CDLL(None).malloc_trim(0)  # or the call would reuse what others have freed
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    result = call()
    return (status("VmHWM") - before) / 1024 - result.nbytes / 2**20


def contenders(z: np.ndarray, codebook: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    tensor, codes = torch.from_numpy(z), torch.from_numpy(codebook)

    def with_torch() -> np.ndarray:
        distances = torch.addmm((codes * codes).sum(1), tensor, codes.T, alpha=-2)
        return distances.argmin(1).numpy()

    found = {"vqcodec": lambda: nearest_codebook(z, codebook), "torch": with_torch}
    if faiss is not None:
        index = faiss.IndexFlatL2(z.shape[1])
        index.add(codebook)
        found["faiss"] = lambda: index.search(z, 1)[1][:, 0]
    return found


def check(calls: dict[str, Callable[[], np.ndarray]], z: np.ndarray, codebook: np.ndarray) -> None:
    expected = np.concatenate(
        [reference_quantizer.nearest_codebook(part, codebook) for part in np.array_split(z[:4096], 8)]
    )
    results = {name: call() for name, call in calls.items()}
    assert np.array_equal(results["vqcodec"][: len(expected)], expected)
    for name, indices in results.items():
        different = np.mean(indices != results["vqcodec"])
        assert different < 1e-3, f"{name} finds other codes for {different:.2%} of the rows"


def time_call(call: Callable[[], object], warm_up: float = 0.025) -> float:
    """Seconds of one call, after others that wake its threads and let those of its rivals sleep."""
    end = time.perf_counter() + warm_up
    while (start := time.perf_counter()) < end:
        call()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=cpu.get_num_threads())
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--dims", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path, help="write rows for python -m benchmarks")
    options = parser.parse_args()

    cpu.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    if faiss is not None:
        faiss.omp_set_num_threads(options.threads)
    variant = cpu.select_variant()
    measure_peak = FmaPeak(variant, options.threads) if variant in FLAGS else lambda: float("nan")

    peak = measure_peak()
    results, rows = [], []
    for dims in options.dims:
        random = np.random.default_rng(dims)
        z = random.standard_normal((options.rows, dims), dtype=np.float32)
        codebook = random.standard_normal((options.codes, dims), dtype=np.float32)
        calls = contenders(z, codebook)
        check(calls, z, codebook)
        memory = {name: peak_growth(call) for name, call in calls.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, call in calls.items():
                times[name].append(time_call(call))
        results.append((dims, {name: statistics.median(taken) for name, taken in times.items()}, memory))
        job = f"nearest of {options.codes} codes, {options.rows} vectors of {dims} ({variant}, {options.threads} threads)"
        rows += [Row.timed(job, name, times["vqcodec"], times.get(name), "not installed") for name in NAMES[1:]]
        peak = max(peak, measure_peak())
    dump(options.json, rows)

    print(
        f"N = {options.rows}, K = {options.codes}, {options.threads} threads, {variant}, at most {peak:.0f} GMAC/s "
        f"({platform.machine()}, torch {torch.__version__}, faiss {faiss.__version__ if faiss else 'absent'}); "
        f"milliseconds, medians of {options.rounds}\n"
    )
    print("|  D | vqcodec |  torch |  faiss | best peer / vqcodec | GMAC/s | peak | memory, MB: ours, torch, faiss |")
    print("|---:|--------:|-------:|-------:|--------------------:|-------:|-----:|-------------------------------:|")
    for dims, seconds, memory in results:
        rate = options.rows * options.codes * dims / seconds["vqcodec"] / 1e9
        best_peer = min(time for name, time in seconds.items() if name != "vqcodec")
        ours, *peers = (seconds.get(name, float("nan")) * 1e3 for name in NAMES)
        megabytes = ", ".join(f"{memory.get(name, float('nan')):.1f}" for name in NAMES)
        print(
            f"| {dims:2} | {ours:7.2f} | {peers[0]:6.1f} | {peers[1]:6.1f} "
            f"| {best_peer / seconds['vqcodec']:18.2f}x | {rate:6.1f} | {rate / peak:4.0%} | {megabytes:>30} |"
        )


if __name__ == "__main__":
    main()
