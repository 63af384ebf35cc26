"""Imports: one rule per folder says what its files may import, there are no cycles between files, and light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vqcodec"

# What the files of a folder (or a single file) may import of vqcodec: folders and files by their names.
FOUNDATION = {"errors", "locks", "tiling", "__init__"}
RULES = {
    "errors": set(),
    "locks": set(),
    "tiling": set(),
    "__init__": set(),  # what it exports is loaded on demand
    "format": FOUNDATION | {"format"},  # bytes, not what they mean
    "model": FOUNDATION | {"model"},  # descriptions and integer tensors; never torch
    "ops": FOUNDATION | {"ops", "model", "_native"},
    "codec": FOUNDATION | {"codec", "format", "model", "ops"},
    "api": FOUNDATION | {"codec", "format", "model"},
    "tools/files": FOUNDATION,
    "tools/pool": FOUNDATION,
    "pillow": FOUNDATION | {"api", "codec", "format"},
    "batch": FOUNDATION | {"codec", "format", "tools/files", "tools/pool"},
    "ray": FOUNDATION | {"codec", "batch", "tools/files"},
    "tools": FOUNDATION | {"api", "batch", "codec", "format", "model", "ops", "tools"},
    "cli": FOUNDATION | {"api", "batch", "cli", "codec", "format", "tools"},
    "__main__": {"cli"},
}
#: The only files that may import torch, and the only importers of their folders.
TORCH = {"ops/torch_ops"}
SEAM = {"ops/torch_ops": {"ops/nearest"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """ "codec/engine" for vqcodec/codec/engine.py, "codec" for vqcodec/codec/__init__.py."""
    inside = path.relative_to(PACKAGE).with_suffix("")
    return "/".join(inside.parts[:-1] if inside.name == "__init__" and len(inside.parts) > 1 else inside.parts)


def imports(path: Path) -> Iterator[str]:
    """Names that a file imports anywhere, except imports for type checkers only: of vqcodec as files ("ops/cpu"), others dotted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (file_of(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                submodule = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").exists() or alias.name == "_native"
                yield file_of(f"{node.module}.{alias.name}" if is_module else node.module)


def file_of(dotted: str) -> str:
    first, *rest = dotted.split(".")
    return ("/".join(rest) or "__init__") if first == "vqcodec" else dotted


def own(name: str) -> bool:
    """Whether a name that is imported is a file or folder of the package."""
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() or name == "_native"


def covers(rule: str, name: str) -> bool:
    return name == rule or name.startswith(f"{rule}/")


def rule_of(name: str) -> str:
    """The most specific rule for a file."""
    found = [rule for rule in RULES if covers(rule, name)]
    assert found, f"vqcodec/{name}.py has no rule"
    return max(found, key=len)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_folder_keeps_its_rule(path):
    rule = rule_of(name_of(path))
    for name in filter(own, imports(path)):
        assert any(covers(allowed, name) for allowed in RULES[rule]), f"{name_of(path)} may not import {name}"


def test_no_cycle_runs_through_any_file():
    graph = {name_of(path): {name for name in imports(path) if own(name)} - {name_of(path)} for path in modules()}
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"import cycle: {' -> '.join([*above, name])}"
        if name not in done:
            for below in sorted(graph.get(name, ())):
                visit(below, (*above, name))
            done.append(name)

    for name in graph:
        visit(name, ())


@pytest.mark.slow
def test_torch_has_its_places():
    found = {name_of(path) for path in modules() if "torch" in {name.split(".")[0] for name in imports(path)}}
    assert all(any(covers(place, name) for place in TORCH) for name in found), found
    for room, importers in SEAM.items():
        users = {name_of(path) for path in modules() if any(covers(room, name) for name in imports(path))}
        assert {name for name in users if not covers(room, name)} == importers


def test_native_has_one_importer():
    assert {name_of(path) for path in modules() if "_native" in imports(path)} == {"ops/cpu"}


def test_vqcodec_imports_no_training_and_no_tests():
    for path in modules():
        assert not {"training", "tests"} & {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("vqcodec", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.cli", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.format.container", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.codec.images", {"torch", "constriction"}),
        ("vqcodec.codec.decoder", {"torch", "constriction"}),
        ("vqcodec.codec.codec", {"torch", "constriction"}),
        ("vqcodec.ops.range_coder", {"torch", "PIL"}),
        ("vqcodec.format.alpha", {"torch", "PIL"}),
        ("vqcodec.model.file", {"torch", "PIL"}),
    ],
)
def test_what_importing_loads(name, forbidden):
    script = f"import sys, {name}; sys.exit(' '.join({forbidden} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)


HEAVY = {"torch", "numpy", "PIL", "constriction", "matplotlib"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["compress", "--help"], ["info", "tests/golden/colour.vqc"]]
)
def test_commands_that_answer_at_once(arguments):
    script = f"""
import sys
from vqcodec.cli import main
try:
    status = main({arguments})
except SystemExit as end:
    status = end.code
assert status == 0, status
print(" ".join({HEAVY} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    "call",
    [
        "vqcodec.decompress(vqcodec.compress(pixels))",
        "vqcodec.compress(pixels, effort=0)",
        'vqcodec.sample("flower-roses", size=(64, 64))',
    ],
)
def test_images_do_without_torch(call):
    script = f"import sys, numpy, vqcodec; pixels = numpy.zeros((64, 64, 3), 'uint8'); {call}\n"
    script += "sys.exit(' '.join({'torch'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)
