"""Stage 1: train the autoencoder (VQ-VAE-2, algorithm 1) with a rate term.

The loss per pixel is

    mean squared error + (beta * commitment + lambda * bits) / 3

with lambda drawn per batch over the whole quality range, so that one model serves
all qualities, and with the finer maps dropped now and then, so that every prefix of
the maps is an image. The last part of the training computes what the exported integer
networks compute (:mod:`training.networks.fixed_point`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import checkpoint, distributed, perceptual
from training.data import Crops
from training.deadline import FOREVER, Deadline, TimeIsUp
from training.networks.autoencoder import Autoencoder, IntegerTensors
from training.networks.quantizer import Rate
from training.progress import Progress
from training.recipe import Stage1
from vqcodec.model.config import AutoencoderConfig

#: The rate position at which codebooks start and losses have weight 1.
MIDDLE = 0.6
#: How many images choose the formats of planes, and their side.
CALIBRATION, CALIBRATION_SIDE = 64, 256
#: Rate positions that reports show.
POSITIONS = (0.2, 0.5, 0.8)


def batch(crops: Crops, size: int, side: int, generator: torch.Generator, share: slice = slice(None)) -> Tensor:
    """B x 3 x side x side in [0, 1], random crops, half of them mirrored: the ``share`` of ``size`` of them."""
    limit = crops.pixels.shape[1] - side
    if limit < 0:
        raise SystemExit(f"training crops of {side} cannot be cut from crops of {crops.pixels.shape[1]} pixels")
    index, ys, xs, mirror = (
        torch.randint(0, n, (size,), generator=generator)[share].tolist()
        for n in (len(crops.pixels), limit // 8 + 1, limit // 8 + 1, 2)
    )
    parts = []
    for i, y, x, m in zip(index, ys, xs, mirror):
        part = crops.pixels[i, y * 8 : y * 8 + side, x * 8 : x * 8 + side]
        parts.append(part[:, ::-1] if m else part)
    pixels = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)
    return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


def draw_rate(config: AutoencoderConfig, generator: torch.Generator) -> Rate | None:
    """A rate from the whole range, uniform on the logarithmic scale."""
    return Rate.at(config, float(torch.rand((), generator=generator)))


@dataclass
class Run:
    """Everything that a checkpoint holds."""

    model: Autoencoder
    average: Autoencoder  #: moving average of the weights: what is shipped
    optimizer: torch.optim.Optimizer
    path: Path
    step: int = 0

    def share_buffers(self) -> None:
        """Give the average the codebooks and the formats of planes, which are not averaged."""
        for a, m in zip(self.average.buffers(), self.model.buffers()):
            a.copy_(m)
        self.average.quantized = self.model.quantized

    def save(self) -> None:
        self.share_buffers()
        if distributed.first():
            checkpoint.save(
                self.path,
                dict(
                    model=self.model.state_dict(),
                    average=self.average.state_dict(),
                    optimizer=self.optimizer.state_dict(),
                    step=self.step,
                ),
            )

    def resume(self) -> bool:
        state = checkpoint.load(self.path)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True


def trained(config: AutoencoderConfig, work: Path) -> Autoencoder:
    """The averaged weights of the checkpoint in ``work``, ready to encode."""
    state = checkpoint.load(work / "autoencoder.pt")
    if state is None:
        raise SystemExit(f"no autoencoder.pt in {work}: train stage 1 first")
    model = Autoencoder(config)
    model.load_state_dict(state["average"])
    model.quantized = True
    return model.eval().requires_grad_(False)


def train(
    config: AutoencoderConfig,
    recipe: Stage1,
    crops: Crops,
    val: Crops,
    work: Path,
    seed: int,
    device: torch.device | str = "cpu",
    model: IntegerTensors | None = None,
    deadline: Deadline = FOREVER,
) -> Autoencoder:
    """Train, or go on from ``work/autoencoder.pt``; returns the averaged (EMA) weights.

    ``model``: the arrays of an exported autoencoder to start from. What is drawn at random in a step depends on ``seed``, the step and the rank alone.
    """
    device = torch.device(device)
    torch.manual_seed(seed)
    network, average = (Autoencoder(config).to(device, memory_format=torch.channels_last) for _ in range(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    run = Run(network, average, optimizer, work / "autoencoder.pt")
    if not run.resume():
        generator = torch.Generator().manual_seed(seed)
        images = batch(crops, 120, min(256, crops.pixels.shape[1]), generator).to(device)
        network.start(images, Rate.at(config, MIDDLE), model)
    replicas = distributed.parallel(network, unused=recipe.drop_maps > 0)
    if run.step == 0:
        average.load_state_dict(network.state_dict())
    progress = Progress(work, "stage 1", run.step)
    if distributed.first():
        report(average, val, run.step, progress)
    window, worst = 0.0, 0.0
    network.train()
    while run.step < recipe.steps:
        mse = train_step(run, replicas, crops, recipe, seed)
        window, worst = window + mse, max(worst, mse)
        if run.step % 100 == 0:
            psnr = -10 * math.log10(max(window / 100, 1e-10))
            progress.line(run.step, f"psnr {psnr:.2f}, worst batch {-10 * math.log10(max(worst, 1e-10)):.2f}")
            progress.scalars(run.step, {"train/psnr": psnr})
            window = worst = 0.0
        if run.step % recipe.save_every == 0 or run.step == recipe.steps:
            run.save()
            if distributed.first():
                report(average, val, run.step, progress)
            progress.begin(run.step)
        elif deadline.passed():
            run.save()
            raise TimeIsUp
    progress.close()
    average.quantized = True
    return average.eval()


def train_step(run: Run, network: nn.Module, crops: Crops, recipe: Stage1, seed: int) -> float:
    """One step; returns the mean squared error of this rank's share of the batch."""
    config, step = run.model.config, run.step
    generator = torch.Generator().manual_seed((seed << 32) + step)  # the same on every rank
    torch.manual_seed((seed << 32) + step * distributed.world() + distributed.rank())
    x = batch(crops, recipe.batch, recipe.crop, generator, distributed.share(recipe.batch))
    x = x.to(next(run.model.parameters()).device, non_blocking=True)
    rate = draw_rate(config, generator)
    keep = None
    if float(torch.rand((), generator=generator)) < recipe.drop_maps:
        keep = int(torch.randint(1, len(config.maps), (), generator=generator))
    quantize(run, crops, recipe, seed)
    bfloat16 = x.is_cuda and torch.cuda.is_bf16_supported() and not run.model.quantized
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        out = network(x, rate, keep=keep)
    pixels = out.pixels.float()
    distortion = mse = F.mse_loss(pixels, x)
    if recipe.perceptual:
        distortion = torch.lerp(mse, perceptual.distortion(pixels, x), recipe.perceptual)
    loss = distortion + config.beta * out.commitment / 3
    if rate is not None:
        # All lambdas should pull equally hard: distortion grows about as sqrt(lambda).
        loss = (loss + rate.lagrangian * out.bits / 3) * (config.lagrangian(MIDDLE) / rate.lagrangian) ** 0.5
    value = distributed.mean(float(loss.detach()))
    if not math.isfinite(value):
        raise SystemExit(
            f"stage 1: the loss is {value} at step {step}; resume from {run.path.name} with a lower learning rate"
        )
    scale = min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate * scale + 1e-6
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.optimizer.step()
    run.step += 1
    weight = 1 - min(recipe.average, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for a, m in zip(run.average.parameters(), run.model.parameters()):
            a.lerp_(m, weight)
    return float(mse.detach())


def quantize(run: Run, crops: Crops, recipe: Stage1, seed: int) -> None:
    """Round as integer networks do from the step on that the recipe says, in formats that are chosen at that step."""
    first = min(math.ceil(recipe.quantize_from * recipe.steps), recipe.steps - 1)
    if run.step == first:
        generator = torch.Generator().manual_seed(seed)
        images = batch(crops, CALIBRATION, min(CALIBRATION_SIDE, crops.pixels.shape[1]), generator)
        run.model.calibrate(images.to(next(run.model.parameters()).device))
    run.model.quantized = run.step >= first


@torch.no_grad()
def report(model: Autoencoder, val: Crops, step: int, progress: Progress, pictures: int = 48) -> None:
    """PSNR, zero-order bits per pixel and the use of the codebooks at some rates on the validation set."""
    model.eval()
    config = model.config
    x = validation(val, pictures).to(next(model.parameters()).device)
    for position in POSITIONS if config.null_code else POSITIONS[:1]:
        rate = Rate.at(config, position)
        codes: list[list[Tensor]] = [[] for _ in config.maps]
        squared, shown = [], []
        for part in x.split(8):
            out = model(part, rate)
            decoded = out.pixels.float().clamp(0, 1)
            squared += (decoded - part).square().mean((1, 2, 3)).tolist()
            shown.append(decoded[:1])
            for maps, found in zip(codes, out.codes):
                maps.append(found.flatten().cpu())
        entropies = [entropy(torch.cat(maps), m.codes) for maps, m in zip(codes, config.maps)]
        bpp = sum(h / m.stride**2 for h, m in zip(entropies, config.maps))
        dead = [m.codes - int(torch.cat(maps).unique().numel()) for maps, m in zip(codes, config.maps)]
        psnr = float(np.mean([-10 * math.log10(max(e, 1e-10)) for e in squared]))
        progress.say(
            f"val step {step} rate {position}: {psnr:.2f} dB, {bpp:.3f} bpp zero-order, "
            f"bits {' '.join(f'{h:.2f}' for h in entropies)}, unused codes {' '.join(map(str, dead))}"
        )
        curves = {f"val/psnr/{position}": psnr, f"val/bpp zero-order/{position}": bpp}
        for number, (h, d) in enumerate(zip(entropies, dead)):
            curves[f"perplexity/map {number}/{position}"] = 2**h
            curves[f"unused codes/map {number}/{position}"] = d
        progress.scalars(step, curves)
        progress.pictures(step, f"reconstructions/{position}", torch.cat([x[::8], *shown]), len(shown))
    model.train()


def validation(val: Crops, pictures: int) -> Tensor:
    """N x 3 x H x W in [0, 1]: pictures spread evenly over the validation set."""
    index = np.unique(np.linspace(0, len(val.pixels) - 1, pictures).astype(int))
    return torch.from_numpy(val.pixels[index]).permute(0, 3, 1, 2).float().div(255)


def entropy(codes: Tensor, k: int) -> float:
    """Zero-order entropy in bits per code."""
    p = torch.bincount(codes, minlength=k).double()
    p = p[p > 0] / p.sum()
    return float(-(p * p.log2()).sum())
