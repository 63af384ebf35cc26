"""Run by `torchrun` for test_distributed: trains as one of several processes and stores what it ends with."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from training import autoencoder, codes, data, distributed, priors, recipe
from vqcodec.model.config import CodeMap, preset
from vqcodec.networks.quantizer import Quantizer, Rate


def main(pictures: Path, work: Path) -> None:
    torch.set_num_threads(1)
    distributed.start("cpu")
    rank = distributed.rank()
    plan = recipe.load(Path(__file__).parents[2] / "training" / "recipes" / "tiny.toml")
    distributed.alone(lambda: data.load(pictures, "train", work))
    crops = data.load(pictures, "train", work)

    # The quantiser alone: the first half of some vectors here, the second there.
    torch.manual_seed(0)
    quantizer = Quantizer(CodeMap(8, 3, 16), decay=0.9, null_code=True, levels=2).train()
    quantizer.reset(torch.randn(16, 3))
    z = torch.randn(4, 3, 8, 8)
    torch.manual_seed(rank)  # what each rank would revive differs
    quantizer(z[distributed.share(4)], Rate(0.01, 1))
    torch.save(quantizer.state_dict(), work / f"quantizer.{rank}.pt")

    config = dataclasses.replace(preset("tiny"), classes=crops.classes)
    model = autoencoder.train(config.autoencoder, plan.stage1, crops, crops, work, plan.seed)
    codes.extract(model.requires_grad_(False), plan.codes, crops, work, plan.seed)
    priors.train(config, model, plan.stage2, codes.load(work), crops, work, plan.seed, [0, 3])
    torch.save(model.state_dict(), work / f"average.{rank}.pt")
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
