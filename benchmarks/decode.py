"""How fast are the maps of a picture decoded? Against the autoregressive decoders of CompressAI.

    python -m benchmarks.decode [--size 768x512] [--threads 2] [--rounds 15] [--model FILE]
    VQCODEC_CPU=avx2 python -m benchmarks.decode        # as on a CPU with AVX2 only,
                                                        # also for the peers

All maps of the default hierarchy, from bytes that constriction's coder wrote, with random weights
unless a model file is named: time does not depend on them. What is decoded is compared with what
was encoded before anything is timed. Contenders take turns; the tables show medians.

    GMAC/s   multiply-accumulates of all convolutions (attention not counted) per second
    peak     share of what benchmarks/roofline.cpp reaches in the same run: the multiply-add
             instruction alone, operands in registers, all threads together
    tile     share of what the engine's inner loop reaches when all that it reads is cached
    weights  bytes of weights that the steps of the wavefront read in all, per second, as a share
             of the second-level cache's bandwidth

CompressAI is optional and may live in an environment of its own (`--compressai PYTHON`). Its models
have random weights, too, which makes no difference to the number of their steps: one per latent
position. Their decoders make a picture, so the loop over positions is timed apart, and only it is
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if os.environ.get("VQCODEC_CPU") == "avx2":  # read by the peers when they are imported
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import torch

from benchmarks.rows import Row, dump
from training.networks.prior import Prior
from vqcodec import ops
from vqcodec.model import config as configs
from vqcodec.model.prior import IntegerPrior, Tables, load_prior
from vqcodec.ops import cpu, range_coder
from vqcodec.ops.reference import prior as reference_prior

CLASSES = 16
PEERS = ("mbt2018", "cheng2020_anchor", "bmshj2018_hyperprior")
FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"],
}


def random_priors(config: configs.ModelConfig) -> tuple[list[Prior], list[IntegerPrior]]:
    """The float priors of a model and their integer networks, with weights of usual size."""
    maps = config.autoencoder.maps
    levels = config.autoencoder.levels
    torch.manual_seed(0)
    floats, integers = [], []
    for m, prior_config in enumerate(config.priors):
        prior = Prior(prior_config, maps[: m + 1], CLASSES, levels).eval()
        with torch.no_grad():
            for name, parameter in prior.named_parameters():
                if name.endswith("out.weight"):  # zero at the start of training
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
        floats.append(prior)
        integers.append(
            load_prior(prior_config, maps[: m + 1], CLASSES, levels, prior.export(), Tables.standard())
        )
    return floats, integers


def map_shapes(config: configs.ModelConfig, height: int, width: int) -> list[tuple[int, int]]:
    unit = config.stride
    height, width = -(-height // unit) * unit, -(-width // unit) * unit
    return [(height // m.stride, width // m.stride) for m in config.autoencoder.maps]


def random_words(shapes: Sequence[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, reference_prior.TOTAL, h * w, dtype=np.uint32) for h, w in shapes]


@dataclass(frozen=True)
class Roofline:
    """10^9 per second, all threads together; see roofline.cpp."""

    registers: float  #: multiply-accumulates
    tile: float  #: multiply-accumulates, in the engine's inner loop
    second_level: float  #: bytes

    @classmethod
    def measured(cls, variant: str, threads: int) -> Roofline:
        if variant not in FLAGS:
            return cls(float("nan"), float("nan"), float("nan"))
        root = Path(__file__).parent.parent
        sources = [root / "benchmarks/roofline.cpp", root / f"csrc/nn/kernels_{variant}.cpp"]
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "roofline"
            command = ["c++", "-O3", "-std=c++17", "-pthread", f"-I{root / 'csrc'}", *FLAGS[variant]]
            subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
            output = subprocess.run([program, str(threads)], capture_output=True, check=True).stdout
        return cls(*map(float, output.split()))


class Ours:
    """All maps of one picture."""

    def __init__(self, priors: list[IntegerPrior], shapes: list[tuple[int, int]]) -> None:
        self.priors, self.shapes = priors, shapes
        self.codes = ops.wavefront_sample(priors, shapes, random_words(shapes), 1, 0)
        self.streams = [
            range_coder.encode_stream(*ops.prior_frequencies(p, self.codes[m], self.codes[:m], 1, 0))
            for m, p in enumerate(priors)
        ]
        for found, expected in zip(self.decode(), self.codes, strict=True):
            assert np.array_equal(found, expected)

    def decode(self) -> list[np.ndarray]:
        return ops.wavefront_decode(self.priors, self.shapes, self.streams, 1, 0)

    def codes_in_all(self) -> int:
        return sum(codes.size for codes in self.codes)

    def macs(self) -> int:
        return sum(p.macs() * codes.size for p, codes in zip(self.priors, self.codes))

    def weight_bytes(self) -> int:
        """Every step of a map reads every weight of its prior once."""
        return sum(
            p.macs() * (w + p.lag * (h - 1)) for p, (h, w) in zip(self.priors, self.shapes)
        )


class Peers:
    """CompressAI in a process of its own: see compressai_peer.py."""

    def __init__(self, python: str, size: tuple[int, int], threads: int) -> None:
        script = Path(__file__).with_name("compressai_peer.py")
        self._process = subprocess.Popen([python, str(script), *map(str, (*size, threads))], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = self._process.stdout.readline()
        if not first:
            said = self._process.communicate()[1].strip().splitlines()
            raise ImportError(said[-1] if said else "it ended without a word")
        self.versions = json.loads(first)

    def decode(self, name: str) -> dict[str, float]:
        """Seconds of one decode: "whole" and "loop"."""
        print(name, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report_ours(ours: Ours, size: tuple[int, int], rounds: int, max_threads: int) -> list[float]:
    """Prints the table of our own figures; seconds with all threads."""
    variant = cpu.select_variant()
    counts = sorted({1, max_threads})
    times: dict[int, list[float]] = {n: [] for n in counts}
    for _ in range(rounds):
        for threads in counts:
            cpu.set_num_threads(threads)
            ours.decode()  # wakes the threads
            times[threads].append(seconds(ours.decode))
    print("| threads | ms | best ms | GMAC/s | peak GMAC/s | peak | tile | weights GB/s | weights |")
    print("|--------:|---:|--------:|-------:|------------:|-----:|-----:|-------------:|--------:|")
    for threads in counts:
        roofline = Roofline.measured(variant, threads)
        median = statistics.median(times[threads])
        rate, weights = ours.macs() / median / 1e9, ours.weight_bytes() / median / 1e9
        print(
            f"| {threads} | {median * 1e3:.1f} | {min(times[threads]) * 1e3:.1f} | {rate:.1f} "
            f"| {roofline.registers:.1f} | {rate / roofline.registers:.0%} | {rate / roofline.tile:.0%} "
            f"| {weights:.1f} | {weights / roofline.second_level:.0%} |"
        )
    steps = max(w + p.lag * (h - 1) for p, (h, w) in zip(ours.priors, ours.shapes))
    print(
        f"\n{ours.macs() / ours.codes_in_all() / 1e3:.0f} kMAC per code, "
        f"{ours.macs() / size[0] / size[1] / 1e3:.1f} kMAC per pixel, {ours.macs() / 1e9:.2f} GMAC in all; "
        f"{steps} steps per map, {max(p.macs() for p in ours.priors) / 1e3:.0f} kB of weights per step"
    )
    return times[max_threads]


def report_peers(own: list[float], python: str, size: tuple[int, int], threads: int, rounds: int) -> list[Row]:
    """Prints the table of the peers; our times against those of each."""
    job = f"decode all maps of {size[0]} x {size[1]} ({cpu.select_variant()}, {threads} threads)"
    try:
        peers = Peers(python, size, threads)
    except (ImportError, OSError) as error:
        print(f"\nCompressAI cannot be used ({error}): no comparison")
        return [Row.timed(job, f"CompressAI {name}", own, None, "not installed") for name in PEERS]
    whole: dict[str, list[float]] = {name: [] for name in PEERS}
    loop: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(rounds + 1):
        for name in PEERS:
            taken = peers.decode(name)
            if number:  # the first warms up
                whole[name].append(taken["whole"])
                loop[name].append(taken["loop"])
    peers.close()
    print(f"\nCompressAI {peers.versions['compressai']}, torch {peers.versions['torch']}\n")
    print("| decoder | s, whole picture | s, loop over positions | loop / all our maps |")
    print("|---------|-----------------:|-----------------------:|--------------------:|")
    for name in PEERS:
        alone = statistics.median(loop[name])
        print(f"| {name} | {statistics.median(whole[name]):.2f} | {alone:.2f} | {alone / statistics.median(own):.1f}x |")
    return [Row.timed(job, f"CompressAI {name}, loop over positions", own, loop[name]) for name in PEERS if any(loop[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="768x512", help="of the picture, WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, default=cpu.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peer-rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a model file (default: random weights)")
    parser.add_argument("--compressai", default=sys.executable, metavar="PYTHON", help="of the environment that has CompressAI")
    parser.add_argument("--json", type=Path, help="write rows for python -m benchmarks")
    options = parser.parse_args()

    width, height = (int(side) for side in options.size.split("x"))
    if options.model:
        from vqcodec.model import file

        model = file.load(options.model)
        config, priors = model.config, list(model.priors)
    else:
        config = configs.default()
        priors = random_priors(config)[1]
    torch.set_num_threads(options.threads)
    cpu.set_num_threads(options.threads)
    ours = Ours(priors, map_shapes(config, height, width))
    print(
        f"{width} x {height}, {len(priors)} maps, {ours.codes_in_all()} codes, "
        f"{sum(map(len, ours.streams))} bytes; {cpu.select_variant()} ({platform.machine()}, "
        f"torch {torch.__version__}); medians of {options.rounds}\n"
    )
    own = report_ours(ours, (width, height), options.rounds, options.threads)
    dump(options.json, report_peers(own, options.compressai, (width, height), options.threads, options.peer_rounds))


if __name__ == "__main__":
    main()
