"""Train the classifier that ships with the model: ``python -m training.classifier --data ROOT --work DIR --out FILE``.

A plain classifier of the training crops: random zoom, shift, mirror and colours, AdamW, one cosine. First a float
network with batch normalisation; then the fixed-point network that is folded from it, with the rounding of the
integers in it. Goes on from its checkpoints in DIR, so the same command resumes after a kill at any moment; the
batch of a step depends on the seed and the step alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import checkpoint, data
from training.data import Crops
from training.networks.classifier import FixedClassifier, FloatClassifier, folded
from training.networks.fixed_point import calibrate
from vqcodec.codec.classifier import Classifier
from vqcodec.model.classifier import ClassifierConfig, IntegerClassifier, build, save

BATCH = 64
FLOAT_RATE, FIXED_RATE = 3e-3, 3e-4
WARMUP = 200
SAVE_EVERY = 500
SIDE = ClassifierConfig.side

CARD = {
    "data": "the model's training crops that have a class",
    "licence": "weights Apache-2.0; pictures CC-BY 2.0 (flower-*), CC0 1.0 (clothing-*), MIT (grocery-*)",
}


def small(crops: Crops) -> tuple[Tensor, Tensor]:
    """N x 3 x 128 x 128 uint8 and class indices from 0, of the crops that have a class."""
    known = np.flatnonzero(crops.labels)
    parts = [
        F.interpolate(
            torch.from_numpy(crops.pixels[known[i : i + 64]]).permute(0, 3, 1, 2).float(), (SIDE, SIDE), mode="area"
        )
        .round_()
        .byte()
        for i in range(0, len(known), 64)
    ]
    return torch.cat(parts), torch.from_numpy(crops.labels[known] - 1)


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random zoom (1 to 1.5), shift, mirror, brightness, contrast and saturation: float, about [0, 1]."""
    n = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    zoom, x, y = uniform(1 / 1.5, 1), uniform(-1, 1), uniform(-1, 1)
    mirror = torch.where(uniform(0, 1) < 0.5, 1.0, -1.0)
    zero = torch.zeros_like(zoom)
    rows = [torch.cat(row, 3) for row in ((zoom * mirror, zero, x * (1 - zoom)), (zero, zoom, y * (1 - zoom)))]
    grid = F.affine_grid(torch.cat(rows, 2)[:, 0], [n, 3, SIDE, SIDE], align_corners=False)
    out = F.grid_sample(pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)
    grey, mean = out.mean(1, keepdim=True), out.mean((1, 2, 3), keepdim=True)
    out = grey + (out - grey) * uniform(0.7, 1.3)
    return (out - mean) * uniform(0.7, 1.3) + mean * uniform(0.8, 1.2)


def bytes_of(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1], and a little beyond, as the uint8 that the fixed-point network takes."""
    return (255 * pixels).round_().clamp_(0, 255).byte()


def optimize(
    network: nn.Module,
    logits_of: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    *,
    rate: float,
    steps: int,
    path: Path,
    seed: int,
) -> None:
    """Train for ``steps``, or go on from the checkpoint in ``path``."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}])
    done = 0
    if state := checkpoint.load(path):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    begun, window = time.monotonic(), 0.0
    network.train()
    for step in range(done, steps):
        scale = min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale + 1e-6
        generator = torch.Generator().manual_seed((seed << 32) + step)
        index = torch.randint(0, len(pixels), (BATCH,), generator=generator)
        x = augmented(pixels[index], generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(logits_of(x).float(), labels[index], label_smoothing=0.05)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SystemExit(f"classifier: the loss is {value} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        window += value
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            count, took = step % SAVE_EVERY + 1, time.monotonic() - begun
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(path, {**state, "step": step + 1})
            print(f"step {step + 1} {took / count:.3f} s/step, loss {window / count:.3f}", flush=True)
            begun, window = time.monotonic(), 0.0
    network.eval()


def train(
    crops: Crops, config: ClassifierConfig, steps: int, fixed_steps: int, work: Path, seed: int
) -> FixedClassifier:
    """The trained network."""
    pixels, labels = small(crops)
    torch.manual_seed(seed)
    network = FloatClassifier(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bfloat16 = torch.cpu._is_avx512_bf16_supported()

    def float_logits(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return network(x)

    optimize(network, float_logits, pixels, labels, rate=FLOAT_RATE, steps=steps, path=work / "float.pt", seed=seed)
    fixed = folded(network, config)
    some = pixels[:: max(1, len(pixels) // 256)]
    calibrate(fixed, lambda: fixed(some, quantized=False))
    fixed.align()
    optimize(
        fixed,
        lambda x: fixed(bytes_of(x)),
        pixels,
        labels,
        rate=FIXED_RATE,
        steps=fixed_steps,
        path=work / "fixed.pt",
        seed=seed + 1,
    )
    return fixed


def report(classifier: Classifier, crops: Crops) -> dict[str, Any]:
    """Accuracy on crops that it has not seen: all together, within the two best, and per class."""
    known = np.flatnonzero(crops.labels)
    labels = crops.labels[known] - 1
    order = np.argsort(-classifier.probabilities([crops.pixels[i] for i in known]), 1, kind="stable")
    right = order[:, 0] == labels
    return {
        "pictures": len(known),
        "accuracy": round(float(right.mean()), 4),
        "top2": round(float((order[:, :2] == labels[:, None]).any(1).mean()), 4),
        "per_class": {
            name: round(float(right[labels == i].mean()), 3)
            for i, name in enumerate(crops.classes)
            if (labels == i).any()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.classifier", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class> and val/<class>")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--cache", type=Path, help="folder of the decoded crops (default: DIR)")
    parser.add_argument("--out", type=Path, required=True, help="classifier to write")
    parser.add_argument("--steps", type=int, default=6000, help="of the float network (default: %(default)s)")
    parser.add_argument("--fixed-steps", type=int, default=2000, help="of the fixed-point one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of this process (default: all cores)")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    crops, val = (
        data.load(args.data, split, args.cache or args.work, photo_crops=0, lossless_crops=0)
        for split in ("train", "val")
    )
    config = ClassifierConfig(crops.classes)
    network = train(crops, config, args.steps, args.fixed_steps, args.work, args.seed)
    tensors = network.export()
    shipped = Classifier(IntegerClassifier(config, build(config, tensors), {}))
    card: dict[str, Any] = {
        **CARD,
        "pictures": int((crops.labels > 0).sum()),
        "steps": args.steps,
        "fixed_steps": args.fixed_steps,
        "seed": args.seed,
        "validation": report(shipped, val),
    }
    save(args.out, config, tensors, card)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB): {card['validation']}", flush=True)


if __name__ == "__main__":
    main()
