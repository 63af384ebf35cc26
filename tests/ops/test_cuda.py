"""GPUs from the user's point of view, and the kernels under conditions that vary between GPUs.

That the kernels compute what the others do is tested where those are: `test_prior`,
`test_nearest_codebook` and `test_default_model` run them as the variant "cuda".
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import vqcodec
from tests.conftest import scene
from tests.golden import make
from tests.ops.test_nearest_codebook import problem
from tests.ops.test_prior import Hierarchy, assert_same_maps, random_words
from tests.support import cuda_core
from vqcodec import ops
from vqcodec.codec import images
from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.ops import backend, cpu, cuda, selftest
from vqcodec.ops.reference import quantizer as reference_quantizer

#: How threads take turns, what fits into shared memory, how many blocks live at a time.
CONDITIONS = [
    dict(order="forward"),
    dict(order="reverse"),
    dict(order="random", seed=1),
    dict(order="random", seed=2, resident_blocks=1),
    dict(order="reverse", shared_limit=64 * 1024, resident_blocks=7, compute_major=7),
    dict(order="random", seed=3, shared_limit=99 * 1024, resident_blocks=2, compute_major=8),
]
every_condition = pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: "-".join(map(str, c.values())))


@pytest.fixture
def stranger(host_core: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """The kernels compiled for the CPU, behind vqcodec.ops.cuda: a device that has not been self-tested."""
    cuda_core.use(host_core, monkeypatch)
    yield host_core
    host_core.configure()
    cuda_core.forget()


@pytest.fixture
def core(stranger: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same, trusted."""
    monkeypatch.setattr(selftest, "failure", lambda device: None)
    return stranger


