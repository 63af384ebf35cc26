"""Stage 1: train the autoencoder (VQ-VAE-2, algorithm 1) with a rate term.

The loss per pixel is

    mean squared error + (beta * commitment + lambda * bits) / 3

with lambda drawn per batch over the whole quality range, so that one model serves
all qualities, and with the finer maps dropped now and then, so that every prefix of
the maps is a picture.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import checkpoint
from training.data import Crops
from training.recipe import Stage1
from vqcodec.models.autoencoder import Autoencoder
from vqcodec.models.config import AutoencoderConfig
from vqcodec.models.quantizer import Rate

#: The rate position at which codebooks start and losses have weight 1.
MIDDLE = 0.6
#: Rate positions that reports show.
POSITIONS = (0.2, 0.5, 0.8)


def batch(crops: Crops, size: int, side: int, generator: torch.Generator) -> Tensor:
    """B x 3 x side x side in [0, 1], random crops, half of them mirrored."""
    limit = crops.pixels.shape[1] - side
    index, ys, xs, mirror = (torch.randint(0, n, (size,), generator=generator).tolist()
                             for n in (len(crops.pixels), limit // 8 + 1, limit // 8 + 1, 2))
    parts = []
    for i, y, x, m in zip(index, ys, xs, mirror):
        part = crops.pixels[i, y * 8 : y * 8 + side, x * 8 : x * 8 + side]
        parts.append(part[:, ::-1] if m else part)
    pixels = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)
    return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


def draw_rate(config: AutoencoderConfig, generator: torch.Generator) -> Rate | None:
    """A rate from the whole range, uniform on the logarithmic scale."""
    return Rate.at(config, float(torch.rand((), generator=generator)))


def train(config: AutoencoderConfig, recipe: Stage1, crops: Crops, val: Crops, work: Path, seed: int) -> Autoencoder:
    """Train, or go on from ``work/autoencoder.pt``; returns the averaged (EMA) weights."""
    path = work / "autoencoder.pt"
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Autoencoder(config)
    average = Autoencoder(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    step = 0
    if state := checkpoint.load(path):
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        step = state["step"]
    else:
        model.start(batch(crops, 120, 256, generator), Rate.at(config, MIDDLE))
        average.load_state_dict(model.state_dict())
    model.to(memory_format=torch.channels_last)
    report(average, val, step)

    def save() -> None:
        checkpoint.save(path, dict(model=model.state_dict(), average=average.state_dict(), optimizer=optimizer.state_dict(),
                                   generator=generator.get_state(), rng=torch.get_rng_state(), step=step))

    begun, window = time.monotonic(), 0.0
    model.train()
    while step < recipe.steps:
        scale = min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * scale + 1e-6
        x = batch(crops, recipe.batch, recipe.crop, generator)
        rate = draw_rate(config, generator)
        keep = None
        if float(torch.rand((), generator=generator)) < recipe.drop_maps:
            keep = int(torch.randint(1, len(config.maps), (), generator=generator))
        out = model(x, rate, keep=keep)
        mse = F.mse_loss(out.pixels, x)
        loss = mse + config.beta * out.commitment / 3
        if rate is not None:
            # All lambdas should pull equally hard: distortion grows about as sqrt(lambda).
            loss = (loss + rate.lagrangian * out.bits / 3) * (config.lagrangian(MIDDLE) / rate.lagrangian) ** 0.5
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SystemExit(f"stage 1: the loss is {value} at step {step}; resume from {path.name} with a lower learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        step += 1
        with torch.no_grad():
            weight = 1 - min(recipe.average, (step + 1) / (step + 10))
            for a, m in zip(average.parameters(), model.parameters()):
                a.lerp_(m, weight)
        window += float(mse.detach())
        if step % 100 == 0:
            seconds = (time.monotonic() - begun) / 100
            print(f"step {step} {seconds:.3f} s/step psnr {-10 * math.log10(window / 100):.2f}", flush=True)
            begun, window = time.monotonic(), 0.0
        if step % recipe.save_every == 0 or step == recipe.steps:
            copy_buffers(average, model)
            save()
            report(average, val, step)
            begun = time.monotonic()
    copy_buffers(average, model)
    return average.eval()


def copy_buffers(target: Autoencoder, source: Autoencoder) -> None:
    for a, m in zip(target.buffers(), source.buffers()):
        a.copy_(m)


@torch.no_grad()
def report(model: Autoencoder, val: Crops, step: int, pictures: int = 48) -> None:
    """Print PSNR, zero-order bits per pixel and codebook use at three rates on the validation set."""
    model.eval()
    index = np.linspace(0, len(val.pixels) - 1, pictures).astype(int)
    x = torch.from_numpy(val.pixels[index]).permute(0, 3, 1, 2).float().div(255)
    config = model.config
    for position in POSITIONS:
        rate = Rate.at(config, position)
        codes, squared = [[] for _ in config.maps], []
        for part in x.split(8):
            out = model(part, rate)
            error = (out.pixels.clamp(0, 1) - part).square().mean((1, 2, 3))
            squared += error.tolist()
            for maps, m in zip(codes, out.codes):
                maps.append(m.flatten())
        entropies = [entropy(torch.cat(maps), m.codes) for maps, m in zip(codes, config.maps)]
        bpp = sum(h / m.stride**2 for h, m in zip(entropies, config.maps))
        used = [int(torch.cat(maps).unique().numel()) for maps in codes]
        psnr = float(np.mean([-10 * math.log10(max(e, 1e-10)) for e in squared]))
        print(f"val step {step} rate {position}: {psnr:.2f} dB, {bpp:.3f} bpp zero-order, "
              f"bits {' '.join(f'{h:.2f}' for h in entropies)}, used {used}", flush=True)
    model.train()


def entropy(codes: Tensor, k: int) -> float:
    """Zero-order entropy in bits per code."""
    p = torch.bincount(codes, minlength=k).double()
    p = p[p > 0] / p.sum()
    return float(-(p * p.log2()).sum())
