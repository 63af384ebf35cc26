"""The critic: a small classifier that says how well a picture shows its class (VQ-VAE-2, section 3.3).

    picture, any size -> central square, area-scaled to 128 x 128 -> residual network -> class probabilities

It is trained on the model's classes (``python -m training.critic``) and chooses among samples;
files and code maps do not depend on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vqcodec.errors import InvalidArgument, ModelError

if TYPE_CHECKING:
    import PIL.Image

FORMAT = "vqcodec-critic-1"
DEFAULT = Path(__file__).parents[1] / "model" / "weights" / "critic.safetensors"
#: Side of the network's input.
SIDE = 128
WIDTHS = (32, 64, 96, 144)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; ``stride`` 2 halves the size (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else nn.Sequential(
            nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.shortcut(x) + self.second_norm(self.second(y)))


class Network(nn.Module):
    """B x 3 x 128 x 128 in [0, 1] -> B x classes logits: 0.55 million parameters, 90 million MAC."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        strides = (1, *(2 for _ in WIDTHS[1:]))
        self.stem = nn.Conv2d(3, WIDTHS[0], 5, 4, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.Sequential(*(Block(i, o, s) for i, o, s in zip((WIDTHS[0], *WIDTHS), WIDTHS, strides)))
        self.head = nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(2 * x - 1)))
        return self.head(self.blocks(x).mean((2, 3)))


class Critic:
    """A loaded critic. Callable like any critic that :func:`vqcodec.sample` takes.

    ``classes`` are the names of classes 1, 2, ...; ``card`` says what it was trained on and how
    often it is right.
    """

    def __init__(self, network: Network, classes: Sequence[str], card: Mapping[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.card = dict(card)

    def __call__(self, pictures: Sequence[PIL.Image.Image | np.ndarray], class_id: int) -> np.ndarray:
        """How probable class ``class_id`` (1, 2, ...) is for each picture: float64 in [0, 1]."""
        if not 1 <= class_id <= len(self.classes):
            raise InvalidArgument(f"the critic scores classes 1 to {len(self.classes)}, got {class_id}")
        return self.probabilities(pictures)[:, class_id - 1]

    score = __call__

    def probabilities(self, pictures: Sequence[PIL.Image.Image | np.ndarray]) -> np.ndarray:
        """N x classes, float64. Pictures: PIL images or H x W x 3 uint8 arrays, of any sizes."""
        found = np.zeros((len(pictures), len(self.classes)))
        with torch.inference_mode():
            for i in range(0, len(pictures), 16):
                x = torch.cat([prepared(picture) for picture in pictures[i : i + 16]])
                found[i : i + 16] = self.network(x).double().softmax(1).numpy()
        return found


def prepared(picture: PIL.Image.Image | np.ndarray) -> Tensor:
    """1 x 3 x 128 x 128 in [0, 1]: the central square, each pixel the mean of the area that it covers."""
    pixels = np.array(picture if isinstance(picture, np.ndarray) else picture.convert("RGB"))
    height, width = pixels.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(pixels[y : y + side, x : x + side]).permute(2, 0, 1)[None]
    return F.interpolate(square.float(), (SIDE, SIDE), mode="area") / 255


# -- files ---------------------------------------------------------------------------------


def save(path: str | os.PathLike[str], network: Network, classes: Sequence[str], card: Mapping[str, Any]) -> None:
    """Write a critic: safetensors, float16, described by JSON metadata."""
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    tensors = {name: value.detach().half().contiguous() for name, value in _stored(network).items()}
    description = {"format": FORMAT, "classes": list(classes), "card": dict(card)}
    save_file(tensors, temporary, {"description": json.dumps(description)})  # one entry: several have no fixed order
    temporary.chmod(0o644)
    os.replace(temporary, path)


@cache
def shipped() -> Critic:
    """The critic that comes with the shipped model, loaded once."""
    return load(DEFAULT)


def load(path: str | os.PathLike[str]) -> Critic:
    """The critic in a file. Raises :class:`~vqcodec.errors.ModelError` if it is not sound."""
    name = Path(path).name
    try:
        with safe_open(path, "pt") as stream:
            description = json.loads((stream.metadata() or {})["description"])
            found = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (no mapping)
        version, classes, card = (description[key] for key in ("format", "classes", "card"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"critic {name}: not a critic ({error!r})") from error
    if version != FORMAT:
        raise ModelError(f"critic {name}: expected format {FORMAT}, found {version}")
    if not (isinstance(classes, list) and classes and all(isinstance(c, str) for c in classes) and isinstance(card, dict)):
        raise ModelError(f"critic {name}: the description must hold a list of class names and a card")
    head = found.get("head.bias")
    if head is None or tuple(head.shape) != (len(classes),):
        raise ModelError(f"critic {name}: {len(classes)} classes do not fit its output")
    network = Network(len(classes))
    expected = {key: (torch.float16, value.shape) for key, value in _stored(network).items()}
    wrong = sorted(set(expected.items()) ^ {(key, (value.dtype, value.shape)) for key, value in found.items()}, key=str)
    if wrong:
        raise ModelError(f"critic {name}: tensor {wrong[0][0]} does not fit the network")
    if not all(bool(value.isfinite().all()) for value in found.values()):
        raise ModelError(f"critic {name}: a tensor holds values that are not finite")
    network.load_state_dict({key: value.float() for key, value in found.items()}, strict=False)
    return Critic(network, classes, card)


def _stored(network: Network) -> dict[str, Tensor]:
    """The network's state without what only serves training."""
    return {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
