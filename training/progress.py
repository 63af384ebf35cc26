"""What a training run tells: lines on standard output, curves and pictures for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from training import distributed


class Progress:
    """The reports of one stage. Only the first process speaks.

    Curves go to ``work/tensorboard`` if the package tensorboard is installed.
    """

    def __init__(self, work: Path, stage: str, step: int) -> None:
        self._stage, self._step, self._begun = stage, step, time.monotonic()
        self._writer = None
        if distributed.first():
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("no TensorBoard curves: the package tensorboard is not installed", flush=True)
            else:
                self._writer = SummaryWriter(work / "tensorboard" / stage, purge_step=step)

    def line(self, step: int, text: str) -> None:
        """Print ``text`` with the step and the seconds per step since the last line."""
        seconds = (time.monotonic() - self._begun) / max(1, step - self._step)
        if distributed.first():
            print(f"{self._stage} step {step} {seconds:.3f} s/step {text}", flush=True)
        self.begin(step)

    def begin(self, step: int) -> None:
        """Start the clock: what came before does not count as training."""
        self._step, self._begun = step, time.monotonic()

    def say(self, text: str) -> None:
        if distributed.first():
            print(f"{self._stage} {text}", flush=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, name: str, pictures: Tensor, columns: int = 8) -> None:
        """A grid of ``pictures`` (N x 3 x H x W in [0, 1])."""
        if self._writer is not None:
            self._writer.add_image(name, grid(pictures, columns), step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def grid(pictures: Tensor, columns: int) -> Tensor:
    """3 x rows*H x columns*W from N x 3 x H x W; what is missing in the last row is grey."""
    n, c, h, w = pictures.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    filled = pictures.new_full((rows * columns, c, h, w), 0.5)
    filled[:n] = pictures
    return filled.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w).clamp(0, 1)
