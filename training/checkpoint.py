"""Checkpoints that survive a kill at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` beside ``path`` and rename: a reader sees the old or the new, never half."""
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or None if there is none yet."""
    return torch.load(path, weights_only=True) if path.exists() else None
