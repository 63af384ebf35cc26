"""Fuzz one Python target with atheris: ``python -m tests.fuzz.drive NAME`` and libFuzzer's options and folders."""

from __future__ import annotations

import sys

import atheris
import torch  # noqa: F401  before anything is instrumented: only our own branches guide the fuzzer

with atheris.instrument_imports(include=["vqcodec"], enable_loader_override=False):
    from tests.fuzz import targets


def main() -> None:
    name, *options = sys.argv[1:]
    targets.prepare(name)
    atheris.Setup([name, *options], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
