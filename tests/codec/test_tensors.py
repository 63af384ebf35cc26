"""Torch tensors as images: the only part of the codec that knows PyTorch."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import vqcodec
from tests.codec.test_images import colours
from tests.conftest import scene
from vqcodec.codec.images import to_array
from vqcodec.errors import InvalidArgument


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(5, 4, 3), r"got shape \(5, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"got shape \(1, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "uint8, uint16 or float, got torch.int32"),
        (torch.full((3, 4, 4), 1.5), r"\[0, 1\], found 1.5 to 1.5"),
        (torch.full((3, 4, 4), float("nan")), "found nan"),
        (torch.zeros(3, 0, 4), "must have pixels"),
    ],
)
def test_refused_tensors(tensor, message):
    with pytest.raises(InvalidArgument, match=message):
        to_array(tensor)


def test_tensors():
    rgb = colours()
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    gradient = (tensor.float() / 255).requires_grad_()
    for given in (tensor, tensor.float() / 255, tensor.double() / 255, gradient):
        assert np.array_equal(to_array(given).pixels, rgb)
    for given in (tensor[1], tensor[1:2], tensor[1].float() / 255):
        picture = to_array(given)
        assert picture.grey and np.array_equal(picture.pixels[..., 0], rgb[..., 1])
    assert np.array_equal(to_array(torch.cat([tensor, tensor[:1]])).alpha, rgb[..., 0])
    halves = torch.tensor([[[0.0, 0.5, 1.0]]], dtype=torch.bfloat16)
    assert to_array(halves).pixels[0, :, 0].tolist() == [0, 128, 255]


def test_tensors_are_told_from_arrays_when_torch_is_loaded():
    assert "torch" in sys.modules and to_array(torch.zeros(2, 2)).grey


def test_a_tensor_gives_the_file_of_its_pixels(small_model):
    array = scene(40, 56)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    files = {vqcodec.compress(form, model=small_model) for form in (array, tensor, tensor.float() / 255)}
    assert len(files) == 1
