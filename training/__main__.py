"""Train a model from a recipe:

    python -m training RECIPE --data ROOT --work DIR [STAGE ...]

Stages, in order; all of them if none is named:

    autoencoder   stage 1, algorithm 1 of VQ-VAE-2
    codes         the training pictures as code maps
    priors        stage 2, algorithm 2: one prior per map
    export        the model file: all networks in integers

Each goes on from its checkpoint in DIR, so the same command resumes after a kill at any moment.
`python -m training.evaluate` measures the model file. On several GPUs:
`torchrun --nproc-per-node 8 -m training RECIPE --device cuda ...`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from training import autoencoder, codes, data, distributed, priors, recipe
from training.deadline import Deadline, TimeIsUp
from training.export import export
from training.pack import unpacked
from vqcodec.model import file
from vqcodec.model.config import preset

STAGES = ("autoencoder", "codes", "priors", "export")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="TOML file, see training/recipes")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="autoencoder, codes, priors, export")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="pictures: a folder (training/data.py) or a packed file (training/pack.py)",
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for caches and checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--maps",
        type=map_range,
        metavar="A:B",
        help="train only the priors of maps A to B - 1: the rest may run in another process",
    )
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="go on from the networks of this model file; default: of the shipped one",
    )
    parser.add_argument("--minutes", type=float, help="stop within this time, with everything saved")
    parser.add_argument("--threads", type=int, help="threads of this process (default: all cores)")
    parser.add_argument("--out", type=Path, help="model file to write (default: DIR/model.safetensors)")
    args = parser.parse_intermixed_args()
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"unknown stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    stages = args.stages or (STAGES[:3] if args.maps else STAGES)
    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    plan = recipe.load(args.recipe)
    device = distributed.start(args.device)
    try:
        run(plan, args, stages, device)
    except TimeIsUp:
        if distributed.first():
            print(f"stopped after {args.minutes:g} minutes; the same command goes on", flush=True)
    finally:
        distributed.stop()


def run(
    plan: recipe.Recipe, args: argparse.Namespace, stages: tuple[str, ...] | list[str], device: torch.device
) -> None:
    deadline = Deadline(args.minutes)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    options = dataclasses.asdict(plan.data)
    distributed.alone(lambda: unpacked(args.data, work))
    root = unpacked(args.data, work)
    distributed.alone(lambda: [data.load(root, split, work, **options) for split in ("train", "val")])
    train, val = (data.load(root, split, work, **options) for split in ("train", "val"))
    if distributed.first():
        print(f"{len(train.pixels)} training crops, {len(val.pixels)} for validation", flush=True)
    model = file.load(args.model if args.model != "default" else None).tensors if args.model else {}
    config = dataclasses.replace(preset(plan.preset), classes=train.classes)
    if "autoencoder" in stages:
        known = {name.removeprefix("autoencoder/"): array for name, array in model.items()}
        autoencoder.train(config.autoencoder, plan.stage1, train, val, work, plan.seed, device, known or None, deadline)
    distributed.wait()
    stage1 = autoencoder.trained(config.autoencoder, work).to(device)
    if "codes" in stages:
        codes.extract(stage1, plan.codes, train, work, plan.seed, deadline)
    if "priors" in stages:
        maps = args.maps or range(len(config.priors))
        priors.train(config, stage1, plan.stage2, codes.load(work), val, work, plan.seed, maps, model, deadline)
    if "export" in stages and distributed.first():
        out = args.out or work / "model.safetensors"
        stage2 = [priors.trained(config, work, m) for m in range(len(config.priors))]
        export(out, config, stage1.cpu(), stage2, card=plan.card)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", flush=True)


def map_range(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


if __name__ == "__main__":
    main()
