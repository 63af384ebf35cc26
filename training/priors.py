"""Stage 2: train one prior per code map (VQ-VAE-2, algorithm 2) on the codes of training/codes.py.

The first part of the training runs in float (bfloat16 where the processor has it), the rest with
fake quantisation, which computes exactly what the exported integer network computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import checkpoint, distributed
from training.autoencoder import POSITIONS, entropy, validation
from training.codes import CodeMaps
from training.data import Crops
from training.deadline import FOREVER, Deadline, TimeIsUp
from training.muon import Muon
from training.networks.autoencoder import Autoencoder
from training.networks.prior import Prior, QuantizedConv2d
from training.networks.quantizer import Rate
from training.progress import Progress
from training.recipe import Stage2, of_map
from vqcodec.model.config import ModelConfig


@dataclass
class Run:
    """The training of one map's prior: everything that a checkpoint holds."""

    prior: Prior
    average: Prior  #: moving average of the weights: what is shipped
    optimizers: tuple[torch.optim.Optimizer, ...]
    path: Path
    steps: int
    batch: int
    step: int = 0
    network: nn.Module | None = None  #: the prior, with gradients averaged over the ranks

    def save(self) -> None:
        if distributed.first():
            checkpoint.save(
                self.path,
                dict(
                    prior=self.prior.state_dict(),
                    average=self.average.state_dict(),
                    optimizers=[o.state_dict() for o in self.optimizers],
                    step=self.step,
                ),
            )

    def resume(self) -> None:
        if state := checkpoint.load(self.path):
            self.prior.load_state_dict(state["prior"])
            self.average.load_state_dict(state["average"])
            for optimizer, found in zip(self.optimizers, state["optimizers"]):
                optimizer.load_state_dict(found)
            self.step = state["step"]


