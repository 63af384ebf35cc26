"""The classifier in PyTorch: the float network that is trained first, and the fixed-point one that continues from it.

The float network has batch normalisation and zeros around its planes; the fixed-point one
(:mod:`vqcodec.model.classifier` is its integer form) has neither, so training goes on after :func:`folded`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.fixed_point import FixedConv2d, Format, Plane, add, align
from vqcodec.model.classifier import SCORE, STEM_KERNEL, STEM_STRIDE, ClassifierConfig, block_kernel
from vqcodec.model.integer_network import PIXELS_IN


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; ``stride`` 2 halves the size (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.shortcut(x) + self.second_norm(self.second(y)))


class FloatClassifier(nn.Module):
    """B x 3 x side x side in [0, 1] -> B x classes logits."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        widths = config.widths
        strides = (1, *(2 for _ in widths[1:]))
        self.stem = nn.Conv2d(3, widths[0], 5, STEM_STRIDE, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.Sequential(*(Block(i, o, s) for i, o, s in zip((widths[0], *widths), widths, strides)))
        self.head = nn.Linear(widths[-1], len(config.classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(2 * x - 1)))
        return self.head(self.blocks(x).mean((2, 3)))


class FixedBlock(nn.Module):
    """relu(merge(shortcut(x) + second(relu(first(x)))))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = FixedConv2d(inputs, outputs, block_kernel(stride), stride=stride)
        self.second = FixedConv2d(outputs, outputs, 3)
        self.shortcut = FixedConv2d(inputs, outputs, stride, stride=stride)
        self.merge = FixedConv2d(outputs, outputs, 1)

    def forward(self, x: Plane) -> Plane:
        return self.merge(add(self.shortcut(x), self.second(self.first(x, "relu"))), "relu")


class FixedClassifier(nn.Module):
    """B x 3 x side x side uint8 -> B x classes logits; ``quantized``: in float64 exactly the integer network's."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        widths = config.widths
        strides = (1, *(2 for _ in widths[1:]))
        self.pixels = Format(PIXELS_IN)
        self.stem = FixedConv2d(3, widths[0], STEM_KERNEL, stride=STEM_STRIDE)
        self.blocks = nn.ModuleList(FixedBlock(i, o, s) for i, o, s in zip((widths[0], *widths), widths, strides))
        self.head = FixedConv2d(widths[-1], len(config.classes), 1, fraction=SCORE)

    def forward(self, pixels: Tensor, quantized: bool = True) -> Tensor:
        values = (pixels.to(self.stem.weight.dtype) - 2 ** (PIXELS_IN - 1)) / 2**PIXELS_IN
        x = self.stem(Plane(values, self.pixels, quantized), "relu")
        for block in self.blocks:
            x = block(x)
        return self.head(x).values.mean((2, 3))

    def align(self) -> None:
        """After calibration: planes that are added have one format."""
        for block in self.blocks:
            align(block.shortcut.format, block.second.format)

    def export(self) -> dict[str, np.ndarray]:
        """The arrays that :func:`vqcodec.model.classifier.build` takes."""
        tensors: dict[str, np.ndarray] = {}

        def put(name: str, conv: FixedConv2d, fraction_in: int) -> int:
            made = int(conv.format.fraction)
            tensors.update({f"{name}.{key}": array for key, array in conv.export(fraction_in, made).items()})
            return made

        fraction = put("stem", self.stem, PIXELS_IN)
        for number, block in enumerate(self.blocks):
            name = f"blocks.{number}"
            between = put(f"{name}.first", block.first, fraction)
            put(f"{name}.second", block.second, between)
            fraction = put(f"{name}.merge", block.merge, put(f"{name}.shortcut", block.shortcut, fraction))
        put("head", self.head, fraction)
        return tensors


@torch.no_grad()
def folded(network: FloatClassifier, config: ClassifierConfig) -> FixedClassifier:
    """The fixed-point network that computes what the float one does, but for the edges of planes and roundings."""
    made = FixedClassifier(config)

    def put(conv: FixedConv2d, weight: Tensor, bias: Tensor | None = None) -> None:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        conv.weight[:, :, : weight.shape[2], : weight.shape[3]] = weight
        if bias is not None:
            conv.bias.copy_(bias)

    def normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain

    # Its input is 2 * pixel / 255 - 1, ours (pixel - 128) / 256.
    weight, bias = normalised(network.stem, network.stem_norm)
    put(made.stem, weight * 512 / 255, bias + weight.sum((1, 2, 3)) / 255)
    for ours, theirs in zip(made.blocks, network.blocks):
        put(ours.first, *normalised(theirs.first, theirs.first_norm))
        put(ours.second, *normalised(theirs.second, theirs.second_norm))
        outputs, inputs, size, _ = ours.shortcut.weight.shape
        if isinstance(theirs.shortcut, nn.Identity):
            put(ours.shortcut, torch.eye(inputs)[:, :, None, None])
        else:
            put(ours.shortcut, theirs.shortcut[1].weight.expand(-1, -1, size, size) / size**2)
        put(ours.merge, torch.eye(outputs)[:, :, None, None])
    put(made.head, network.head.weight[:, :, None, None], network.head.bias)
    return made
