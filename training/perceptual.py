"""Distortion as eyes see it: structural similarity at several scales, and the colours of large areas.

Both are computed in Oklab (Ottosson 2020), whose distances are close to perceived ones and whose
lightness and two opponent colours are nearly independent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: From linear RGB to cones, from cube roots of cones to Oklab.
CONES = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566), (0.0883024619, 0.2817188376, 0.6299787005))  # fmt: skip
OPPONENT = ((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099), (0.0259040371, 0.7827717662, -0.8086757660))  # fmt: skip
#: How much the scales count, each half as large as the one before, and how much lightness and colours do.
SCALES = (0.3, 0.3, 0.25, 0.15)
CHANNELS = (0.7, 0.15, 0.15)
#: Side of the windows of local means and variances, and the variance below which structure counts for less.
WINDOW = 7
NOISE = (4e-4, 1e-4, 1e-4)
#: Side of the areas whose mean colour counts, in pixels.
AREA = 16
#: Make structure about as large as the mean squared error, and colour a fifth of it (measured with the shipped model on
#: validation crops at qualities 10, 50 and 90).
STRUCTURE, COLOUR = 0.012, 8.0


def oklab(rgb: Tensor) -> Tensor:
    """Oklab of sRGB pixels, B x 3 x H x W; values outside [0, 1] are clamped, with a gradient that leads back."""
    inside = rgb + (rgb.clamp(1e-3, 1) - rgb).detach()
    linear = torch.where(inside <= 0.04045, inside / 12.92, ((inside + 0.055) / 1.055) ** 2.4)
    cones = F.conv2d(linear, linear.new_tensor(CONES)[:, :, None, None])
    return F.conv2d(cones.clamp(min=1e-6) ** (1 / 3), cones.new_tensor(OPPONENT)[:, :, None, None])


def distortion(decoded: Tensor, original: Tensor) -> Tensor:
    """A scalar on the scale of the mean squared error of pixels in [0, 1].

    decoded, original: B x 3 x H x W, sRGB in [0, 1], float32; the decoded may leave the range.
    """
    found, wanted = oklab(decoded), oklab(original)
    colour = F.mse_loss(F.avg_pool2d(found, AREA), F.avg_pool2d(wanted, AREA))
    return STRUCTURE * structure(found, wanted) + COLOUR * colour


def structure(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - structural similarity (Wang et al. 2004), weighted over scales and channels; the luminance term without a
    denominator, as in SSIMULACRA2: a scalar, 0 for equal images."""
    noise = found.new_tensor(NOISE)[None, :, None, None]
    channels = found.new_tensor(CHANNELS)
    total = found.new_zeros(())
    for number, weight in enumerate(SCALES):
        if number:
            found, wanted = F.avg_pool2d(found, 2), F.avg_pool2d(wanted, 2)
        window = min(WINDOW, *found.shape[2:])
        a, b, aa, bb, ab = F.avg_pool2d(
            torch.cat([found, wanted, found * found, wanted * wanted, found * wanted], 1), window, stride=1
        ).chunk(5, 1)
        covariance, variances = ab - a * b, (aa - a * a) + (bb - b * b)
        similarity = (1 - (a - b).square()) * (2 * covariance + noise) / (variances + noise)
        total = total + weight * ((1 - similarity).mean((0, 2, 3)) * channels).sum()
    return total
