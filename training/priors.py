"""Stage 2: train one prior per code map (VQ-VAE-2, algorithm 2).

Codes are extracted on the fly: every batch is a fresh crop, mirrored or not, at a
rate drawn at random, so that the priors never see the same code map twice. The
first part of the training runs in float (bfloat16 where the processor has it), the rest
with fake quantisation, which computes exactly what the exported integer network computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import checkpoint
from training.autoencoder import POSITIONS, draw_rate, entropy
from training.data import Crops
from training.recipe import Stage2
from vqcodec.models.autoencoder import Autoencoder
from vqcodec.models.config import ModelConfig
from vqcodec.models.prior import Prior
from vqcodec.models.quantizer import Rate


@dataclass
class Run:
    """The training of one map's prior: everything that a checkpoint holds."""

    prior: Prior
    average: Prior  #: moving average of the weights: what is shipped
    optimizer: torch.optim.Optimizer
    path: Path
    step: int = 0

    def save(self) -> None:
        checkpoint.save(self.path, dict(prior=self.prior.state_dict(), average=self.average.state_dict(),
                                        optimizer=self.optimizer.state_dict(), step=self.step))

    def resume(self) -> None:
        if state := checkpoint.load(self.path):
            self.prior.load_state_dict(state["prior"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]


def start(config: ModelConfig, autoencoder: Autoencoder, recipe: Stage2, m: int, work: Path, seed: int) -> Run:
    """The training of map ``m``: fresh, or as far as its checkpoint in ``work``."""
    torch.manual_seed(seed + 1000 * m)
    auto = config.autoencoder
    prior, average = (Prior(config.priors[m], auto.maps[: m + 1], len(config.classes), auto.levels) for _ in range(2))
    prior.start([q.codebook for q in autoencoder.quantizers[: m + 1]], autoencoder.quantizers[m].usage.mean(0))
    average.load_state_dict(prior.state_dict())
    optimizer = torch.optim.Adam(prior.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98))
    run = Run(prior, average, optimizer, work / f"prior.{m}.pt")
    run.resume()
    return run


def train(config: ModelConfig, autoencoder: Autoencoder, recipe: Stage2, crops: Crops, val: Crops, work: Path, seed: int,
          maps: Sequence[int]) -> list[Prior]:
    """Train the priors of ``maps``, or go on from their checkpoints; returns them averaged and quantised.

    The batch of a step depends on ``seed`` and the step alone, so that the maps can be
    trained in one process or in several with the same result.
    """
    autoencoder.eval()
    runs = {m: start(config, autoencoder, recipe, m, work, seed) for m in maps}
    bfloat16 = torch.cpu._is_avx512_bf16_supported()
    begun, window = time.monotonic(), dict.fromkeys(maps, 0.0)
    for step in range(min(run.step for run in runs.values()), recipe.steps):
        codes, labels, level = batch(config, autoencoder, crops, recipe, seed, step)
        for m, run in runs.items():
            if run.step == step:
                quantized = step >= recipe.quantize_from * recipe.steps
                window[m] += train_step(run, m, codes, labels, level, recipe, quantized, bfloat16)
        done = step + 1
        if done % 100 == 0:
            bits = " ".join(f"{m}:{b / 100:.3f}" for m, b in window.items())
            print(f"step {done} {(time.monotonic() - begun) / 100:.3f} s/step, bits {bits}", flush=True)
            begun, window = time.monotonic(), dict.fromkeys(maps, 0.0)
        if done % recipe.save_every == 0 or done == recipe.steps:
            for run in runs.values():
                run.save()
            report(config, autoencoder, {m: run.average for m, run in runs.items()}, val, done)
            begun = time.monotonic()
    for run in runs.values():
        run.average.quantized = True
    return [runs[m].average.eval() for m in maps]


def train_step(run: Run, m: int, codes: list[Tensor], labels: Tensor, level: Tensor, recipe: Stage2, quantized: bool,
               bfloat16: bool) -> float:
    """One step of map ``m``; returns the loss in bits per code."""
    prior, step = run.prior, run.step
    prior.quantized = quantized
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and not quantized):
        logits = prior(codes[m], codes[:m], labels, level)
    loss = F.cross_entropy(logits.float(), codes[m])
    value = float(loss.detach())
    if not math.isfinite(value):
        raise SystemExit(f"stage 2, map {m}: the loss is {value} at step {step}; resume with a lower learning rate")
    scale = min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate * scale + 1e-6
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(prior.parameters(), recipe.clip)
    run.optimizer.step()
    run.step += 1
    weight = 1 - min(recipe.average, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for a, p in zip(run.average.parameters(), prior.parameters()):
            a.lerp_(p, weight)
    return value / math.log(2)


def batch(config: ModelConfig, autoencoder: Autoencoder, crops: Crops, recipe: Stage2, seed: int,
          step: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Code maps (B x h x w each), class numbers (B) and rate levels (B) of random pictures at random rates."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    size = recipe.batch
    index = torch.randint(0, len(crops.pixels), (size,), generator=generator)
    mirror = torch.randint(0, 2, (size,), generator=generator).tolist()
    rates = [draw_rate(config.autoencoder, generator) for _ in range(size)]
    parts = []
    for i, m, rate in zip(index.tolist(), mirror, rates):
        pixels = np.array(crops.pixels[i][:, ::-1] if m else crops.pixels[i])
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255)
        parts.append(autoencoder.encode(x, rate))
    known = torch.rand(size, generator=generator) >= recipe.drop_class
    labels = torch.from_numpy(crops.labels[index.numpy()]) * known
    levels = torch.tensor([rate.level if rate else 0 for rate in rates])
    return [torch.cat(maps) for maps in zip(*parts)], labels, levels


@torch.no_grad()
def report(config: ModelConfig, autoencoder: Autoencoder, priors: Mapping[int, Prior], val: Crops, step: int,
           pictures: int = 48) -> None:
    """Print bits per pixel of some maps on the validation set: zero-order, float prior, quantised prior."""
    index = np.linspace(0, len(val.pixels) - 1, pictures).astype(int)
    x = torch.from_numpy(val.pixels[index]).permute(0, 3, 1, 2).float().div(255)
    labels = torch.zeros(pictures, dtype=torch.int64)
    auto = config.autoencoder
    for position in POSITIONS:
        rate = Rate.at(auto, position)
        codes = autoencoder.encode(x, rate)
        level = torch.full((pictures,), rate.level if rate else 0)
        area = {m: auto.maps[m].stride ** 2 for m in priors}
        zero = {m: entropy(codes[m].flatten(), auto.maps[m].codes) for m in priors}
        bits: dict[bool, dict[int, float]] = {False: {}, True: {}}
        for quantized, found in bits.items():
            for m, prior in priors.items():
                prior.quantized = quantized
                nats = F.cross_entropy(prior.eval()(codes[m], codes[:m], labels, level), codes[m])
                found[m] = float(nats) / math.log(2)
        total = [sum(each[m] / area[m] for m in priors) for each in (zero, bits[False], bits[True])]
        print(f"val step {step} rate {position}: zero-order {total[0]:.4f} bpp, float {total[1]:.4f}, integer {total[2]:.4f} "
              f"({100 * (1 - total[2] / total[0]):.1f} % fewer), bits "
              + " ".join(f"{m}:{b:.3f}/{zero[m]:.3f}" for m, b in bits[True].items()), flush=True)
