"""vqcodec/model/tensors.py against the safetensors package, and against files that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vqcodec.model import tensors

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=9).filter(lambda name: name != tensors.METADATA),
    st.sampled_from(sorted(tensors.DTYPES.values(), key=str)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=5,
)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes() for n in a
    )


@settings(deadline=None, max_examples=100)
@given(ARRAYS, st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3))
def test_both_read_what_either_writes(tmp_path_factory, arrays, texts):
    path = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    tensors.write(path, arrays, texts)
    assert equal(load_file(path), arrays) and equal(tensors.read(path)[0], arrays)
    assert tensors.read(path)[1] == texts == tensors.read_metadata(path)
    with safe_open(path, "np") as opened:
        assert (opened.metadata() or {}) == texts
    save_file(arrays, path, texts or None)
    assert equal(tensors.read(path)[0], arrays) and tensors.read(path)[1] == texts


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "I8", "shape": [4], "data_offsets": [0, 4], **changes}


@pytest.mark.parametrize(
    "header",
    [
        [],
        1,
        {"a": 1},
        {"a": {}},
        {"a": entry(dtype="BF16")},
        {"a": entry(dtype=["I8"])},
        {"a": entry(dtype="I16")},
        {"a": entry(shape=[5])},
        {"a": entry(shape=[1 << 61, 1 << 61, 0], data_offsets=[0, 4])},
        {"a": entry(shape=[-4])},
        {"a": entry(shape=[4.0])},
        {"a": entry(shape=[True] * 4)},
        {"a": entry(shape=[1] * 40)},
        {"a": entry(shape=4)},
        {"a": entry(data_offsets=[0, 5], shape=[5])},
        {"a": entry(data_offsets=[4, 0])},
        {"a": entry(data_offsets=[-1, 3])},
        {"a": entry(data_offsets=[0])},
        {"a": entry(data_offsets=[0, 1 << 70])},
        {"a": entry(), "b": entry()},
        {"a": entry(shape=[2], data_offsets=[0, 2]), "b": entry(shape=[1], data_offsets=[3, 4])},
        {"a": entry(shape=[2], data_offsets=[0, 2])},
        {},
        {"a": entry(), "__metadata__": {"x": 1}},
        {"a": entry(), "__metadata__": []},
    ],
    ids=str,
)
def test_what_is_not_sound_is_refused(header, tmp_path):
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ValueError, match="."):
        tensors.read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{]",
        (10).to_bytes(8, "little") + b"\xff" * 10,
        (22).to_bytes(8, "little") + b'{"a": [1], "a": [2]}  ',
        (40000).to_bytes(8, "little") + b"[" * 40000,
    ],
)
def test_what_is_not_a_header(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    for read in (tensors.read, tensors.read_metadata):
        with pytest.raises(ValueError, match="."):
            read(path)


def test_places_need_not_be_aligned(tmp_path: Path):
    header = {"a": entry(shape=[1], data_offsets=[0, 1]), "b": entry(dtype="I32", shape=[1], data_offsets=[1, 5])}
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes([7, 1, 2, 0, 0]))
    found = tensors.read(path)[0]
    assert found["a"].tolist() == [7] and found["b"].tolist() == [513] and found["b"].flags.aligned
