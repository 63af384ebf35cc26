"""What the user sees: all of it on standard error, so that standard output can be piped."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator


class Failure(Exception):
    """A failure to report to the user in one line."""


def say(text: str) -> None:
    print(one_line(text), file=sys.stderr)


def one_line(text: str) -> str:
    """``text`` as one line that any terminal can show: file names may contain line breaks, and bytes that are not text.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def report(arguments: argparse.Namespace, text: str) -> None:
    """Report what has been done, unless ``--quiet``."""
    if not arguments.quiet:
        say(text)


def failed(text: str) -> int:
    """Report what went wrong. Returns the exit status."""
    say(f"vqcodec: {text}")
    return 1


@contextlib.contextmanager
def stage(name: str, arguments: argparse.Namespace) -> Iterator[None]:
    """On a terminal, show what is happening while it happens."""
    line = f"{name} ..." if _talks(arguments) else ""
    _draw(line, "")
    try:
        yield
    finally:
        _draw("", line)


class Progress:
    """On a terminal, a line that shows how many of ``total`` are done."""

    def __init__(self, total: int, arguments: argparse.Namespace) -> None:
        self._total, self._done, self._line = total, 0, ""
        self._on = total > 1 and _talks(arguments)
        self._begun = time.monotonic()

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def step(self) -> None:
        """Count one more as done."""
        self._done += 1
        self._show()

    def hide(self) -> None:
        """Make room for a message; the next step shows the line again."""
        _draw("", self._line)
        self._line = ""

    def _show(self) -> None:
        if self._on:
            line = progress_line(
                self._done, self._total, time.monotonic() - self._begun, shutil.get_terminal_size().columns
            )
            _draw(line, self._line)
            self._line = line


def progress_line(done: int, total: int, seconds: float, columns: int) -> str:
    """A progress bar, the number of files, and the time left, in fewer than ``columns`` characters.

    >>> progress_line(3, 4, 30, 50)
    '[###############     ] 3/4  0:10 left'
    """
    left = f"  {_clock(seconds / done * (total - done))} left" if 0 < done < total else ""
    count = f" {done}/{total}{left}"
    width = max(0, min(20, columns - len(count) - 3))
    return f"[{'#' * (width * done // total):{width}}]{count}"[: columns - 1]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _talks(arguments: argparse.Namespace) -> bool:
    return bool(sys.stderr and sys.stderr.isatty()) and not arguments.quiet


def _draw(line: str, over: str) -> None:
    if line or over:
        print(f"{line}{' ' * (len(over) - len(line))}", end="\r", file=sys.stderr, flush=True)
