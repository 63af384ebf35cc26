"""What compression did to a picture: size, PSNR, MS-SSIM, and both side by side."""

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
from vqcodec.format.container import MAGIC
from vqcodec.tools.demo import grid, labelled

if TYPE_CHECKING:
    Pictures = tuple[PIL.Image.Image, PIL.Image.Image]

#: MS-SSIM halves a picture four times and then needs a window of 11 pixels.
MS_SSIM_SIDE = 176


@dataclass(frozen=True)
class Comparison:
    """bytes: size of the file. psnr: in dB over the RGB channels, None for equal pictures. ms_ssim: None if it cannot be had; note: why."""

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
    """Compare a picture with a ``.vqc`` file, or with a file of another format; also the two as RGB images.

    Alpha is not looked at. Raises :class:`~vqcodec.errors.ImageError` for pictures of different sizes.
    """
    first = PIL.Image.fromarray(images.to_array(original).pixels)
    data = Path(file).read_bytes()
    coded = data.startswith(MAGIC)
    decoded = vqcodec.decompress(data, model=model, device=device).convert("RGB") if coded else None
    second = decoded or PIL.Image.fromarray(images.to_array(file).pixels)
    if first.size != second.size:
        raise ImageError(f"{os.fspath(file)}: must be of the original's size, {first.width} x {first.height}, "
                         f"found {second.width} x {second.height}")
    similarity, note = None, ""
    try:
        similarity = ms_ssim(np.asarray(first), np.asarray(second))
    except (ImageError, ImportError) as error:
        note = str(error)
    decibels = images.psnr(first, second)
    found = Comparison(len(data), *first.size, 8 * len(data) / (first.width * first.height),
                       decibels if np.isfinite(decibels) else None, similarity, note)
    return found, (first, second)


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of H x W x 3 uint8 arrays, mean of the channels.

    Raises ``ImageError`` for pictures under 176 pixels, ``ImportError`` without torchmetrics.
    """
    if min(a.shape[:2]) < MS_SSIM_SIDE:
        raise ImageError(f"MS-SSIM needs {MS_SSIM_SIDE} x {MS_SSIM_SIDE} pixels, found {a.shape[1]} x {a.shape[0]}")
    try:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure
    except (ImportError, RuntimeError) as error:  # the latter for parts of PyTorch that do not fit each other
        raise ImportError(f"MS-SSIM needs torchmetrics: pip install 'vqcodec[evaluate]' ({error})") from error
    import torch

    x, y = (torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() for picture in (a, b))
    return float(measure(x, y, data_range=255.0))


def side_by_side(found: Comparison, pictures: Pictures) -> PIL.Image.Image:
    """Both pictures with a line above each."""
    quality = "equal" if found.psnr is None else f"{found.psnr:.2f} dB"
    return grid([
        labelled("original", pictures[0]),
        labelled(f"{found.bytes:,} bytes, {found.bits_per_pixel:.3f} bits per pixel, {quality}", pictures[1]),
    ], columns=2)  # fmt: skip