def start(
    config: ModelConfig,
    autoencoder: Autoencoder,
    recipe: Stage2,
    m: int,
    work: Path,
    seed: int,
    model: Mapping[str, np.ndarray],
) -> Run:
    """The training of map ``m``: fresh, from ``model`` if it has the map, or as far as its checkpoint in ``work``."""
    torch.manual_seed(seed + 1000 * m)
    auto = config.autoencoder
    device = next(autoencoder.parameters()).device
    prior, average = (
        Prior(config.priors[m], auto.maps[: m + 1], len(config.classes), auto.levels).to(
            device, memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    prior.start([q.codebook for q in autoencoder.quantizers[: m + 1]], autoencoder.quantizers[m].usage.mean(0))
    prefix = f"prior.{m}/"
    if known := {name.removeprefix(prefix): array for name, array in model.items() if name.startswith(prefix)}:
        prior.restore(known)
    average.load_state_dict(prior.state_dict())
    run = Run(
        prior,
        average,
        optimizers(prior, recipe),
        work / f"prior.{m}.pt",
        of_map(recipe.steps, m),
        of_map(recipe.batch, m),
    )
    run.resume()
    run.network = distributed.parallel(prior)
    return run


def optimizers(prior: Prior, recipe: Stage2) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the convolutions before the logits, Adam for the logits, embeddings and biases."""
    matrices = [
        module.weight
        for module in prior.modules()
        if isinstance(module, QuantizedConv2d) and module is not prior.logits
    ]
    known = set(matrices)
    rest = [parameter for parameter in prior.parameters() if parameter not in known]
    return Muon(matrices, lr=recipe.matrix_rate), torch.optim.Adam(rest, lr=recipe.learning_rate, betas=(0.9, 0.98))


def trained(config: ModelConfig, work: Path, m: int) -> Prior:
    """The averaged weights in ``work`` of the prior of map ``m``, quantised."""
    state = checkpoint.load(work / f"prior.{m}.pt")
    if state is None:
        raise SystemExit(f"no prior.{m}.pt in {work}: train stage 2 first")
    prior = Prior(config.priors[m], config.autoencoder.maps[: m + 1], len(config.classes), config.autoencoder.levels)
    prior.load_state_dict(state["average"])
    prior.quantized = True
    return prior.eval().requires_grad_(False)


def train(
    config: ModelConfig,
    autoencoder: Autoencoder,
    recipe: Stage2,
    codes: CodeMaps,
    val: Crops,
    work: Path,
    seed: int,
    maps: Sequence[int],
    model: Mapping[str, np.ndarray] | None = None,
    deadline: Deadline = FOREVER,
) -> None:
    """Train the priors of ``maps``, or go on from their checkpoints; ``model``: arrays of a model file to start from.

    The batch of a step depends on ``seed`` and the step alone, so that the maps can be
    trained in one process or in several with the same result.
    """
    runs = {m: start(config, autoencoder, recipe, m, work, seed, model or {}) for m in maps}
    window = dict.fromkeys(maps, 0.0)
    first = min(run.step for run in runs.values())
    progress = Progress(work, "stage 2", first)
    for step in range(first, max(run.steps for run in runs.values())):
        for m, run in runs.items():
            if run.step == step < run.steps:
                window[m] += train_step(run, m, codes, recipe, seed)
        done = step + 1
        if done % 100 == 0:
            bits = {m: b / 100 for m, b in window.items()}
            progress.line(done, "bits " + " ".join(f"{m}:{b:.3f}" for m, b in bits.items()))
            progress.scalars(done, {f"train/bits per code/map {m}": b for m, b in bits.items()})
            window = dict.fromkeys(maps, 0.0)
        if done % recipe.save_every == 0 or done in {run.steps for run in runs.values()}:
            for run in runs.values():
                run.save()
            if distributed.first():
                report(config, autoencoder, {m: run.average for m, run in runs.items()}, val, done, progress)
            progress.begin(done)
        elif deadline.passed():
            for run in runs.values():
                run.save()
            raise TimeIsUp
    progress.close()


def train_step(run: Run, m: int, codes: CodeMaps, recipe: Stage2, seed: int) -> float:
    """One step of map ``m``; returns the loss in bits per code."""
    prior, step = run.prior, run.step
    device = next(prior.parameters()).device
    prior.quantized = step >= recipe.quantize_from * run.steps
    bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    own, labels, levels = batch(codes, run.batch, recipe.drop_class, m + 1, seed, step, device)
    torch.manual_seed((seed << 32) + step * distributed.world() + distributed.rank())  # of dropout
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    micro, total = recipe.micro_batch or len(labels), 0.0
    for part in torch.arange(len(labels), device=device).split(micro):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and not prior.quantized):
            logits = run.network(own[m][part], [each[part] for each in own[:m]], labels[part], levels[part])
        loss = cross_entropy(logits.float(), own[m][part]) * (len(part) / len(labels))
        total += float(loss.detach())
        loss.backward()
    value = distributed.mean(total)
    if not math.isfinite(value):
        raise SystemExit(f"stage 2, map {m}: the loss is {value} at step {step}; resume with a lower learning rate")
    scale = min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / run.steps))
    nn.utils.clip_grad_norm_(prior.parameters(), recipe.clip)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * scale + 1e-6
        optimizer.step()
    run.step += 1
    weight = 1 - min(recipe.average, (run.step + 1) / (run.step + 10))
    with torch.no_grad():
        for a, p in zip(run.average.parameters(), prior.parameters()):
            a.lerp_(p, weight)
    return value / math.log(2)


def cross_entropy(logits: Tensor, codes: Tensor, reduction: str = "mean") -> Tensor:
    """In nats, of logits B x K x H x W; the codes of a position lie side by side, which is faster."""
    return F.cross_entropy(logits.permute(0, 2, 3, 1).flatten(0, 2), codes.flatten(), reduction=reduction)


def batch(
    codes: CodeMaps, size: int, drop_class: float, maps: int, seed: int, step: int, device: torch.device
) -> tuple[list[Tensor], Tensor, Tensor]:
    """This rank's share of a batch: code maps (B x h x w each), class numbers (B) and rate levels (B)."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    index = torch.randint(0, len(codes), (size,), generator=generator)
    known = torch.rand(size, generator=generator) >= drop_class
    share = distributed.share(size)
    found, labels, levels = codes.rows(index[share].numpy(), maps, device)
    return found, labels * known[share].to(device), levels


@torch.no_grad()
def report(
    config: ModelConfig,
    autoencoder: Autoencoder,
    priors: Mapping[int, Prior],
    val: Crops,
    step: int,
    progress: Progress,
    pictures: int = 48,
) -> None:
    """Bits per pixel of some maps on the validation set: zero-order, float prior, quantised prior."""
    auto = config.autoencoder
    x = validation(val, pictures).to(next(autoencoder.parameters()).device)
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for position in POSITIONS if auto.null_code else POSITIONS[:1]:
        rate = Rate.at(auto, position)
        codes = [torch.cat(parts) for parts in zip(*(autoencoder.encode(part, rate) for part in x.split(8)))]
        level = torch.full_like(labels, rate.level if rate else 0)
        area = {m: auto.maps[m].stride ** 2 for m in priors}
        zero = {m: entropy(codes[m].flatten().cpu(), auto.maps[m].codes) for m in priors}
        bits: dict[bool, dict[int, float]] = {False: {}, True: {}}
        for quantized, found in bits.items():
            for m, prior in priors.items():
                prior.quantized = quantized
                prior.eval()
                nats = [
                    float(
                        cross_entropy(
                            prior(codes[m][i], [c[i] for c in codes[:m]], labels[i], level[i]),
                            codes[m][i],
                            reduction="sum",
                        )
                    )
                    for i in torch.arange(len(x)).split(8)
                ]
                found[m] = sum(nats) / codes[m].numel() / math.log(2)
        total = [sum(each[m] / area[m] for m in priors) for each in (zero, bits[False], bits[True])]
        progress.say(
            f"val step {step} rate {position}: zero-order {total[0]:.4f} bpp, float {total[1]:.4f}, "
            f"integer {total[2]:.4f} ({100 * (1 - total[2] / total[0]):.1f} % fewer), bits "
            + " ".join(f"{m}:{b:.3f}/{zero[m]:.3f}" for m, b in bits[True].items())
        )
        progress.scalars(step, {f"val/bits per code/map {m}/{position}": b for m, b in bits[True].items()})
