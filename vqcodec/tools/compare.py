"""What compression did to an image: size, PSNR, MS-SSIM, and both side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

import vqcodec
from vqcodec.codec import images
from vqcodec.errors import ImageError
from vqcodec.format.framing import MAGIC
from vqcodec.tools.demo import grid, labelled

if TYPE_CHECKING:
    Pictures = tuple[PIL.Image.Image, PIL.Image.Image]

#: MS-SSIM halves an image four times and then needs a window of 11 pixels.
MS_SSIM_SIDE = 176


@dataclass(frozen=True)
class Comparison:
    """bytes: size of the file. psnr: in dB over the RGB channels, None for equal images. ms_ssim: None if not available; note: why."""

    bytes: int
    width: int
    height: int
    bits_per_pixel: float
    psnr: float | None
    ms_ssim: float | None
    note: str


def compare(
    original: Any, file: str | os.PathLike[str], *, model: Any = None, device: str = "cpu"
) -> tuple[Comparison, Pictures]:
    """Compare an image with a ``.vqc`` file, or with a file of another format. Also returns both as RGB images.

    Alpha is ignored. Raises :class:`~vqcodec.errors.ImageError` for images of different sizes.
    """
    first = PIL.Image.fromarray(images.to_array(original).pixels)
    data = Path(file).read_bytes()
    coded = data.startswith(MAGIC)
    decoded = vqcodec.decompress(data, model=model, device=device).convert("RGB") if coded else None
    second = decoded or PIL.Image.fromarray(images.to_array(file).pixels)
    if first.size != second.size:
        raise ImageError(
            f"{os.fspath(file)}: must be of the original's size, {first.width} x {first.height}, "
            f"found {second.width} x {second.height}"
        )
    similarity, note = None, ""
    try:
        similarity = ms_ssim(np.asarray(first), np.asarray(second))
    except ImageError as error:
        note = str(error)
    decibels = images.psnr(first, second)
    found = Comparison(
        len(data),
        *first.size,
        8 * len(data) / (first.width * first.height),
        decibels if np.isfinite(decibels) else None,
        similarity,
        note,
    )
    return found, (first, second)


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of H x W x 3 uint8 arrays: at most 1.

    Windows of 11 x 11 pixels (Gaussian of 1.5) inside the image, at the coarsest scale around every pixel (mirrored at the edges,
    as in torchmetrics); means over pixels and channels at each of five scales.
    Raises ``ImageError`` for images under 176 pixels.
    """
    if min(a.shape[:2]) < MS_SSIM_SIDE:
        raise ImageError(f"MS-SSIM needs {MS_SSIM_SIDE} x {MS_SSIM_SIDE} pixels, found {a.shape[1]} x {a.shape[0]}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            x, y = _halved(x), _halved(y)
        last = scale == len(_SCALE_WEIGHTS) - 1
        if last:
            x, y = (np.pad(z, ((5, 5), (5, 5), (0, 0)), "reflect") for z in (x, y))
        similarity, contrast = _ssim(x, y)
        product *= max(similarity if last else contrast, 0.0) ** weight
    return product


#: Exponents of the scales, fine to coarse (Wang et al. 2003, section 3.2).
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _ssim(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean structural similarity, and mean of its contrast and structure terms."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    contrast = (2 * (_blurred(x * y) - mean_x * mean_y) + c2) / (variance + c2)
    similarity = contrast * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(similarity.mean()), float(contrast.mean())


def _blurred(x: np.ndarray) -> np.ndarray:
    """H x W x 3 -> (H - 10) x (W - 10) x 3: the mean in a Gaussian window around every pixel with a complete one."""
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    for _ in range(2):  # down, then across
        total = window[0] * x[: len(x) - 10]
        for i in range(1, 11):
            total += window[i] * x[i : len(x) - 10 + i]
        x = total.swapaxes(0, 1)
    return x


def _halved(x: np.ndarray) -> np.ndarray:
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return np.asarray(x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).mean((1, 3)))


def side_by_side(found: Comparison, pictures: Pictures) -> PIL.Image.Image:
    """Both images with a line above each."""
    quality = "equal" if found.psnr is None else f"{found.psnr:.2f} dB"
    return grid([
        labelled("original", pictures[0]),
        labelled(f"{found.bytes:,} bytes, {found.bits_per_pixel:.3f} bits per pixel, {quality}", pictures[1]),
    ], columns=2)  # fmt: skip
