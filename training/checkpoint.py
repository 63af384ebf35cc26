"""Checkpoints that survive a kill at any moment, in parts that are small enough to be copied one by one.

`NAME.pt` is an index; beside it lie the parts of the state that it lists, `NAME.DIGEST.0`, `NAME.DIGEST.1` and so on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

#: Bytes of a part, at most.
PART = 15_000_000


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the parts, then the index (a file beside it, then a rename): a reader sees the old or the new, never half."""
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    with temporary.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    size = temporary.stat().st_size
    parts = [f"{path.stem}.{digest}.{number}" for number in range(-(-size // PART))]
    with temporary.open("rb") as stream:
        for part in parts:
            (path.parent / part).write_bytes(stream.read(PART))
    temporary.write_text(json.dumps({"sha256": digest, "bytes": size, "parts": parts}))
    os.replace(temporary, path)
    for old in path.parent.glob(f"{path.stem}.*.*"):
        if old.name not in parts:
            old.unlink()


def load(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or None if there is none yet."""
    if not path.exists():
        return None
    index = json.loads(path.read_text())
    joined = path.with_suffix(".joined")
    with joined.open("wb") as stream:
        for part in index["parts"]:
            with (path.parent / part).open("rb") as source:
                shutil.copyfileobj(source, stream)
    try:
        if joined.stat().st_size != index["bytes"]:
            raise SystemExit(f"{path}: expected parts of {index['bytes']} bytes, found {joined.stat().st_size}")
        return torch.load(joined, weights_only=True)
    finally:
        joined.unlink()
