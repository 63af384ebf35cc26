"""A forked process decodes, whatever its parent's threads were doing: preforking servers, multiprocessing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vqcodec
from tests.conftest import SMALL_MODEL, scene
from vqcodec.codec.decoder import Canvas, CodedImage
from vqcodec.model import file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


@pytest.fixture(scope="module")
def coded(small_model) -> bytes:
    vqcodec.set_num_threads(2)
    return vqcodec.compress(scene(70, 100), model=small_model)


@pytest.fixture(scope="module")
def expected(small_model, coded) -> np.ndarray:
    return np.asarray(vqcodec.decompress(coded, model=small_model))


def child_decodes(coded: bytes, expected: np.ndarray) -> bool:
    return in_child(lambda: np.array_equal(np.asarray(vqcodec.decompress(coded, model=SMALL_MODEL)), expected))


def in_child(holds: Callable[[], bool]) -> bool:
    """What a forked process says; False if it hangs or fails."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # instead of hanging
        status = 1
        try:
            status = 0 if holds() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_after_use(coded, expected):
    assert child_decodes(coded, expected)


def test_while_a_model_is_loaded(coded, expected):
    held, done = threading.Event(), threading.Event()

    def load() -> None:
        with file._LOCK:
            held.set()
            done.wait()

    thread = threading.Thread(target=load)
    thread.start()
    held.wait()
    try:
        assert child_decodes(coded, expected)
    finally:
        done.set()
        thread.join()


def test_while_an_open_image_is_decoded(small_model, coded, expected, monkeypatch):
    """Another thread holds the image's lock, in the middle of decoding: the child decodes its copy of the image."""
    held, done = threading.Event(), threading.Event()
    parent, usual = os.getpid(), Canvas.decode

    def slow(*arguments: Any) -> None:
        if os.getpid() == parent:
            held.set()
            done.wait()
        usual(*arguments)

    monkeypatch.setattr(Canvas, "decode", slow)
    with vqcodec.open(coded, model=small_model) as image:
        thread = threading.Thread(target=image.decode)
        thread.start()
        held.wait()
        try:
            assert in_child(lambda: np.array_equal(image.decode().pixels, expected))
        finally:
            done.set()
            thread.join()
        assert np.array_equal(image.decode().pixels, expected)


def test_processes_share_an_open_file(small_model, tmp_path):
    """A position in the file would be shared, too: reads would get each other's bytes."""
    (tmp_path / "a.vqc").write_bytes(vqcodec.compress(scene(256, 256), tile=64, model=small_model))
    whole = np.asarray(vqcodec.decompress(tmp_path / "a.vqc", model=small_model))

    def reads(image: CodedImage) -> bool:
        parts = []
        for _ in range(50):
            image._canvas.known = [0] * 16
            parts.append(image.decode(region=(70, 70, 200, 200)).pixels)
        return all(np.array_equal(part, whole[70:200, 70:200]) for part in parts)

    with vqcodec.open(tmp_path / "a.vqc", model=small_model) as image:
        children = []
        for _ in range(2):
            if (child := os.fork()) == 0:
                status = 1
                try:
                    status = 0 if reads(image) else 1
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_pools_of_forked_processes(coded, expected):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(_decoded, [coded] * 4).get(60)
    assert all(np.array_equal(each, expected) for each in found)


def _decoded(coded: bytes) -> np.ndarray:
    return np.asarray(vqcodec.decompress(coded, model=SMALL_MODEL))


def test_under_load(small_model, coded, expected):
    done = threading.Event()
    wrong = []

    def work() -> None:
        while not done.is_set():
            found = np.asarray(vqcodec.decompress(coded, model=small_model))
            wrong.append(not np.array_equal(found, expected))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(child_decodes(coded, expected) for _ in range(5))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong and not any(wrong)
