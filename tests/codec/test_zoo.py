"""A small share of ``python -m benchmarks.archive zoo``, with the shipped model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

import vqcodec
from benchmarks import archive
from benchmarks.archive import Broken, Specimen, there_and_back
from vqcodec.errors import ImageError

SPECIMENS = [*archive.sizes(most=20_000), *archive.modes(), *archive.files()]


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.name)
def test_there_and_back(specimen):
    there_and_back(specimen)


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in archive.refused()])
def test_what_has_no_agreed_meaning_is_refused(image):
    with pytest.raises(ImageError):
        vqcodec.compress(image)


def test_sixteen_bits_are_not_clipped():
    """A ramp over all 16 bits, in the forms that Pillow has for it, becomes a ramp over all 8 bits."""
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for source in (Image.fromarray(ramp), Image.fromarray(ramp.astype(np.int32))):
        back = np.asarray(vqcodec.decompress(vqcodec.compress(source, quality=100, effort=0)))
        assert np.abs(back - ramp / 257).mean() < 3


@pytest.mark.parametrize("change, broken", [
    ({"mode": "RGBA"}, "mode"), ({"pixels": np.zeros((71, 97, 3), np.uint8)}, "dB"), ({"pixels": np.zeros((71, 96, 3), np.uint8)}, "size"),
    ({"alpha": np.ones((71, 97), np.uint8)}, "alpha"), ({"metadata": {"xmp": b"<x/>"}}, "metadata"), ({"warns": True}, "warnings"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_broken_promises_are_noticed(change, broken):
    pixels = archive.scene(97, 71)
    good = Specimen("RGB", pixels, "RGB", pixels, 30)
    with pytest.raises(Broken, match=broken):
        there_and_back(dataclasses.replace(good, **change))
