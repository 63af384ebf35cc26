"""What the numbers were measured on."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

from vqcodec import __version__
from vqcodec.tools.pool import cores


def described() -> dict[str, Any]:
    """Date, processor, cores, memory, system, and the versions of what matters."""
    import numpy
    import torch

    from vqcodec.ops import cpu

    return {
        "date": datetime.date.today().isoformat(), "processor": processor(), "cores": cores(), "machine_memory": memory(),
        "system": f"{platform.system()} {platform.release()}", "instructions": cpu.select_variant(),
        "versions": {"vqcodec": __version__, "Python": platform.python_version(), "torch": torch.__version__,
                     "numpy": numpy.__version__},
    }  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def memory() -> int | None:
    """Bytes in all, where the system tells."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
