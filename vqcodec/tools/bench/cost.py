"""Seconds and memory of single calls."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vqcodec.errors import BackendError
from vqcodec.tools.bench.codecs import Codec


def quartiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles; of one value, that value."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else 3 * [seconds[0]]
    return {"median": middle, "low": low, "high": high}


def times(picture: Image.Image, chosen: Sequence[tuple[Codec, float]], threads: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Whole calls in this process, picture to bytes and back, each codec at the setting that comes with it.

    The codecs take turns, so that a slow moment of the machine hits all of them.
    """
    for count in threads:
        taken: dict[str, tuple[list[float], list[float]]] = {codec.name: ([], []) for codec, _ in chosen}
        for number in range(rounds + 1):
            for codec, setting in chosen:
                codec.use(count)
                begun = time.perf_counter()
                data = codec.encode(picture, setting)
                encoded = time.perf_counter()
                codec.decode(data)
                decoded = time.perf_counter()
                if number:  # the first round loads what is loaded once
                    taken[codec.name][0].append(encoded - begun)
                    taken[codec.name][1].append(decoded - encoded)
        for codec, setting in chosen:
            if count == 1 or codec.threads:
                encode, decode = map(quartiles, taken[codec.name])
                yield {"codec": codec.name, "setting": setting, "threads": count, "encode": encode, "decode": decode}


# -- memory: a process for each call -----------------------------------------------------


def memory(path: str, codec: Codec | None, setting: float, decode: bool, model: Any, device: str) -> int | None:
    """Peak resident bytes of a process of its own that encodes or decodes one picture; without codec, of one that only opens it.

    None where the system does not tell (only Linux does).
    """
    task = {"path": path, "codec": codec and codec.name, "setting": setting, "decode": decode, "model": model, "device": device}
    coded = None
    if codec and decode:
        from vqcodec.tools.bench.measure import opened

        coded = codec.encode(opened(path), setting)
    command = [sys.executable, "-c", f"from vqcodec.tools.bench import cost; cost._child({json.dumps(task)!r})"]
    done = subprocess.run(command, input=coded, capture_output=True)
    if done.returncode:
        raise BackendError(f"a process that measures memory failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return int(done.stdout) or None


def _child(text: str) -> None:
    from vqcodec.tools.bench import codecs
    from vqcodec.tools.bench.measure import opened

    task = json.loads(text)
    if task["codec"] is None:
        opened(task["path"])
    else:
        (codec,) = codecs.every(task["model"], task["device"], only=task["codec"])
        if task["decode"]:
            codec.decode(sys.stdin.buffer.read())
        else:
            codec.encode(opened(task["path"]), task["setting"])
    print(_peak())


def _peak() -> int:
    """Of this process. Not ``ru_maxrss``, which a child inherits from its parent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
