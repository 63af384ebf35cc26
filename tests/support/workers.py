"""What the workers of tests/test_batch.py do: a module that loads nothing, because each of them imports it."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vqcodec import batch
from vqcodec.errors import InvalidArgument, ModelError


def start(kind: str, folder: str) -> Callable[[str], tuple[str, int]]:
    """What a worker begins with."""
    if kind == "refuse":
        raise ModelError("no model")
    if kind == "exit":
        os._exit(3)
    return functools.partial(work, folder)


def work(folder: str, task: str) -> tuple[str, int]:
    """``task`` says what happens; anything else comes back."""
    if task == "raise":
        raise InvalidArgument("as asked")
    if task == "odd":
        raise Unpicklable
    if task == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.startswith("once"):
        with open(Path(folder, "died"), "a") as file:
            file.write(".")
        if len(Path(folder, "died").read_text()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if task == "sleep":
        time.sleep(600)
    return task, os.getpid()


@dataclass(frozen=True)
class KilledAtWriting(batch.Encoder):
    """Writes "half", " whole", and dies the first time: ``after`` so many of these."""

    after: int = 1

    def start(self) -> batch.Coding:
        return self.code

    def code(self, source: str, output: str) -> tuple[Callable[[BinaryIO], None], batch.Record]:
        def write(file: BinaryIO) -> None:
            for i, part in enumerate((b"half", b" whole"), 1):
                file.write(part)
                file.flush()
                if i == self.after and not os.path.exists(source):
                    Path(source).touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        return write, batch.Record(source, output, 10)


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)
