"""Imports point one way (top to bottom), and the light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vqcodec"

# Each module may import those in the lines below its own, and neighbours in the same line if
# that makes no cycle (which a test of its own looks for).
LAYERS = [
    ["__main__"],
    ["cli", "demo", "pillow", "batch", "ray", "compare", "bench"],
    ["api"],
    ["codec"],
    ["encoding", "decoding"],
    ["sampling"],
    ["checks", "engine", "geometry"],
    ["container", "reader", "alpha", "header", "wire", "entropy", "images", "files", "pool", "models"],
    ["ops"],
    ["models.integer", "models.arithmetic", "models.config"],  # what a model is; the others make one work
    ["_native"],
    ["errors", "__init__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Importing any of these must not bring in torch, however indirectly at import time.
LIGHT = [
    "container", "reader", "alpha", "header", "wire", "entropy", "images", "files", "errors", "cli/*", "ops/ref*", "ops/cuda",
    "ops/selftest", "models/integer", "models/arithmetic", "models/config",
]  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, except for type checkers only."""
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
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                submodule = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module or alias.name == "_native" else node.module


def part(name: str) -> str:
    """The entry of LAYERS that holds a dotted name: its module, else its package."""
    inside = name.split(".")[1:] or ["__init__"]
    both = ".".join(inside[:2])
    return both if both in RANK else inside[0]


def part_of(path: Path) -> str:
    return part("vqcodec." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = part_of(path)
    assert own in RANK, f"{own} has no place in LAYERS"
    for name in imports(path):
        if name.split(".")[0] != "vqcodec":
            continue
        assert RANK[own] <= RANK[part(name)], f"{own} imports {name}, which is above it"


def test_no_cycles():
    graph = {own: set() for own in RANK}
    for path in modules():
        found = {part(name) for name in imports(path) if name.split(".")[0] == "vqcodec"}
        graph[part_of(path)] |= found - {part_of(path)}
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"import cycle: {' -> '.join([*above, name])}"
        if name not in order:
            for below in sorted(graph[name]):
                visit(below, (*above, name))
            order.append(name)

    for name in graph:
        visit(name, ())


def test_vqcodec_imports_no_training_and_no_tests():
    for path in modules():
        assert not {"training", "tests"} & {name.split(".")[0] for name in imports(path)}, path


def test_benchmarks_are_imported_by_the_command_line_alone():
    for path in modules():
        if part_of(path) == "bench":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        outside = [ast.unparse(each) for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom))]
        assert not [each for each in outside if "vqcodec.tools.bench" in each], f"{path}: where it is used, not above"
        if part_of(path) != "cli":
            assert not [each for each in imports(path) if each.startswith("vqcodec.tools.bench")], path


def test_native_has_one_importer():
    found = {str(p.relative_to(PACKAGE)) for p in modules() if any("_native" in name for name in imports(p))}
    assert found == {"ops/native.py"}


def test_light_modules_name_no_torch():
    for pattern in LIGHT:
        for path in PACKAGE.glob(f"{pattern}.py"):
            assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("vqcodec", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.cli", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.format.container", {"torch", "numpy", "PIL", "constriction"}),
        ("vqcodec.codec.images", {"torch", "constriction"}),
        ("vqcodec.ops.range_coder", {"torch", "PIL"}),
        ("vqcodec.format.alpha", {"torch", "PIL"}),
    ],
)
def test_what_importing_loads(name, forbidden):
    script = f"import sys, {name}; sys.exit(' '.join({forbidden} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)


HEAVY = {"torch", "numpy", "PIL", "constriction", "safetensors", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compress", "--help"], ["info", "tests/golden/colour.vqc"]])
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


@pytest.mark.parametrize("call", ["vqcodec.decompress(vqcodec.compress(pixels))", "vqcodec.compress(pixels, effort=0)",
                                  'vqcodec.sample("flower-roses", size=(64, 64))'])
def test_pixels_do_without_the_compiler_of_torch(call):
    """torch imports its compiler and sympy lazily; together they take longer than torch itself."""
    script = f"import sys, numpy, vqcodec; pixels = numpy.zeros((64, 64, 3), 'uint8'); {call}\n"
    script += "sys.exit(' '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)
