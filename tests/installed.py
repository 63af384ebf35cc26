"""Checks the installed vqcodec: a wheel, or the core on another processor (tests/cross.sh).

    python tests/installed.py [--maps-only]

Golden networks (`vqcodec.ops.selftest`) and the code maps of the golden files, computed by every variant that
the processor supports; then, unless ``--maps-only`` says that there is no PyTorch, an image through API and command line.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import vqcodec
from vqcodec import ops
from vqcodec.codec.codec import Codec
from vqcodec.codec.decoder import CodedImage
from vqcodec.ops import selftest

GOLDEN = Path(__file__).parent / "golden"
#: Of the streams and samples of check_samples, as the reference makes them.
SAMPLES = "c278b1789d537b3d6cf92868dec44a8e3d4e2eaa64cd96a8c749ae74645d713d"


def check_networks(backend: str) -> None:
    priors, (coarser, codes), (streams, words) = (
        selftest.golden_priors(),
        selftest.golden_map(),
        selftest.golden_streams(),
    )
    place = selftest.CONDITION
    found = ops.prior_frequencies(priors[-1], codes, coarser, place, backend=backend)
    assert selftest.digest(*found) == selftest.FREQUENCIES, backend
    for stream, numbers, decoded, sampled in zip(streams, words, selftest.DECODED, selftest.SAMPLED, strict=True):
        maps = ops.wavefront_decode(priors, selftest.SHAPES, stream, place, backend=backend)
        assert selftest.digest(*maps) == decoded, backend
        maps = ops.wavefront_sample(
            priors,
            selftest.SHAPES,
            numbers,
            place,
            sharpness=selftest.SHARPNESS,
            nucleus=selftest.NUCLEUS,
            backend=backend,
        )
        assert selftest.digest(*maps) == sampled, backend
    network, planes = selftest.golden_network()
    assert selftest.digest(*ops.run_network(network, planes, backend=backend)) == selftest.PLANES, backend
    assert selftest.digest(*selftest.coded(ops.backend.backend(backend))) == selftest.AUTOENCODER, backend
    candidates = ops.code_candidates(*selftest.golden_choice(), 20, backend=backend)
    assert selftest.digest(*candidates) == selftest.CANDIDATES, backend


def check_samples(backend: str) -> None:
    """Tiles without loss, with a bound, of 16 bits, and indices: the same streams everywhere, and back."""
    y, x = np.mgrid[:61, :83].astype(np.int64)
    rough = (x * y >> 4 ^ 5 * x + 3 * y) & 15
    soft = np.stack([np.minimum(x, 90 - x) * (2 + c) + y + rough * (c + 1) // 2 for c in range(3)]) % 256
    found = hashlib.sha256()
    for shape, samples in (
        (ops.TileShape(61, 83, 3), soft),
        (ops.TileShape(61, 83, 3, slices=1, bound=4), soft),
        (ops.TileShape(61, 83, 2, depth=16), soft[:2] * 200 + rough),
    ):
        tile, back = ops.sample_tile(shape, backend=backend), ops.sample_tile(shape, backend=backend)
        tile.set_samples(np.ascontiguousarray(samples, np.uint16))
        (streams,) = ops.encode_samples([tile], shape.slices, backend=backend)
        assert ops.decode_samples([back], shape.slices, [streams], backend=backend) == [True]
        assert np.array_equal(back.samples(), tile.samples()), backend
        found.update(b"".join(stream for channel in streams for stream in channel))
        found.update(np.ascontiguousarray(tile.samples(), "<u2").tobytes())
    indices = np.ascontiguousarray(rough * rough, np.uint16)
    (stream,) = ops.encode_indices([indices], 8, backend=backend)
    assert np.array_equal(ops.decode_indices([indices.shape], 8, [stream], backend=backend)[0], indices)
    found.update(stream)
    assert found.hexdigest() == SAMPLES, (backend, found.hexdigest())


def digest(maps: Iterable[np.ndarray]) -> str:
    """SHA-256 of code maps: shapes and little-endian int32 values."""
    found = hashlib.sha256()
    for codes in maps:
        found.update(f"{codes.shape}".encode() + np.ascontiguousarray(codes, "<i4").tobytes())
    return found.hexdigest()


def check_files(backend: str) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())
    codec = Codec()
    engine = codec._engine
    engine.backend = backend
    assert engine.model.fingerprint.hex() == expected["model"]
    for name, wanted in expected["maps"].items():
        with CodedImage(engine, GOLDEN / f"{name}.vqc") as picture:
            found = digest(picture.code_maps())
            pixels = picture.decode().pixels
        assert found == wanted, (name, backend)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == expected["pixels"][name], (name, backend)
        assert digest(codec.encode_maps(pixels, 60)) == expected["again"][name], (name, backend)


def check_pictures() -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]  # as where there is none
    y, x = np.mgrid[0:96, 0:144]
    pixels = np.stack([127 + 100 * np.sin(x / 20 + i) * np.cos(y / 15) for i in range(3)], 2).astype(np.uint8)
    data = vqcodec.compress(pixels)
    error = np.asarray(vqcodec.decompress(data), float) - pixels
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 30
    (drawn,) = vqcodec.sample("flower-roses", size=(64, 48), seed=1)
    assert drawn.size == (64, 48)

    with tempfile.TemporaryDirectory() as folder:
        drawn.save(Path(folder, "in.png"))
        command = str(Path(sys.executable).with_name("vqcodec"))
        for arguments in (
            ["compress", "in.png", "a.vqc"],
            ["verify", "a.vqc"],
            ["info", "a.vqc"],
            ["decompress", "a.vqc", "out.png"],
        ):
            subprocess.run([command, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        assert Path(folder, "out.png").stat().st_size > 0


def main() -> None:
    variants = ops.cpu.cpu_variants()
    for backend in variants:
        check_networks(backend)
        check_samples(backend)
        check_files(backend)
    if "--maps-only" not in sys.argv:
        check_pictures()
    print(
        f"vqcodec {vqcodec.__version__} in {Path(vqcodec.__file__).parent}: all right on {platform.machine()}, "
        f"{sys.byteorder}-endian, {', '.join(variants)}"
    )


if __name__ == "__main__":
    main()
