"""Training in two processes (gloo): the ranks stay equal, and see what one process would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import scene
from training import checkpoint, distributed
from training.networks.quantizer import Quantizer, Rate
from vqcodec.model.config import CodeMap

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have trained."""
    root = tmp_path_factory.mktemp("two_ranks")
    for i in range(8):
        folder = root / "pictures" / ("cats", "dogs")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(256, 256, i)).save(folder / f"{i}.png")
    (root / "work").mkdir()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.support.two_ranks",
        root / "pictures",
        root / "work",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "work"


def assert_equal_states(a: dict, b: dict) -> None:
    assert a.keys() == b.keys() and a
    for name in a:
        np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), err_msg=name)


def test_ranks_end_with_the_same_autoencoder(work):
    """Weights and codebooks, dead codes moved and all."""
    assert_equal_states(*(torch.load(work / f"average.{rank}.pt") for rank in (0, 1)))


def test_ranks_end_with_the_same_codebook(work):
    assert_equal_states(*(torch.load(work / f"quantizer.{rank}.pt") for rank in (0, 1)))


def test_statistics_are_those_of_the_whole_batch(work):
    torch.manual_seed(0)
    quantizer = Quantizer(CodeMap(8, 3, 16), decay=0.9, null_code=True, levels=2).train()
    quantizer.reset(torch.randn(16, 3))
    quantizer(torch.randn(4, 3, 8, 8), Rate(0.01, 1))
    shared = torch.load(work / "quantizer.0.pt")
    alive = quantizer.count > 1e-4  # others may have been moved, at random
    assert alive.sum() > 8
    for name in ("count", "codebook", "total"):
        torch.testing.assert_close(shared[name][alive], quantizer.state_dict()[name][alive], rtol=1e-5, atol=1e-7)


def test_priors_are_trained(work):
    for m in (0, 3):
        state = checkpoint.load(work / f"prior.{m}.pt")
        assert state["step"] == 8 and all(bool(v.isfinite().all()) for v in state["average"].values())


def test_batches_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 3)
    with pytest.raises(SystemExit, match="a batch of 16 cannot be shared equally by 3 processes"):
        distributed.share(16)
