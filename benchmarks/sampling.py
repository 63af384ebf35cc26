"""How fast is a picture's hierarchy of maps sampled? Against the two loops that people write.

    python -m benchmarks.sampling [--size 256x256] [--threads 2] [--rounds 15]
    VQCODEC_CPU=avx2 python -m benchmarks.sampling      # as on a CPU with AVX2 only,
                                                        # also for the peers

    naive    PyTorch: for every position the whole float network on the whole map, as PixelCNN
             samplers do. Timed on some positions of every map and extrapolated: every position
             costs the same.
    cached   NumPy: position by position with cached features, each layer one matrix-vector
             product; conditioning once per map; keys and values of attention kept. The logits are
             compared with PyTorch's before anything is timed.
    vqcodec  the fused loop, `vqcodec.ops.wavefront_sample`, one picture and sixteen at once.

All sample the same default hierarchy, with the same random weights; the first two in float, as
there is no reason for integers there. Medians, in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

if os.environ.get("VQCODEC_CPU") == "avx2":  # read by the peers when they are imported
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import torch

from benchmarks.decode import map_shapes, random_priors, random_words, seconds
from benchmarks.rows import Row, dump
from training.networks.prior import Gate, Prior, QuantizedConv2d, stream
from vqcodec import ops
from vqcodec.model import config as configs
from vqcodec.ops import cpu
from vqcodec.ops.reference import prior as reference_prior

Maps = list[np.ndarray]


def tensors(maps: Sequence[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(m).long()[None] for m in maps]


class Naive:
    """The whole network for every position."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def position(self, codes: torch.Tensor, coarser: list[torch.Tensor], row: int, column: int) -> None:
        number = torch.zeros(1, dtype=torch.int64)
        logits = self.prior(codes, coarser, number, number)[0, :, row, column]
        codes[0, row, column] = torch.multinomial(torch.softmax(logits, 0), 1)[0]

    def seconds_per_map(self, shape: tuple[int, int], coarser: Maps, positions: int) -> float:
        """Extrapolated from a few positions."""
        codes, before = torch.zeros((1, *shape), dtype=torch.int64), tensors(coarser)
        with torch.inference_mode():
            self.position(codes, before, 0, 0)
            times = [
                seconds(lambda i=i: self.position(codes, before, shape[0] // 2, i % shape[1]))
                for i in range(positions)
            ]
        return statistics.median(times) * shape[0] * shape[1]


class CachedConv:
    """A masked convolution at one position, its inputs read from a padded plane."""

    def __init__(self, conv: QuantizedConv2d) -> None:
        half = conv.kernel // 2
        weight = conv.weight.detach().numpy()
        taps = [weight[:, :, half + r, half + c] for r, c in conv.offsets]
        self.weight = np.ascontiguousarray(np.concatenate(taps, 1))
        self.bias = conv.bias.detach().numpy()
        self.inputs = weight.shape[1]
        self.runs = []  # taps that lie side by side: row, first column, end column
        for row in sorted({r for r, _ in conv.offsets}):
            columns = [c for r, c in conv.offsets if r == row]
            self.runs.append((row, min(columns), max(columns) + 1))
        self.patch = np.empty(self.weight.shape[1], np.float32)

    def at(self, plane: np.ndarray, row: int, column: int) -> np.ndarray:
        """``row`` and ``column`` count in the padded plane."""
        begin = 0
        for dr, first, end in self.runs:
            size = (end - first) * self.inputs
            self.patch[begin : begin + size] = plane[row + dr, column + first : column + end].reshape(-1)
            begin += size
        return self.weight @ self.patch + self.bias

    def of(self, x: np.ndarray) -> np.ndarray:
        return self.weight @ x + self.bias


class CachedGate:
    def __init__(self, block: Gate) -> None:
        self.conv, self.out = CachedConv(block.conv), CachedConv(block.out)

    def add(self, h: np.ndarray, ab: np.ndarray) -> np.ndarray:
        a, b = np.split(np.clip(ab, -4, 127 / 32), 2)
        return np.clip(h + self.out.of(np.tanh(a) / (1 + np.exp(-b))), -128, 128)


class Cached:
    """Position by position, every feature computed once."""

    PAD = 2

    def __init__(self, prior: Prior) -> None:
        self.prior, self.lag = prior, prior.config.lag
        self.embedding = prior.embedding.table(False).detach().numpy()
        self.first, self.logits = CachedConv(prior.first), CachedConv(prior.logits)
        self.blocks = [CachedGate(block) for block in prior.blocks]
        self.output = [CachedGate(block) for block in prior.output]
        self.attention = {
            int(i): (CachedConv(a.qkv), CachedConv(a.out), a.heads) for i, a in prior.attention.items()
        }

    def start(self, shape: tuple[int, int], coarser: Maps) -> np.ndarray:
        """What does not depend on this map: conditioning, class and level; height x width x hidden."""
        prior = self.prior
        number = torch.zeros(1, dtype=torch.int64)
        with torch.inference_mode():
            h = (prior.class_embedding(number, False) + prior.level_embedding(number, False))[0]
            h = h[:, None, None].expand(-1, *shape)
            if coarser:
                parts = []
                for table, codes, f in zip(prior.coarser, tensors(coarser), prior.factors):
                    e = table(codes, False)
                    e = e.reshape(*e.shape[:3], f, f, -1).permute(0, 5, 1, 3, 2, 4)
                    parts.append(e.reshape(1, e.shape[1], shape[0], shape[1]))
                g = stream(prior.condition_in(torch.cat(parts, 1), False), False)
                for block in prior.condition:
                    g = block(g, False)
                h = h + g[0]
        return np.ascontiguousarray(h.permute(1, 2, 0).numpy())

    def sample(self, shape: tuple[int, int], coarser: Maps, words: np.ndarray,
               known: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The codes, and the logits in coding order; with ``known`` codes only the logits are new."""
        height, width = shape
        hidden, pad = self.prior.config.hidden, self.PAD
        start = self.start(shape, coarser)
        embedded = np.zeros((height + pad, width + 2 * pad, self.embedding.shape[1]), np.float32)
        planes = [np.zeros((height + pad, width + 2 * pad, hidden), np.float32) for _ in self.blocks]
        memory = {i: np.empty((2, height * width, hidden), np.float32) for i in self.attention}
        codes, uniform = np.zeros(shape, np.int32), words / reference_prior.TOTAL
        logits = np.empty((height * width, len(self.embedding)), np.float32)
        position = 0
        for rows, columns in reference_prior.wavefront_steps(height, width, self.lag):
            seen, fresh = position, {i: [] for i in self.attention}
            for row, column in zip(rows.tolist(), columns.tolist()):
                at = row + pad, column + pad
                h = np.clip(start[row, column] + self.first.at(embedded, *at), -128, 128)
                for i, block in enumerate(self.blocks):
                    planes[i][at] = np.clip(h, -8, 127 / 16)
                    h = block.add(h, block.conv.at(planes[i], *at))
                    if i in self.attention:
                        h = self.attend(h, i, memory[i], seen, fresh[i])
                for block in self.output:
                    h = block.add(h, block.conv.of(np.clip(h, -8, 127 / 16)))
                x = self.logits.of(np.clip(h, -8, 127 / 16))
                logits[position] = x
                if known is None:
                    running = np.cumsum(np.exp(x - x.max()))
                    code = int(np.searchsorted(running, uniform[position] * running[-1], side="right"))
                    codes[row, column] = min(code, len(x) - 1)
                else:
                    codes[row, column] = known[row, column]
                position += 1
            embedded[rows + pad, columns + pad] = self.embedding[codes[rows, columns]]
            for i, pairs in fresh.items():
                memory[i][:, seen:position] = np.stack(pairs, 1)
        return codes, logits

    def attend(self, h: np.ndarray, i: int, memory: np.ndarray, seen: int,
               fresh: list[np.ndarray]) -> np.ndarray:
        qkv, out, heads = self.attention[i]
        q, k, v = np.split(np.clip(qkv.of(np.clip(h, -8, 127 / 16)), -8, 127 / 16), 3)
        fresh.append(np.stack([k, v]))  # the rest of the step does not see them ...
        memory[:, seen] = k, v  # ... but this position does
        keys, values = (m[: seen + 1].reshape(seen + 1, heads, -1) for m in memory)
        score = np.einsum("nhd,hd->hn", keys, q.reshape(heads, -1))
        weight = np.exp(score - score.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        mixed = np.einsum("hn,nhd->hd", weight, values).reshape(-1)
        return np.clip(h + out.of(mixed), -128, 128)


def check(cached: Cached, prior: Prior, codes: np.ndarray, coarser: Maps) -> None:
    """The cached loop computes the network's logits."""
    _, found = cached.sample(codes.shape, coarser, np.zeros(codes.size), known=codes)
    number = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        logits = prior(tensors([codes])[0], tensors(coarser), number, number)[0].permute(1, 2, 0).numpy()
    rows, columns = reference_prior.coding_order(*codes.shape, cached.lag)
    np.testing.assert_allclose(found, logits[rows, columns], atol=1e-2, rtol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x256", help="of the picture, WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, default=cpu.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cached-rounds", type=int, default=5)
    parser.add_argument("--naive-positions", type=int, default=20, help="of every map")
    parser.add_argument("--json", type=Path, help="write rows for python -m benchmarks")
    options = parser.parse_args()

    width, height = (int(side) for side in options.size.split("x"))
    cpu.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    config = configs.default()
    floats, integers = random_priors(config)
    shapes = map_shapes(config, height, width)
    words = random_words(shapes)

    def sample() -> Maps:
        return ops.wavefront_sample(integers, shapes, words, 0, 0)

    batch = [ops.SampleJob(shapes, random_words(shapes, i)) for i in range(16)]
    maps = sample()
    loops = [Cached(prior) for prior in floats]
    for m in (0, 1, len(maps) - 1):
        check(loops[m], floats[m], maps[m], maps[:m])

    def sample_cached() -> None:
        found: Maps = []
        for loop, shape, own in zip(loops, shapes, words):
            found.append(loop.sample(shape, found, own)[0])

    times: dict[str, list[float]] = {"vqcodec": [], "vqcodec, 16 at once": [], "cached": []}
    for _ in range(options.rounds):
        sample()
        times["vqcodec"].append(seconds(sample))
        taken = seconds(lambda: ops.wavefront_sample_batch(integers, batch))
        times["vqcodec, 16 at once"].append(taken / len(batch))
    for _ in range(options.cached_rounds):
        times["cached"].append(seconds(sample_cached))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    naive = sum(
        Naive(prior).seconds_per_map(shape, maps[:m], options.naive_positions)
        for m, (prior, shape) in enumerate(zip(floats, shapes))
    )
    median["naive (extrapolated)"] = naive

    print(
        f"{width} x {height}, {len(shapes)} maps, {sum(m.size for m in maps)} codes, {options.threads} threads, "
        f"{cpu.select_variant()} ({platform.machine()}, torch {torch.__version__}, numpy {np.__version__})\n"
    )
    print("| loop | ms per picture | / vqcodec |")
    print("|------|---------------:|----------:|")
    for name, taken in median.items():
        print(f"| {name} | {taken * 1e3:.1f} | {taken / median['vqcodec']:.1f}x |")
    job = f"sample all maps of {width} x {height} ({cpu.select_variant()}, {options.threads} threads)"
    dump(options.json, [Row.timed(job, "a cached loop in NumPy", times["vqcodec"], times["cached"]),
                        Row.timed(job, "a naive loop in torch (extrapolated)", times["vqcodec"], [naive])])


if __name__ == "__main__":
    main()
