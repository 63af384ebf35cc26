"""Train a model from a recipe: ``python -m training RECIPE --data ROOT --work DIR``.

The stages run one after the other and each goes on from its checkpoint in DIR, so the
same command resumes after a kill at any moment.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from training import autoencoder, data, priors, recipe
from training.export import export
from vqcodec.models.config import preset


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("recipe", type=Path, help="TOML file, see training/recipes")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>, val/<class>, photos")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches and checkpoints")
    parser.add_argument("--maps", type=map_range, metavar="A:B",
                        help="train only the priors of maps A to B - 1 and stop: the rest may run in another process")
    parser.add_argument("--threads", type=int, help="threads of this process (default: all cores)")
    parser.add_argument("--out", type=Path, help="model file to write (default: DIR/model.safetensors)")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    plan = recipe.load(args.recipe)
    args.work.mkdir(parents=True, exist_ok=True)
    train, val = (data.load(args.data, split, args.work) for split in ("train", "val"))
    print(f"{len(train.pixels)} training crops, {len(val.pixels)} for validation", flush=True)
    config = dataclasses.replace(preset(plan.preset), classes=train.classes)
    stage1 = autoencoder.train(config.autoencoder, plan.stage1, train, val, args.work, plan.seed)
    everything = range(len(config.priors))
    stage2 = priors.train(config, stage1, plan.stage2, train, val, args.work, plan.seed, args.maps or everything)
    if args.maps:
        return
    out = args.out or args.work / "model.safetensors"
    export(out, config, stage1, stage2, card=plan.card)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", flush=True)


def map_range(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


if __name__ == "__main__":
    main()
