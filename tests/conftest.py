"""Shared fixtures: a synthetic image, and a small model built in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.support import cuda_core
from tests.support.networks import random_prior
from training.export import export
from training.networks.autoencoder import Autoencoder
from training.networks.quantizer import Rate
from vqcodec.model import file
from vqcodec.model.config import preset
from vqcodec.model.file import Model
from vqcodec.ops import cpu


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A synthetic image, H x W x 3 uint8: gradients, an edge, a disc, texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    picture = np.stack([0.5 + 0.4 * np.sin(x * a + seed) * np.cos(y * b) for a, b in ((1, 2), (1.5, 1), (0.7, 2.5))], 2)
    picture[(x - 1.5) ** 2 + (y - 1) ** 2 < 0.5] = (0.9, 0.3, 0.1)
    picture[:, width // 3 : width // 3 + 3] *= 0.4
    picture += rng.normal(0, 0.02, picture.shape)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def build_small_model(path: Path) -> Model:
    """A model file of the tiny preset: a transform codec with random priors."""
    config = dataclasses.replace(preset("tiny"), classes=("cat", "dog", "owl"))
    auto = config.autoencoder
    torch.manual_seed(0)
    autoencoder = Autoencoder(auto)
    pictures = torch.from_numpy(np.stack([scene(128, 128, s) for s in range(4)])).permute(0, 3, 1, 2).float() / 255
    autoencoder.start(pictures, Rate.at(auto, 0.6))
    priors = [
        random_prior(p, auto.maps[: m + 1], m, classes=3, levels=auto.levels) for m, p in enumerate(config.priors)
    ]
    export(path, config, autoencoder, priors, card={"data": "synthetic"})
    return file.load(path)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu", action="store_true", help="run the CUDA kernels on the GPU instead of compiling them for the CPU"
    )


@pytest.fixture(scope="session")
def host_core() -> ModuleType:
    """The CUDA kernels compiled for the CPU."""
    return cuda_core.build()


@pytest.fixture(scope="module")
def cuda_kernels(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The CUDA kernels behind `backend="cuda"`: on the GPU with --gpu, else compiled for the CPU."""
    if request.config.getoption("--gpu"):
        yield cpu.cuda_core()
        return
    core = request.getfixturevalue("host_core")
    with pytest.MonkeyPatch.context() as patch:
        cuda_core.use(core, patch)
        yield core
    cuda_core.forget()


@pytest.fixture(autouse=True)
def subnormals() -> Iterator[None]:
    """Training turns subnormal numbers off, for the whole thread: other tests need them."""
    yield
    torch.set_flush_denormal(False)
