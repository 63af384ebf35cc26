"""Which files a command reads, and where it writes (docs/CLI.md, "Names")."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vqcodec import batch
from vqcodec.cli.screen import Failure
from vqcodec.tools import files
from vqcodec.tools.files import STANDARD

FIELDS = ("{name}", "{stem}", "{parent}")
#: Extensions that a .vqc file must not have: everybody would take it for something else.
OTHERS = frozenset(
    f".{name}"
    for name in [
        "avif",
        "bmp",
        "gif",
        "heic",
        "jpeg",
        "jpg",
        "jxl",
        "pdf",
        "pgm",
        "png",
        "pnm",
        "ppm",
        "tif",
        "tiff",
        "webp",
    ]
)


def pairs(names: list[str], output: str | None, suffix: str, recursive: bool) -> list[tuple[str, str]]:
    """(input, output) for every file that ``names`` refer to.

    suffix: for outputs whose names we choose; ``.vqc`` means that the inputs are images.
    """
    if output is None and len(names) == 2 and _is_output(names[1], suffix):
        names, output = names[:1], names[1]
    if STANDARD in names and len(names) > 1:
        raise Failure("- (standard input) must be the only input")
    if unknown := set(re.findall(r"{\w*}", output or "")) - set(FIELDS):
        raise Failure(f"{output}: {' and '.join(sorted(unknown))} is none of {', '.join(FIELDS)}")
    if output and suffix == ".vqc" and Path(output).suffix.lower() in OTHERS:
        raise Failure(f"{output} is a name for another format: end it in .vqc")
    inputs = expand(names, suffix, recursive)
    into = output and (output.endswith(("/", os.sep)) or os.path.isdir(output))
    if output and not into and not any(field in output for field in FIELDS):
        if len(inputs) > 1 or os.path.isdir(names[0]):
            raise Failure(f"{output} is one file for {len(inputs)} inputs: give a folder/, or use {{stem}} in the name")
        return [(inputs[0][0], output)]
    if names == [STANDARD]:
        if output:
            raise Failure(f"{output}: standard input has no name to derive an output name from")
        return [(STANDARD, STANDARD)]
    return [(name, _output(name, root, output, bool(into), suffix)) for name, root in inputs]


def expand(names: list[str], suffix: str, recursive: bool) -> list[tuple[str, str]]:
    """Every file that ``names`` refer to, with the folder it was found in, or "". Folders stand for their files."""
    found: list[tuple[str, str]] = []
    for name in names:
        if os.path.isdir(name):
            inside = [(str(path), name) for path in batch.pictures_in(name, suffix, recursive)]
            if not inside:
                hint = "" if recursive else " (-r includes its subfolders)"
                raise Failure(f"{name}: no {'images' if suffix == '.vqc' else '.vqc files'} in this folder{hint}")
            found += inside
        else:
            found.append((name, ""))
    return found


def _is_output(name: str, suffix: str) -> bool:
    """Whether the second of two names can only be the output."""
    if name == STANDARD or files.is_device(name):
        return True
    ends = name.lower().endswith(".vqc")
    return ends if suffix == ".vqc" else not ends and not os.path.isdir(name)


def _output(name: str, root: str, output: str | None, into: bool, suffix: str) -> str:
    path = Path(name)
    if not output:
        return os.path.splitext(name)[0] + suffix
    if into:
        return str(Path(output, path.relative_to(root) if root else path.name).with_suffix(suffix))
    for field, value in zip(FIELDS, (path.name, path.stem, str(path.parent))):
        output = output.replace(field, value)
    return output
