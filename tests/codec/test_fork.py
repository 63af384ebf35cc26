"""A forked process decodes, whatever its parent's threads were doing: preforking servers, multiprocessing."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import vqcodec
from tests.conftest import SMALL_MODEL, scene
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
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # instead of hanging
        found = np.asarray(vqcodec.decompress(coded, model=SMALL_MODEL))
        os._exit(0 if np.array_equal(found, expected) else 1)
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
