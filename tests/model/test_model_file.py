"""Model files: what is saved is what is loaded, and nothing unsound is."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
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
    assert not list(tmp_path.glob("*.partial"))


def test_a_rewritten_file_is_loaded_anew(small_model, tmp_path):
    path = tmp_path / "a.safetensors"
    loaded = []
    for name in ("one", "two"):
        file.save(path, dataclasses.replace(small_model.config, name=name), small_model.tensors)
        os.utime(path, ns=(0, 0))
        loaded.append((path.stat().st_size, file.load(path).config.name))
    assert loaded[0][0] == loaded[1][0] and [name for _, name in loaded] == ["one", "two"]


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


def test_autoencoder_tensors_are_checked(small_model, tmp_path):
    name = "autoencoder/patch.bias"
    bias = small_model.tensors[name]
    for number, wrong in enumerate((None, np.zeros(3, np.int32), bias.astype(np.int64), np.full_like(bias, 2**31 - 1))):
        with pytest.raises(ModelError, match="autoencoder"):
            file.load(rewritten(small_model, tmp_path / f"{number}.safetensors", **{name: wrong}))


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, (2**62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}"]
)
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


def test_all_tensors_are_integers(small_model, tmp_path):
    tensors = load_file(rewritten(small_model, tmp_path / "m.safetensors"))
    assert {str(array.dtype) for array in tensors.values()} == {"int8", "int16", "int32", "uint8", "uint16"}