# -- the kernels ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_simulator_catches_what_it_claims(host_core):
    """Its own tests: good kernels pass, deliberately broken ones are reported."""
    done = subprocess.run([cuda_core.BUILD / "cuda_simulator_tests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@every_condition
def test_hierarchy(core, condition):
    """Decoding, sampling and whole maps of a batch of unequal tiles, whatever the order of threads."""
    hierarchy = Hierarchy()
    core.configure(**condition)
    jobs, samples, expected = [], [], []
    for i, size in enumerate([(8, 12), (8, 12), (4, 20), (1, 1)]):
        shapes = hierarchy.shapes(*size)
        words = random_words(shapes, i)
        maps = ops.wavefront_sample(hierarchy.priors, shapes, words, (i % 3, i % 2), sharpness=200, backend="scalar")
        streams = hierarchy.encode(maps, i % 3, i % 2, "scalar")
        assert hierarchy.encode(maps, i % 3, i % 2, "cuda") == streams
        jobs.append(ops.DecodeJob(shapes, streams, (i % 3, i % 2)))
        samples.append(ops.SampleJob(shapes, words, (i % 3, i % 2)))
        expected.append(maps)
    for found in (
        ops.wavefront_decode_batch(hierarchy.priors, jobs, backend="cuda"),
        ops.wavefront_sample_batch(hierarchy.priors, samples, sharpness=200, backend="cuda"),
    ):
        for maps, wanted in zip(found, expected, strict=True):
            assert_same_maps(maps, wanted)


@pytest.mark.slow
@every_condition
def test_nearest_codebook(core, condition):
    core.configure(**condition)
    for (rows, codes, dims), ties in itertools.product([(300, 70, 5), (129, 513, 40), (64, 100, 130)], [False, True]):
        z, codebook, bias = problem(rows, codes, dims, rows, ties)
        expected = reference_quantizer.nearest_codebook(z, codebook, bias)
        found, statistics = cuda_core.nearest_codebook(z, codebook, bias, return_statistics=True)
        np.testing.assert_array_equal(found, expected)
        for a, b in zip(statistics, reference_quantizer.codebook_statistics(z, expected, codes), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@every_condition
def test_shipped_model_decodes_a_real_file(core, condition):
    core.configure(**condition)
    path = make.HERE / "colour.vqc"
    maps = vqcodec.decode_maps(path.read_bytes(), device="cuda")
    assert make.digest(maps) == json.loads(make.EXPECTED.read_text())["maps"]["colour"]


# -- the self-test -------------------------------------------------------------------------


@pytest.mark.slow
def test_golden_map_is_what_the_reference_computes():
    found = selftest.measure()
    for name in ("FREQUENCIES", "DECODED", "SAMPLED", "PLANES", "AUTOENCODER"):
        assert getattr(selftest, name) == found[name]
    # The test is sensitive: codes have many probabilities, none is certain, and the sample uses most of them.
    assert 4 < np.log2(2**24 / found["frequency"]).mean() < 14
    assert len(np.unique(found["samples"][0][2])) > 50


@pytest.mark.parametrize("variant", cpu.cpu_variants())
def test_golden_map_on_the_cpu(variant):
    priors, (coarser, codes) = selftest.golden_priors(), selftest.golden_map()
    found = ops.prior_frequencies(priors[-1], codes, coarser, selftest.CONDITION, backend=variant)
    assert selftest.digest(*found) == selftest.FREQUENCIES


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("compute_major", [7, 9])
def test_golden_networks_on_the_device(stranger, order, compute_major):
    stranger.configure(order=order, seed=4, compute_major=compute_major)
    network, planes = selftest.golden_network()
    for memory in (100_000, 64 << 20):
        device = replace(cuda.device(0), memory=memory)
        assert selftest.digest(*device.run_network(network, planes)) == selftest.PLANES
        assert selftest.digest(*selftest.coded(device)) == selftest.AUTOENCODER


def test_golden_vectors_are_near_ties():
    z, codebook = selftest.golden_vectors()
    cost = np.sort(((z[:, None].astype(float) - codebook) ** 2).sum(2), axis=1)
    assert np.median((cost[:, 1] - cost[:, 0]) / cost[:, 0]) < 1e-4
    assert len(np.unique(reference_quantizer.nearest_codebook(z, codebook))) > 60


@pytest.mark.slow
def test_golden_maps_on_the_device(stranger):
    assert selftest.failure(cuda.device(0)) is None
    assert backend.trusted(0)


class Liar:
    """Kernels of which one is wrong in one place."""

    def __init__(self, core: ModuleType, wrong: str) -> None:
        self._core, self._wrong = core, wrong

    def __getattr__(self, name):
        return getattr(self._core, name)

    def prior_frequencies(self, *arguments):
        start, frequency = self._core.prior_frequencies(*arguments)
        if self._wrong == "prior_frequencies":
            start[-1] += 1
        return start, frequency

    def run_network(self, *arguments):
        planes = self._core.run_network(*arguments)
        if self._wrong == "run_network":
            planes[-1][-1, -1, -1] ^= 1
        return planes

    def autoencoder_pixels(self, *arguments):
        pixels = self._core.autoencoder_pixels(*arguments)
        if self._wrong == "autoencoder_pixels":
            pixels[-1, -1, -1] ^= 1
        return pixels

    def wavefront_sample(self, *arguments):
        maps, corrupt = self._core.wavefront_sample(*arguments)
        if self._wrong == "wavefront_sample":
            maps[-1][0][-1, -1] ^= 1
        return maps, corrupt

    def wavefront_decode(self, *arguments):
        if self._wrong == "an error":
            raise BackendError("CUDA: running a kernel: no kernel image is available")
        maps, corrupt = self._core.wavefront_decode(*arguments)
        if self._wrong == "wavefront_decode":
            maps[-1][-1][-1, -1] ^= 1
        return maps, corrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong, what",
    [
        ("prior_frequencies", "its frequencies of the golden map"),
        ("wavefront_sample", "its golden samples"),
        ("wavefront_decode", "it decodes"),
        ("run_network", "its golden network"),
        ("autoencoder_pixels", "its golden autoencoder"),
        ("an error", "CUDA: running a kernel: no kernel image"),
    ],
)
def test_a_device_that_computes_wrongly_is_refused(stranger, wrong, what, monkeypatch):
    cuda_core.use(Liar(stranger, wrong), monkeypatch)
    with pytest.warns(RuntimeWarning, match=f"is refused: {what}"):
        codec = vqcodec.Codec(device="cuda")
    data = (make.HERE / "colour.vqc").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the warning comes only once
        assert make.digest(codec.read(data)[1]) == json.loads(make.EXPECTED.read_text())["maps"]["colour"]
        ops.wavefront_sample([], [], [], (0, 0), backend="cuda")


@pytest.mark.slow
def test_devices_without_memory_pools(host_core):
    """Some virtual GPUs have none."""
    code = (
        "from tests.support import cuda_core; from vqcodec.ops import cuda, selftest; core = cuda_core.build();"
        "print(selftest.failure(cuda.Device(0, core)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cuda_core.ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "VQCODEC_CUDA_SIMULATOR_NO_POOLS": "1"},
    )
    assert done.stdout.strip() == "None"


# -- Codec(device=...) ---------------------------------------------------------------------


@pytest.mark.slow
def test_codec_with_a_gpu_gives_the_same_files(core):
    picture = Image.fromarray(scene(70, 100))
    picture = images.to_array(picture)
    codec = vqcodec.Codec(device="cuda:0")
    data = codec.compress(picture, quality=60)
    assert data == vqcodec.Codec().compress(picture, quality=60)
    np.testing.assert_array_equal(codec.decompress(data).pixels, vqcodec.Codec().decompress(data).pixels)
    for a, b in zip(
        codec.sample_maps(3, 2, size=(64, 48), seed=1), vqcodec.Codec().sample_maps(3, 2, size=(64, 48), seed=1)
    ):
        assert_same_maps(a, b)


def no_driver() -> SimpleNamespace:
    return SimpleNamespace(devices=lambda: (0, "no CUDA-capable device is detected"))


@pytest.mark.parametrize(
    "device, message",
    [
        ("cuda", "no CUDA device: no CUDA-capable device is detected"),
        ("cuda:3", "no CUDA device"),
    ],
)
def test_no_gpu_is_said_plainly(device, message, monkeypatch):
    cuda_core.use(no_driver(), monkeypatch)
    assert cuda.device_count() == 0
    with pytest.raises(BackendError, match=message):
        vqcodec.Codec(device=device)
    with pytest.raises(BackendError, match=message):
        vqcodec.compress(scene(16, 16), device=device)
    cuda_core.forget()


def test_too_high_a_number(core):
    with pytest.raises(BackendError, match="no CUDA device 9, only 0 to 0"):
        vqcodec.Codec(device="cuda:9")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda0", "", "CPU"])
def test_wrong_names(device):
    with pytest.raises(InvalidArgument, match="cuda or cuda:NUMBER"):
        vqcodec.Codec(device=device)


def test_a_build_without_kernels(monkeypatch):
    monkeypatch.setattr(cpu, "_core", lambda: SimpleNamespace())
    cuda_core.forget()
    assert cuda.device_count() == 0
    with pytest.raises(BackendError, match="compiled without nvcc"):
        vqcodec.Codec(device="cuda")
    cuda_core.forget()


@pytest.mark.skipif(cuda.device_count() > 0, reason="there is a GPU")
def test_command_line_without_a_gpu(tmp_path: Path):
    Image.fromarray(scene(16, 16)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "vqcodec", "compress", "--device", "cuda", str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a.vqc").exists()


# -- tensors -------------------------------------------------------------------------------


def test_tensors_of_different_devices_are_refused():
    z = torch.zeros(2, 3)
    with pytest.raises(InvalidArgument, match="codebook must be on cpu as z is, got meta"):
        ops.nearest_codebook(z, torch.zeros(2, 3, device="meta"))
