"""The ``vqcodec`` command (docs/CLI.md).

Exit status: 0 success; 1 failure, one line on standard error says why; 2 usage error; 130
interrupted. Data goes to standard output, all messages to standard error.

Heavy modules are imported where they are needed, so that ``--help``, ``--version`` and
``info`` respond at once.

        arguments   the options
    names       the files they refer to
    commands    carrying them out
    screen      messages to the user
    completion, manual   generated from the arguments
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence

from vqcodec.cli import commands
from vqcodec.cli.arguments import parser
from vqcodec.cli.screen import Failure, failed, say
from vqcodec.errors import VqcodecError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. (argparse itself exits, with 0 or 2.)"""
    arguments = parser().parse_args(argv)
    with warnings.catch_warnings(), _terminated_as_interrupted():
        warnings.showwarning = lambda message, *_, **__: say(f"vqcodec: warning: {message}")
        try:
            status = commands.RUN[arguments.command](arguments)
            if sys.stdout:
                sys.stdout.flush()
        except (VqcodecError, Failure) as error:
            return failed(str(error))
        except BrokenPipeError:  # the reader of our output has stopped reading
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return failed(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        except MemoryError:
            return failed("not enough memory for this image")
        except Terminated:
            say("vqcodec: terminated")
            return 128 + signal.SIGTERM
        except KeyboardInterrupt:
            say("vqcodec: interrupted")
            return 128 + signal.SIGINT
    return status or 0


class Terminated(KeyboardInterrupt):
    """SIGTERM: cleans up like an interrupt."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Makes a terminated run clean up like an interrupted one."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def interrupt(*_: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
