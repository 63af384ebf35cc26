"""Pixels from code maps, written from docs/FORMAT.md and nothing else, in NumPy floats.

    maps = format_v1_prior.decode(data, model)
    pixels = format_v1_pixels.picture(maps, format_v1.read(data), model)
"""

from __future__ import annotations

import numpy as np

from tests.reference_decoder.prior import Model


def picture(maps: list[np.ndarray], header: dict, model: Model) -> np.ndarray:
    """height x width x 3 uint8, or height x width if it is grey. ``header``: what `format_v1.read` found."""
    pixels = np.clip(Network(model).pixels(maps), 0, 1).transpose(1, 2, 0)
    levels = np.rint(255 * pixels)[: header["height"], : header["width"]]
    return np.rint(levels.mean(2) if header["flags"] & 1 else levels).astype(np.uint8)


class Network:
    """The half of the autoencoder that makes pixels. Arrays are channels x rows x columns."""

    def __init__(self, model: Model) -> None:
        self.model, self.config = model, model.config["autoencoder"]

    def tensor(self, name: str) -> np.ndarray:
        stored = self.model.tensors[f"autoencoder/{name}"].astype(np.float32)
        scale = self.model.tensors.get(f"autoencoder/{name}.scale")
        return stored if scale is None else stored * scale.astype(np.float32).reshape(-1, *[1] * (stored.ndim - 1))

    def pixels(self, maps: list[np.ndarray]) -> np.ndarray:
        """3 x H x W, the padded picture before it is clamped."""
        merge, synthesis = {"lapped": (self.merge_lapped, self.synthesis_lapped), "conv": (self.merge_conv, self.synthesis_conv)}[
            self.config["transform"]]
        above, *finer = sorted(set(self.model.strides), reverse=True)
        context = self.vectors(maps, above)
        for stride in finer:
            context = merge(context, self.vectors(maps, stride), above, stride)
            above = stride
        return synthesis(context, above) + 0.5

    def vectors(self, maps: list[np.ndarray], stride: int) -> np.ndarray:
        """D x rows x columns: the codebook vectors of all maps of a stride."""
        groups: list[np.ndarray] = []
        for m, described in enumerate(self.config["maps"]):
            if described["stride"] == stride:
                found = self.tensor(f"quantizers.{m}.codebook")[maps[m]].transpose(2, 0, 1)
                if described["residual"]:
                    groups[-1] = groups[-1] + found
                else:
                    groups.append(found)
        return np.concatenate(groups)

    # -- layers ------------------------------------------------------------------------------

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        weight, (channels, rows, columns) = self.tensor(f"{name}.weight"), x.shape
        half = weight.shape[2] // 2
        padded = np.pad(x, ((0, 0), (half, half), (half, half)))
        sums = self.tensor(f"{name}.bias")[:, None] + np.zeros((1, rows * columns))
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                sums += weight[:, :, i, j] @ padded[:, i : i + rows, j : j + columns].reshape(channels, -1)
        return sums.reshape(-1, rows, columns)

    def transposed(self, name: str, x: np.ndarray) -> np.ndarray:
        """Twice as large: every position adds to k x k outputs, two apart."""
        weight, (channels, rows, columns) = self.tensor(f"{name}.weight"), x.shape
        k = weight.shape[2]
        margin = (k - 2) // 2
        out = np.zeros((weight.shape[1], 2 * rows + k - 2, 2 * columns + k - 2))
        for i in range(k):
            for j in range(k):
                part = weight[:, :, i, j].T @ x.reshape(channels, -1)
                out[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += part.reshape(-1, rows, columns)
        return out[:, margin : margin + 2 * rows, margin : margin + 2 * columns] + self.tensor(f"{name}.bias")[:, None, None]

    def residual(self, name: str, x: np.ndarray) -> np.ndarray:
        return x + self.conv(f"{name}.conv2", leaky(self.conv(f"{name}.conv1", x)))

    # -- lapped ------------------------------------------------------------------------------

    def merge_lapped(self, context: np.ndarray, vectors: np.ndarray, above: int, stride: int) -> np.ndarray:
        return self.transposed(f"transform.up.{above}", context) + vectors

    def synthesis_lapped(self, context: np.ndarray, stride: int) -> np.ndarray:
        h = self.conv("transform.from_latent", context)
        for b in range(self.config["decoder_blocks"]):
            h = self.residual(f"transform.decoder.{b}", h)
        fine = shuffle(self.conv("transform.refine.0", h), 2)
        for b in range(self.config["refine_blocks"]):
            fine = self.residual(f"transform.refine.2.{b}", fine)
        fine = self.conv("transform.refine.4", leaky(fine))
        return shuffle(self.conv("transform.unpatch", h), 8) + shuffle(fine, 4)

    # -- conv --------------------------------------------------------------------------------

    def merge_conv(self, context: np.ndarray, vectors: np.ndarray, above: int, stride: int) -> np.ndarray:
        for i in range((above // stride).bit_length() - 1):
            context = self.transposed(f"transform.upsample.{above}.{i}", context)
        return np.concatenate([context, vectors])

    def synthesis_conv(self, context: np.ndarray, stride: int) -> np.ndarray:
        h = self.conv("transform.output.0", context)
        for b in range(self.config["decoder_blocks"]):
            h = self.residual(f"transform.output.1.{b}", h)
        for i in range(stride.bit_length() - 1):
            h = self.transposed(f"transform.output.{3 + 2 * i}", np.maximum(h, 0))
        return h


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, 0.1 * x, x)


def shuffle(x: np.ndarray, f: int) -> np.ndarray:
    """Channel c * f * f + i * f + j becomes channel c at row f * r + i and column f * q + j."""
    channels, rows, columns = x.shape
    split = x.reshape(channels // (f * f), f, f, rows, columns)
    return split.transpose(0, 3, 1, 4, 2).reshape(-1, f * rows, f * columns)
