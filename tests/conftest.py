"""Shared fixtures: a synthetic image, a small model, the CUDA kernels.

Where a package is missing that only training and PyTorch's side need, the files that import it are left out
(`make test-runtime`).
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vqcodec.model import file
from vqcodec.model.file import Model

ROOT = Path(__file__).parents[1]
SMALL_MODEL = Path(__file__).parent / "support" / "small.safetensors"
#: What `compress`, `decompress` and `sample` do without.
OPTIONAL = ("pybind11", "ray", "safetensors", "torch", "torchmetrics")
MISSING = {name for name in OPTIONAL if importlib.util.find_spec(name) is None}
left_out: list[str] = []


@cache
def imported(path: Path) -> frozenset[str]:
    """The packages that a file imports when it is loaded, also by way of other files of tests and training."""
    found: set[str] = set()
    for node in ast.parse(path.read_bytes()).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            found.add(name.partition(".")[0])
            source = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith(("tests.", "training.")) and source.is_file() and source.name != "conftest.py":
                found |= imported(source)
    return frozenset(found)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if not MISSING or collection_path.suffix != ".py" or not MISSING & imported(collection_path):
        return None
    left_out.append(str(collection_path.relative_to(ROOT)))
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left_out:
        terminalreporter.write_line(f"without {', '.join(sorted(MISSING))}: left out {', '.join(sorted(left_out))}")


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A synthetic image, H x W x 3 uint8: gradients, an edge, a disc, texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    picture = np.stack([0.5 + 0.4 * np.sin(x * a + seed) * np.cos(y * b) for a, b in ((1, 2), (1.5, 1), (0.7, 2.5))], 2)
    picture[(x - 1.5) ** 2 + (y - 1) ** 2 < 0.5] = (0.9, 0.3, 0.1)
    picture[:, width // 3 : width // 3 + 3] *= 0.4
    picture += rng.normal(0, 0.02, picture.shape)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def small_model() -> Model:
    """See tests/support/small_model.py."""
    return file.load(SMALL_MODEL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu", action="store_true", help="run the CUDA kernels on the GPU instead of compiling them for the CPU"
    )


@pytest.fixture(scope="session")
def host_core() -> ModuleType:
    """The CUDA kernels compiled for the CPU."""
    from tests.support import cuda_core

    return cuda_core.build()


@pytest.fixture(scope="module")
def cuda_kernels(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The CUDA kernels behind `backend="cuda"`: on the GPU with --gpu, else compiled for the CPU."""
    from tests.support import cuda_core
    from vqcodec.ops import cpu

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
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
