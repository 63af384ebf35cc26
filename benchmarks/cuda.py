"""How fast are the kernels on a GPU? Compared with PyTorch and with the usual loops.

    python -m benchmarks.cuda [--device 0] [--rounds 15] [--size 768x512] [--batch 1 16 128]

    nearest_codebook   against torch.cdist + argmin and torch.addmm + argmin, which write and read
                       the N x K matrix of distances (also with TF32 allowed, which may find
                       codes that are not quite the nearest)
    decoding           all maps of images, one launch, against the CPU of the same machine
    autoencoder        pixels and features, against the CPU of the same machine
    sampling           against the naive PyTorch loop on the same GPU: the whole float network on the
                       whole map for every position (timed on some positions, extrapolated)

Indices, maps and samples are compared with the CPU's before anything is timed. Times are medians of
wall-clock times between two synchronisations of the device, including transfers of streams and maps.
The bound of each row is derived from the device's own figures (multiprocessors, clock, memory
bandwidth) and printed with the share reached.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.autoencoder import random_autoencoder
from benchmarks.decode import Ours, map_shapes, random_priors, random_words
from benchmarks.sampling import Naive
from vqcodec import ops
from vqcodec.model import config as configs
from vqcodec.ops import backend, cuda

#: Per multiprocessor and clock: float32 fused multiply-adds, int8 multiply-adds of `mma`.
FMA = {(7, 5): 64, (8, 0): 64}  # others: 128
INT8 = {(7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096, (10, 0): 4096}  # others: 1024


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Median wall-clock time, after warming up."""
    taken = []
    for i in range(rounds + 3):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if i >= 3:
            taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken)


class Peaks:
    """The device's theoretical peak rates, per second."""

    def __init__(self, device: int) -> None:
        p = torch.cuda.get_device_properties(device)
        key, clock = (p.major, p.minor), 1e3 * getattr(p, "clock_rate", 0)
        self.fma = p.multi_processor_count * clock * FMA.get(key, 128)
        self.int8 = p.multi_processor_count * clock * INT8.get(key, 1024)
        self.one_multiprocessor = self.int8 / p.multi_processor_count
        # Double data rate: two transfers per clock.
        self.bytes = 2 * 1e3 * getattr(p, "memory_clock_rate", 0) * getattr(p, "memory_bus_width", 0) / 8


def nearest_codebook(rows: int, codes: int, rounds: int, peaks: Peaks) -> None:
    print(f"\n## nearest_codebook, N = {rows}, K = {codes}, milliseconds\n")
    print(
        "| D | vqcodec | addmm + argmin | the same, TF32 | cdist + argmin | best exact peer / vqcodec | bound: FMA | bytes | reached |"
    )
    print(
        "|--:|--------:|---------------:|---------------:|---------------:|--------------------------:|-----------:|------:|--------:|"
    )
    for dims in (4, 16, 64, 256):
        generator = torch.Generator().manual_seed(dims)
        z, codebook = torch.randn(rows, dims, generator=generator), torch.randn(codes, dims, generator=generator)
        expected = ops.nearest_codebook(z, codebook)
        z, codebook = z.cuda(), codebook.cuda()
        assert torch.equal(ops.nearest_codebook(z, codebook).cpu(), expected)

        def addmm() -> torch.Tensor:
            return torch.addmm((codebook * codebook).sum(1), z, codebook.T, alpha=-2).argmin(1)

        times = {}
        for name, call in {
            "ours": lambda: ops.nearest_codebook(z, codebook),
            "addmm": addmm,
            "cdist": lambda: torch.cdist(z, codebook).argmin(1),
        }.items():
            times[name] = milliseconds(call, rounds)
        torch.backends.cuda.matmul.allow_tf32 = True
        times["tf32"] = milliseconds(addmm, rounds)
        torch.backends.cuda.matmul.allow_tf32 = False
        fma = 1e3 * rows * codes * dims / peaks.fma if peaks.fma else float("nan")
        read = 1e3 * (z.nbytes + 8 * rows) / peaks.bytes if peaks.bytes else float("nan")
        best = min(times["addmm"], times["cdist"])
        print(
            f"| {dims} | {times['ours']:.3f} | {times['addmm']:.3f} | {times['tf32']:.3f} | {times['cdist']:.3f} "
            f"| {best / times['ours']:.2f}x | {fma:.3f} | {read:.3f} | {max(fma, read) / times['ours']:.0%} |"
        )


