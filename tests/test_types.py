"""What type checkers are told of the compiled core is what it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import vqcodec
from vqcodec.ops import cpu

FOLDER = Path(vqcodec.__file__).parent


def stub() -> list[ast.stmt]:
    return ast.parse((FOLDER / "_native.pyi").read_text(encoding="utf-8")).body


def core() -> dict[str, object]:
    return {name: value for name, value in vars(cpu._core()).items() if not name.startswith("__")}


def arguments(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Names and defaults in the stub."""
    given = function.args
    defaults = [""] * (len(given.args) - len(given.defaults)) + [ast.unparse(each) for each in given.defaults]
    return [(each.arg, default) for each, default in zip(given.args, defaults, strict=True)]


def signature(function: object) -> list[tuple[str, str]]:
    """The same of the compiled function, from the first line of its docstring."""
    text = function.__doc__.splitlines()[0]
    depth, parts = 0, [""]
    for character in text[text.index("(") + 1 : text.rindex(") ->")]:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    found = [re.fullmatch(r" ?(\*{0,2}\w+)(?:: .*?)?(?: = ([^=]*))?", part) for part in parts if part]
    return [(match[1], match[2] or "") for match in found if not match[1].startswith("**")]


def test_the_stub_names_what_the_core_has():
    named = {each.name for each in stub() if isinstance(each, (ast.FunctionDef, ast.ClassDef))}
    assert named == set(core()) - {"cuda"}


def test_arguments_of_the_stub_are_those_of_the_core():
    found = core()
    functions = [each for each in stub() if isinstance(each, ast.FunctionDef)]
    assert len(functions) > 8
    for function in functions:
        assert arguments(function) == signature(found[function.name]), function.name


def test_the_package_is_typed():
    assert (FOLDER / "py.typed").exists()
