"""Includes of the C++ core: one rule per folder, checked per file, and no cycles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "csrc"

# What the files of a folder may include, besides their own folder's.
FOLDERS = {
    "base": [],
    "coding": ["base"],
    "nn": ["base"],
    "model": ["base", "nn"],
    "quantizer": ["base", "nn"],
    "network": ["base", "nn", "model"],
    "autoencoder": ["base", "coding", "nn", "model", "network"],
    "prior": ["base", "coding", "nn", "model"],
    "residual": ["base", "coding", "nn"],
    "cuda": ["base", "coding", "nn", "model", "quantizer", "network", "autoencoder", "prior"],
    "bindings": ["base", "coding", "nn", "model", "quantizer", "network", "autoencoder", "prior", "residual", "cuda"],
}

# Files with flags of an instruction set, and all that they include, may use no more than this: what
# else has inline functions, of which the linker may keep the copy that runs on some processors only.
HARMLESS = {"cstddef", "cstdint", "immintrin.h", "arm_neon.h"}


def sources() -> list[Path]:
    return sorted(path for path in CORE.rglob("*") if path.is_file())


every_source = pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(CORE)))


def includes(path: Path) -> Iterator[str]:
    yield from re.findall(r'^\s*#\s*include\s*["<]([^">]+)[">]', path.read_text(encoding="utf-8"), re.MULTILINE)


def own(path: Path) -> list[Path]:
    """The files of the core that a file includes."""
    return [CORE / name for name in includes(path) if (CORE / name).exists()]


def folder(path: Path) -> str:
    return path.relative_to(CORE).parts[0]


@every_source
def test_includes_point_down(path):
    allowed = {folder(path), *FOLDERS[folder(path)]}
    for found in own(path):
        assert folder(found) in allowed, f"{path} includes {found}"


@every_source
def test_only_the_bindings_know_python(path):
    names = [name for name in includes(path) if name.startswith(("pybind11", "Python.h", "torch", "ATen"))]
    assert folder(path) == "bindings" or not names
    assert all(name.startswith("pybind11") for name in names)


@every_source
def test_only_the_gpu_knows_cuda(path):
    assert "cuda_runtime.h" not in includes(path) or folder(path) == "cuda" or path.name == "cuda.cpp"


def test_no_cycles():
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        names = [str(each.relative_to(CORE)) for each in (*above, path)]
        assert path not in above, f"include cycle: {' -> '.join(names)}"
        if path not in done:
            for below in own(path):
                visit(below, (*above, path))
            done.add(path)

    for path in sources():
        visit(path, ())


@pytest.mark.parametrize("name", ["kernels_avx2.cpp", "kernels_avx512.cpp", "kernels_neon.cpp"])
def test_instruction_sets_share_no_inline_functions(name):
    reached = {CORE / "nn" / name}
    while more := {below for path in reached for below in own(path)} - reached:
        reached |= more
    foreign = {each for path in reached for each in includes(path) if not (CORE / each).exists()}
    assert foreign <= HARMLESS
