"""Pixels from code maps, written from docs/FORMAT.md and nothing else, in NumPy integers.

maps = prior.decode(data, model)
pixels = pixels.picture(maps, container.read(data), model)
"""

from __future__ import annotations

import numpy as np

from tests.reference_decoder.container import require
from tests.reference_decoder.prior import Model, rshift


def picture(maps: list[np.ndarray], header: dict, model: Model) -> np.ndarray:
    """height x width x 3 uint8, or height x width if it is grey. ``header``: what `container.read` found."""
    pixels = Network(model).pixels(maps)[: header["height"], : header["width"]]
    return np.rint(pixels.mean(2)).astype(np.uint8) if header["flags"] & 1 else pixels


class Network:
    """The half of the autoencoder that makes pixels. Planes are rows x columns x channels, int64 within int16."""

    def __init__(self, model: Model) -> None:
        self.model, self.config = model, model.config["autoencoder"]

    def tensor(self, name: str, dtype: str) -> np.ndarray:
        stored = self.model.tensors[f"autoencoder/{name}"]
        require(stored.dtype.str == dtype, f"autoencoder/{name} must be {dtype}")
        return stored.astype(np.int64)

    def pixels(self, maps: list[np.ndarray]) -> np.ndarray:
        """The padded image, rows x columns x 3 uint8."""
        merge, synthesis = {
            "lapped": (self.merge_lapped, self.synthesis_lapped),
            "conv": (self.merge_conv, self.synthesis_conv),
        }[self.config["transform"]]
        above, *finer = sorted(set(self.model.strides), reverse=True)
        context = self.vectors(maps, above)
        for stride in finer:
            context = merge(context, self.vectors(maps, stride), above, stride)
            above = stride
        return np.clip((synthesis(context, above) + 32 >> 6) + 128, 0, 255).astype(np.uint8)

    def vectors(self, maps: list[np.ndarray], stride: int) -> np.ndarray:
        """The codebook vectors of all maps of a stride."""
        total: np.ndarray | None = None
        for m, described in enumerate(self.config["maps"]):
            if described["stride"] == stride:
                found = self.tensor(f"codebook.{m}", "<i2")[maps[m]]
                first = described["refines"]
                if first is not None:
                    part = total[..., first : first + described["dim"]]
                    part[...] = sat16(part + found)
                else:
                    total = found if total is None else np.concatenate([total, found], 2)
        return total

    # -- layers ------------------------------------------------------------------------------

    def sums(self, name: str, x: np.ndarray, taps: list[list[tuple[int, int]]]) -> list[np.ndarray]:
        """The shifted sums of every phase, whose taps are given as (row, column) beside the position."""
        weight = self.tensor(f"{name}.weight", "|i1")
        bias, shift = self.tensor(f"{name}.bias", "<i4"), self.tensor(f"{name}.shift", "|u1")
        require(weight.shape[0] == len(taps) and weight.shape[2] == len(taps[0]), f"{name} has phases or taps too many")
        largest = 2**15 * np.abs(weight).sum((2, 3)) + np.abs(bias) + (2**shift >> 1)
        require(shift.max() <= 30 and largest.max() < 2**31, f"{name} can overflow")
        rows, columns, _ = x.shape
        reach = max(abs(d) for phase in taps for tap in phase for d in tap)
        padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge").astype(float)  # exact: below 2**53
        found = []
        for p, phase in enumerate(taps):
            total = np.zeros((rows, columns, weight.shape[1]))
            for t, (a, b) in enumerate(phase):
                part = padded[reach + a : reach + a + rows, reach + b : reach + b + columns]
                total += np.tensordot(part, weight[p, :, t].astype(float), (2, 1))
            found.append(rshift(total.astype(np.int64) + bias[p], shift[p]))
        return found

    def conv(self, name: str, x: np.ndarray, kernel: int, factor: int = 1) -> np.ndarray:
        """Not yet through activation and sat16."""
        half = kernel // 2
        window = [(a, b) for a in range(-half, half + 1) for b in range(-half, half + 1)]
        return interleave(self.sums(name, x, [window] * factor**2), factor)

    def up(self, name: str, x: np.ndarray, kernel: int) -> np.ndarray:
        """Not yet through activation and sat16."""
        axis = [[a for a in range(-kernel, kernel + 1) if 0 <= i + kernel // 2 - 1 - 2 * a < kernel] for i in (0, 1)]
        taps = [[(a, b) for a in axis[i] for b in axis[j]] for i in (0, 1) for j in (0, 1)]
        return interleave(self.sums(name, x, taps), 2)

    def residual(self, name: str, x: np.ndarray) -> np.ndarray:
        """Not yet through activation and sat16."""
        return x + self.conv(f"{name}.conv2", sat16(leaky(self.conv(f"{name}.conv1", x, 3))), 1)

    def residuals(self, name: str, h: np.ndarray, blocks: int) -> np.ndarray:
        """A stack of blocks after something not yet through sat16; nor is the result."""
        for b in range(blocks):
            h = self.residual(f"{name}.{b}", sat16(h))
        return h

    # -- lapped ------------------------------------------------------------------------------

    def merge_lapped(self, context: np.ndarray, vectors: np.ndarray, above: int, stride: int) -> np.ndarray:
        return sat16(sat16(self.up(f"up.{above}", context, 2)) + vectors)

    def synthesis_lapped(self, context: np.ndarray, stride: int) -> np.ndarray:
        h = self.conv("from_latent", context, 1)
        h = sat16(self.residuals("decoder", h, self.config["decoder_blocks"]))
        fine = self.residuals("refine", self.conv("refine_in", h, 1, 2), self.config["refine_blocks"])
        fine = self.conv("refine_out", sat16(leaky(fine)), 3, 4)
        return sat16(self.conv("unpatch", h, 3, 8)) + sat16(fine)

    # -- conv --------------------------------------------------------------------------------

    def merge_conv(self, context: np.ndarray, vectors: np.ndarray, above: int, stride: int) -> np.ndarray:
        for i in range((above // stride).bit_length() - 1):
            context = sat16(self.up(f"upsample.{above}.{i}", context, self.config["upsample_kernel"]))
        return np.concatenate([context, vectors], 2)

    def synthesis_conv(self, context: np.ndarray, stride: int) -> np.ndarray:
        h = self.conv("output.plain", context, self.config["encoder_kernel"])
        h = self.residuals("output.blocks", h, self.config["decoder_blocks"])
        for i in range(stride.bit_length() - 1):
            h = self.up(f"output.resize.{i}", sat16(np.maximum(h, 0)), self.config["upsample_kernel"])
        return sat16(h)


def sat16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -32768, 32767)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, x + 4 >> 3, x)


def interleave(phases: list[np.ndarray], f: int) -> np.ndarray:
    """Phase i f + j of (r, c) goes to (f r + i, f c + j)."""
    rows, columns, channels = phases[0].shape
    made = np.empty((f * rows, f * columns, channels), np.int64)
    for p, phase in enumerate(phases):
        made[p // f :: f, p % f :: f] = phase
    return made
