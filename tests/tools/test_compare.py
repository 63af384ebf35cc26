"""vqcodec/tools/compare.py: MS-SSIM is that of torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from tests.conftest import scene
from vqcodec.tools.compare import ms_ssim


@pytest.mark.parametrize("height, width, noise", [(176, 176, 3), (177, 240, 20), (301, 191, 60)])
def test_ms_ssim_is_that_of_torchmetrics(height, width, noise):
    a = scene(height, width)
    b = np.clip(a + np.random.default_rng(0).normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (a, b))
    assert ms_ssim(a, b) == pytest.approx(
        float(multiscale_structural_similarity_index_measure(x, y, data_range=255.0)), abs=1e-8
    )