def decoding(priors: list, size: tuple[int, int], batches: list[int], rounds: int, device: str, peaks: Peaks) -> None:
    config = configs.default()
    ours = Ours(priors, map_shapes(config, size[1], size[0]))
    print(f"\n## Decoding {size[0]} x {size[1]}, {len(priors)} maps, milliseconds per image\n")
    print("| images at once | GPU | CPU | CPU / GPU | int8 multiply-adds | of the peak |")
    print("|-----------------:|----:|----:|----------:|-------------------:|------------:|")
    for batch in batches:
        jobs = [ops.DecodeJob(ours.shapes, ours.streams, (1, 0))] * batch
        for maps in ops.wavefront_decode_batch(priors, jobs, backend=device):
            assert all(np.array_equal(a, b) for a, b in zip(maps, ours.codes, strict=True))
        gpu = milliseconds(lambda: ops.wavefront_decode_batch(priors, jobs, backend=device), rounds) / batch
        cpu = milliseconds(lambda: ops.wavefront_decode_batch(priors, jobs[:16]), 3) / min(batch, 16)
        # An image alone keeps one multiprocessor per map busy.
        peak = min(peaks.int8, peaks.one_multiprocessor * len(priors) * batch)
        share = ours.macs() / (gpu / 1e3) / peak if peak else float("nan")
        print(f"| {batch} | {gpu:.2f} | {cpu:.1f} | {cpu / gpu:.1f}x | {ours.macs() / 1e9:.1f} G | {share:.1%} |")


def autoencoder(size: tuple[int, int], rounds: int, device: str, peaks: Peaks) -> None:
    width, height = size
    model = random_autoencoder(configs.preset("default").autoencoder)
    rng = np.random.default_rng(2)
    maps = [
        rng.integers(0, m.codes, (height // m.stride, width // m.stride)).astype(np.int32) for m in model.config.maps
    ]
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    print(f"\n## Autoencoder, {width} x {height}, milliseconds\n")
    print("| | GPU | CPU | CPU / GPU | int8 multiply-adds | of the peak |\n|---|----:|----:|----------:|---:|---:|")
    for name, network, call in (
        ("pixels", model.synthesis, lambda b: [ops.autoencoder_pixels(model, maps, height, width, backend=b)]),
        ("features", model.analysis, lambda b: ops.autoencoder_features(model, image, backend=b)),
    ):
        assert all(np.array_equal(x, y) for x, y in zip(call(device), call("native"), strict=True))
        gpu, cpu = milliseconds(lambda: call(device), rounds), milliseconds(lambda: call("native"), 3)
        products = 2 * network.macs() * height * width  # each with the two bytes of a feature
        share = products / (gpu / 1e3) / peaks.int8 if peaks.int8 else float("nan")
        print(f"| {name} | {gpu:.2f} | {cpu:.1f} | {cpu / gpu:.1f}x | {products / 1e9:.1f} G | {share:.1%} |")


def sampling(floats: list, priors: list, rounds: int, device: str, positions: int) -> None:
    config = configs.default()
    shapes = map_shapes(config, 256, 256)
    words = random_words(shapes)
    maps = ops.wavefront_sample(priors, shapes, words, (0, 0))
    found = ops.wavefront_sample(priors, shapes, words, (0, 0), backend=device)
    assert all(np.array_equal(a, b) for a, b in zip(maps, found, strict=True))
    one = milliseconds(lambda: ops.wavefront_sample(priors, shapes, words, (0, 0), backend=device), rounds)
    jobs = [ops.SampleJob(shapes, random_words(shapes, i)) for i in range(128)]
    many = milliseconds(lambda: ops.wavefront_sample_batch(priors, jobs, backend=device), rounds) / len(jobs)
    torch.set_default_device("cuda")
    naive = 1e3 * sum(
        Naive(prior.cuda()).seconds_per_map(shape, maps[:number], positions)
        for number, (prior, shape) in enumerate(zip(floats, shapes))
    )
    torch.set_default_device("cpu")
    print("\n## Sampling 256 x 256, milliseconds per image\n")
    print("| loop | ms | / vqcodec |\n|------|---:|----------:|")
    for name, taken in (("vqcodec", one), ("vqcodec, 128 at once", many), ("naive PyTorch (extrapolated)", naive)):
        print(f"| {name} | {taken:.2f} | {taken / one:.1f}x |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--size", default="768x512", help="image size, WIDTHxHEIGHT")
    parser.add_argument("--rows", type=int, default=1 << 20)
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--naive-positions", type=int, default=20, help="positions timed per map")
    options = parser.parse_args()

    gpu = cuda.device(options.device)  # BackendError, with the reason, if there is none
    assert backend.trusted(options.device)
    torch.cuda.set_device(options.device)
    width, height = (int(side) for side in options.size.split("x"))
    peaks, device = Peaks(options.device), f"cuda:{options.device}"
    print(f"{gpu.describe()}, torch {torch.__version__}; medians of {options.rounds}")
    print(
        f"at most {peaks.fma / 1e12:.1f} T float32 FMA/s, {peaks.int8 / 1e12:.0f} T int8 multiply-adds/s, "
        f"{peaks.bytes / 1e12:.2f} TB/s"
    )
    nearest_codebook(options.rows, options.codes, options.rounds, peaks)
    floats, priors = random_priors(configs.default())
    decoding(priors, (width, height), options.batch, options.rounds, device, peaks)
    autoencoder((width, height), options.rounds, device, peaks)
    sampling(floats, priors, options.rounds, device, options.naive_positions)


if __name__ == "__main__":
    main()
