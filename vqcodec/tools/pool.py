"""Worker processes for independent tasks, any of which may die without harm to the others.

``concurrent.futures`` gives up all its tasks when one worker is killed, and cannot say which task
it was at. Here every worker has a pipe of its own: the pipe that closes names the task.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from vqcodec.errors import BackendError

Task = TypeVar("Task")
Result = TypeVar("Result")

#: How often a task may lose its worker before it is to blame.
ATTEMPTS = 3


class Pool(Generic[Task, Result]):
    """Runs ``start()(task)`` for every task, in ``jobs`` processes.

    ``start`` is called once in each process and returns the function that does the work; it, the
    tasks and the results must pickle. Processes are spawned, so that threads and CUDA do no harm.
    """

    def __init__(self, start: Callable[[], Callable[[Task], Result]], jobs: int) -> None:
        self._start, self._jobs = start, jobs
        self._workers: dict[Connection, _Worker] = {}
        atexit.register(self.close)

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        """Each task with its result, or with what went wrong, in the order of completion.

        At most ``jobs`` tasks are taken ahead of the results. A task whose worker dies is given to
        a new one, and after three such attempts comes back with a :class:`BackendError`. What
        ``start`` raises is raised here. Closing the iterator kills the workers.
        """
        again: list[tuple[Task, int]] = []
        fresh = ((task, 0) for task in tasks)

        def following() -> tuple[Task, int] | None:
            return again.pop() if again else next(fresh, None)

        try:
            while True:
                for worker in [w for w in self._workers.values() if w.task is None]:
                    if found := following():
                        worker.give(*found)
                while len(self._workers) < self._jobs and (found := following()):
                    self._spawn(*found)
                busy = [pipe for pipe, worker in self._workers.items() if worker.task is not None]
                if not busy:
                    return
                for pipe in wait(busy):
                    worker = self._workers[pipe]  # type: ignore[index]
                    task, deaths = worker.task
                    try:
                        kind, content = worker.pipe.recv()
                    except (EOFError, OSError):  # it died, perhaps in the middle of a message
                        how = self._bury(worker)
                        if not worker.ready and not how.startswith("SIG"):
                            raise BackendError(f"a worker ended while it started ({how}); a script that starts workers "
                                               "must do so under: if __name__ == '__main__'") from None
                        if deaths + 1 < ATTEMPTS:
                            again.append((task, deaths + 1))
                        else:
                            yield task, BackendError(f"its worker died {ATTEMPTS} times ({how}); was there too little memory?")
                        continue
                    if kind == "failed":
                        raise content
                    if kind == "ready":
                        worker.ready = True
                        continue
                    worker.task = None
                    if found := following():  # first, so that it works while our caller does
                        worker.give(*found)
                    yield task, content
        finally:
            self.close()

    def close(self) -> None:
        """Kill the workers, whatever they are doing."""
        atexit.unregister(self.close)
        for worker in list(self._workers.values()):
            worker.process.kill()
            self._bury(worker)

    def _spawn(self, task: Task, deaths: int) -> None:
        with _interrupts_blocked():  # the parent decides what an interrupt means
            worker = _Worker(self._start)
        self._workers[worker.pipe] = worker
        worker.give(task, deaths)

    def _bury(self, worker: _Worker) -> str:
        del self._workers[worker.pipe]
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


class _Worker:
    """A process, the pipe to it, and the task that it has, with the number of workers that died of it."""

    def __init__(self, start: Callable[[], Callable[[Any], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, start), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.ready = False
        self.task: Any = None

    def give(self, task: Any, deaths: int) -> None:
        self.task = task, deaths
        with contextlib.suppress(ConnectionError):  # dead: the next read says so
            self.pipe.send(task)


def _work(pipe: Connection, start: Callable[[], Callable[[Any], Any]]) -> None:
    """What a worker does, until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            run = start()
        except Exception as error:
            pipe.send(("failed", _portable(error)))
            return
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                result = run(task)
            except Exception as error:
                result = _portable(error)
            pipe.send(("done", result))


def _portable(error: Exception) -> Exception:
    """The error itself if it survives a pipe, else its words."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A process that is started here begins with SIGINT blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
