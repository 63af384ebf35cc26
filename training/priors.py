"""Stage 2: train one prior per code map (VQ-VAE-2, algorithm 2).

Codes are extracted on the fly: every batch is a fresh crop, mirrored or not, at a
rate drawn at random, so that the priors never see the same code map twice. The
first part of the training runs in float, the rest with fake quantisation, which
computes exactly what the exported integer network computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
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


def build(config: ModelConfig) -> nn.ModuleList:
    """One prior per map, untrained."""
    maps, levels = config.autoencoder.maps, config.autoencoder.levels
    return nn.ModuleList(
        Prior(prior, maps[: m + 1], len(config.classes), levels) for m, prior in enumerate(config.priors)
    )


def train(config: ModelConfig, autoencoder: Autoencoder, recipe: Stage2, crops: Crops, val: Crops, work: Path,
          seed: int) -> nn.ModuleList:
    """Train, or go on from ``work/priors.pt``; returns the averaged (EMA) weights, quantised."""
    path = work / "priors.pt"
    generator = torch.Generator().manual_seed(seed + 1)
    torch.manual_seed(seed + 1)
    autoencoder.eval()
    priors, average = build(config), build(config)
    codebooks = [q.codebook for q in autoencoder.quantizers]
    for m, prior in enumerate(priors):
        prior.start(codebooks[: m + 1], autoencoder.quantizers[m].usage.mean(0))
    average.load_state_dict(priors.state_dict())
    optimizers = [torch.optim.Adam(p.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98)) for p in priors]
    step = 0
    if state := checkpoint.load(path):
        priors.load_state_dict(state["priors"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        step = state["step"]
    report(config, autoencoder, average, val, step)

    begun, window = time.monotonic(), np.zeros(len(priors))
    while step < recipe.steps:
        scale = min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
        quantized = step >= recipe.quantize_from * recipe.steps
        codes, labels, level = batch(config, autoencoder, crops, recipe.batch, generator)
        labels = labels * (torch.rand(len(labels), generator=generator) >= recipe.drop_class)
        for m, (prior, optimizer) in enumerate(zip(priors, optimizers)):
            prior.quantized = quantized
            logits = prior(codes[m], codes[:m], labels, level)
            loss = F.cross_entropy(logits, codes[m])
            value = float(loss.detach())
            if not math.isfinite(value):
                raise SystemExit(f"stage 2, map {m}: the loss is {value} at step {step}; resume with a lower learning rate")
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * scale + 1e-6
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(prior.parameters(), recipe.clip)
            optimizer.step()
            window[m] += value / math.log(2)
        step += 1
        weight = 1 - min(recipe.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, p in zip(average.parameters(), priors.parameters()):
                a.lerp_(p, weight)
        if step % 100 == 0:
            seconds = (time.monotonic() - begun) / 100
            bpp = sum(b / 100 / m.stride**2 for b, m in zip(window, config.autoencoder.maps))
            print(f"step {step} {seconds:.3f} s/step {bpp:.4f} bpp, bits {' '.join(f'{b / 100:.2f}' for b in window)}", flush=True)
            begun, window = time.monotonic(), np.zeros(len(priors))
        if step % recipe.save_every == 0 or step == recipe.steps:
            checkpoint.save(path, dict(
                priors=priors.state_dict(), average=average.state_dict(), optimizers=[o.state_dict() for o in optimizers],
                generator=generator.get_state(), rng=torch.get_rng_state(), step=step))
            report(config, autoencoder, average, val, step)
            begun = time.monotonic()
    for prior in average:
        prior.quantized = True
    return average.eval()


def batch(config: ModelConfig, autoencoder: Autoencoder, crops: Crops, size: int,
          generator: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
    """Code maps (B x h x w each), class numbers (B) and rate levels (B) of random pictures at random rates."""
    index = torch.randint(0, len(crops.pixels), (size,), generator=generator)
    mirror = torch.randint(0, 2, (size,), generator=generator).tolist()
    rates = [draw_rate(config.autoencoder, generator) for _ in range(size)]
    parts = []
    for i, m, rate in zip(index.tolist(), mirror, rates):
        pixels = np.array(crops.pixels[i][:, ::-1] if m else crops.pixels[i])
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255)
        parts.append(autoencoder.encode(x, rate))
    labels = torch.from_numpy(crops.labels[index.numpy()])
    levels = torch.tensor([rate.level if rate else 0 for rate in rates])
    return [torch.cat(maps) for maps in zip(*parts)], labels, levels


@torch.no_grad()
def report(config: ModelConfig, autoencoder: Autoencoder, priors: Sequence[Prior], val: Crops, step: int,
           pictures: int = 48) -> None:
    """Print bits per pixel on the validation set: zero-order, float prior, quantised prior."""
    index = np.linspace(0, len(val.pixels) - 1, pictures).astype(int)
    x = torch.from_numpy(val.pixels[index]).permute(0, 3, 1, 2).float().div(255)
    labels = torch.zeros(pictures, dtype=torch.int64)
    auto = config.autoencoder
    for position in POSITIONS:
        rate = Rate.at(auto, position)
        codes = autoencoder.encode(x, rate)
        level = torch.full((pictures,), rate.level if rate else 0)
        area = [m.stride**2 for m in auto.maps]
        zero = [entropy(c.flatten(), m.codes) for c, m in zip(codes, auto.maps)]
        bits = {}
        for quantized in (False, True):
            bits[quantized] = []
            for m, prior in enumerate(priors):
                prior.quantized = quantized
                prior.eval()
                nats = F.cross_entropy(prior(codes[m], codes[:m], labels, level), codes[m])
                bits[quantized].append(float(nats) / math.log(2))
        total = [sum(b / a for b, a in zip(each, area)) for each in (zero, bits[False], bits[True])]
        print(f"val step {step} rate {position}: zero-order {total[0]:.4f} bpp, float {total[1]:.4f}, integer {total[2]:.4f} "
              f"({100 * (1 - total[2] / total[0]):.1f} % fewer), bits {' '.join(f'{b:.2f}' for b in bits[True])}", flush=True)
