"""The fuzz targets on their corpora and on mutations of these, without a fuzzer (docs/FUZZING.md)."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.run import CORPUS, MAX_FILES, NATIVE, PYTHON, ROOT

BUILD = ROOT / "build" / "fuzz_replay"
MUTATIONS = 300
SECONDS = 10  #: of CPU time that one input may take


def corpus(name: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]


def mutations(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Inputs with a few bytes changed, inserted, removed, or copied from another; deterministic."""
    source = random.Random(1)
    for _ in range(count):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, 4)):
            at, other = source.randint(0, len(data)), source.choice(seeds)
            begin = source.randint(0, len(other))
            size = source.choice((0, 1, 1, 2, 8))
            data[at : at + size] = source.choice((source.randbytes(1), b"", b"\xff", other[begin : begin + 8]))
        yield bytes(data)


@pytest.mark.parametrize("name", PYTHON)
def test_python_target(name: str) -> None:
    def late(*_: object) -> None:
        raise TimeoutError(f"one input must take less than {SECONDS} s")

    targets.prepare(name)
    seeds = corpus(name)
    assert 5 <= len(seeds) <= MAX_FILES
    before = signal.signal(signal.SIGPROF, late)
    try:
        for data in (*seeds, *mutations(seeds, MUTATIONS)):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                targets.TARGETS[name](data)
            except Exception as error:
                raise AssertionError(f"{name}: broken by the input {data.hex()}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_every_target_has_a_name_and_a_corpus() -> None:
    assert set(PYTHON) == set(targets.TARGETS)
    assert {folder.name for folder in CORPUS.iterdir()} == {*PYTHON, *NATIVE}
    listed = (ROOT / "CMakeLists.txt").read_text()
    assert f"set(VQCODEC_FUZZ_TARGETS {' '.join(sorted(NATIVE))})" in listed


def test_the_small_model_of_the_targets_is_sound(tmp_path: Path) -> None:
    """Otherwise every change to it would be rejected for an existing error."""
    path = tmp_path / "micro.safetensors"
    path.write_bytes(targets._micro_file())
    model = targets.file.load(path)
    assert model.config == targets.micro()[0] and len(model.priors) == 3
    assert model.autoencoder.config == model.config.autoencoder


@pytest.mark.parametrize(
    "break_it", [lambda: None, lambda: (_ for _ in ()).throw(KeyError("x"))], ids=["silent", "untyped"]
)
def test_targets_notice(monkeypatch: pytest.MonkeyPatch, break_it) -> None:
    """A library that returned nonsense, or raised an untyped error, would not pass."""
    good = next(data for data in corpus("alpha") if len(data) > 3 and data[2] == 0)
    targets.alpha(good)
    monkeypatch.setattr(targets.alpha_plane, "decode", lambda *_: break_it())
    with pytest.raises((AttributeError, KeyError)):
        targets.alpha(good)


@pytest.fixture(scope="module")
def replay() -> Path:
    """The C++ targets with their own main, compiled quickly: `make sanitize` runs them with sanitizers."""
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(BUILD),
        "-DVQCODEC_FUZZ=ON",
        "-DVQCODEC_PYTHON=OFF",
        "-DVQCODEC_CUDA=off",
        "-DCMAKE_BUILD_TYPE=Debug",
    ]
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", *(f"fuzz_{name}" for name in NATIVE)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return BUILD


@pytest.mark.parametrize("name", NATIVE)
def test_native_target(name: str, replay: Path) -> None:
    files = len(corpus(name))
    assert 5 <= files <= MAX_FILES
    done = subprocess.run(
        [str(replay / f"fuzz_{name}"), "--mutations", str(MUTATIONS), str(CORPUS / name)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"{files} inputs and {MUTATIONS} mutations" in done.stdout
