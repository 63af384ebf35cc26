"""Model files: what is saved is what is loaded, and nothing unsound is."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vqcodec.errors import ModelError
from vqcodec.model import file
from vqcodec.model.file import Model, fingerprint


def rewritten(model: Model, path, **changes):
    """Save the model's tensors with some replaced (or removed: None), bypassing the checks of `save`."""
    tensors = {k: v for k, v in {**model.tensors, **changes}.items() if v is not None}
    metadata = {"format": file.FORMAT, "config": json.dumps(model.config.to_json())}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata=metadata)
    return path


def test_round_trip(small_model, tmp_path):
    path = tmp_path / "copy.safetensors"
    file.save(path, small_model.config, small_model.tensors)
    copy = file.load(path)
    assert copy.fingerprint == small_model.fingerprint and copy.config == small_model.config
    assert file.load(path) is copy  # read once
    assert file.read_config(path) == small_model.config
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(copy.autoencoder(x).pixels, small_model.autoencoder(x).pixels)
    assert not list(tmp_path.glob("*.partial"))


def test_fingerprint_does_not_see_what_only_encoders_read(small_model):
    auto = small_model.config.autoencoder
    weighted = dataclasses.replace(auto, distortion_weights=tuple(range(1, len(auto.maps) + 1)))
    config = dataclasses.replace(small_model.config, autoencoder=weighted)
    assert fingerprint(config, small_model.tensors) == small_model.fingerprint
    described = config.to_json()
    del described["autoencoder"]["distortion_weights"]  # as files had it before there were any
    assert type(config).from_json(described).autoencoder.distortion_weights == ()


def test_fingerprint_sees_every_tensor_and_the_description(small_model):
    seen = {small_model.fingerprint}
    for name, array in small_model.tensors.items():
        changed = array.copy()
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
        seen.add(fingerprint(small_model.config, {**small_model.tensors, name: changed}))
    assert len(seen) == len(small_model.tensors) + 1
    config = small_model.config
    assert fingerprint(dataclasses.replace(config, name="other"), small_model.tensors) not in seen
    assert fingerprint(dataclasses.replace(config, card={"note": "x"}), small_model.tensors) == small_model.fingerprint


def test_missing_and_superfluous_tensors(small_model, tmp_path):
    for name in ("tables/exp", "prior.1/logits.weight"):
        with pytest.raises(ModelError):
            file.load(rewritten(small_model, tmp_path / "a.safetensors", **{name: None}))
    with pytest.raises(ModelError, match="unexpected"):
        file.load(rewritten(small_model, tmp_path / "b.safetensors", **{"other/x": np.zeros(1, np.int8)}))


def test_autoencoder_tensors_are_checked_when_it_is_built(small_model, tmp_path):
    name = "autoencoder/transform.patch.bias"
    for number, wrong in enumerate((None, np.zeros(3, np.float16), np.full_like(small_model.tensors[name], np.nan))):
        model = file.load(rewritten(small_model, tmp_path / f"{number}.safetensors", **{name: wrong}))
        with pytest.raises(ModelError, match="autoencoder"):
            model.autoencoder


@pytest.mark.parametrize("content", [b"", b"x" * 100, (2**62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}"])
def test_not_a_model(content, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="bad.safetensors"):
        file.load(path)


def test_truncated_and_absent(small_model, tmp_path):
    path = rewritten(small_model, tmp_path / "whole.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError):
        file.load(short)
    with pytest.raises(ModelError, match="none.safetensors"):
        file.load(tmp_path / "none.safetensors")


def test_other_format_version(small_model, tmp_path):
    path = tmp_path / "new.safetensors"
    save_file(dict(small_model.tensors), path, metadata={"format": "vqcodec-model-9", "config": "{}"})
    with pytest.raises(ModelError, match="vqcodec-model-9"):
        file.load(path)


def test_stored_dtypes(small_model, tmp_path):
    tensors = load_file(rewritten(small_model, tmp_path / "m.safetensors"))
    auto = {k: v for k, v in tensors.items() if k.startswith("autoencoder/")}
    for name, array in auto.items():
        expected = "uint8" if name.endswith(".usage") else "int8" if name + ".scale" in auto else "float16"
        assert str(array.dtype) == expected, name
    assert "autoencoder/transform.patch.weight.scale" in auto
    assert {str(v.dtype) for k, v in tensors.items() if k.startswith("prior.")} == {"int8", "int16", "int32", "uint8"}


def test_rounded_weights():
    random = np.random.default_rng(0)
    weight = (random.standard_normal((40, 16, 3, 3)) * np.exp(random.standard_normal((40, 1, 1, 1)))).astype(np.float32)
    weight[7] = 0
    found = file.rounded("conv.weight", weight)
    step = np.abs(weight).max((1, 2, 3)) / 127
    assert np.all(np.abs(found - weight).max((1, 2, 3)) <= 0.51 * step + 1e-7) and not found[7].any()
    np.testing.assert_array_equal(file.rounded("conv.weight", found), found)  # once is enough
    small = weight[:2]
    np.testing.assert_array_equal(file.rounded("conv.weight", small), small.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("wrong", [np.ones(3, np.float16), np.ones(24, np.float32), np.ones((24, 1), np.float16)])
def test_scales_must_fit(small_model, tmp_path, wrong):
    name = "autoencoder/transform.patch.weight.scale"
    assert small_model.tensors[name].shape == (24,)
    model = file.load(rewritten(small_model, tmp_path / "s.safetensors", **{name: wrong}))
    with pytest.raises(ModelError, match="scale"):
        model.autoencoder
