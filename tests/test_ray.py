"""Datasets of Ray: two workers, bad images, and one worker killed in the middle."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqcodec
import vqcodec.ray
from tests.conftest import scene
from vqcodec import batch
from vqcodec.errors import InvalidArgument
from vqcodec.model import file as model_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(small_model, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("ray") / "model.safetensors"
    model_file.save(path, small_model.config, small_model.tensors)
    return str(path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with two CPUs and little memory, without network access."""
    folder = tempfile.mkdtemp(prefix="ray")  # short, because the paths of sockets are
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_agent_register_timeout_ms": "300000",
        }.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(vqcodec.__file__).parent.parent))
        import ray

        for attempt in range(4):  # a busy machine may exceed the 15 s that Ray gives its own processes
            try:
                ray.init(
                    num_cpus=2,
                    object_store_memory=100 << 20,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _temp_dir=folder,
                )
                break
            except Exception:
                ray.shutdown()
                if attempt == 3:
                    raise
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    names = [str(tmp_path / f"{i}.png") for i in range(30)]
    for i, name in enumerate(names):
        Image.fromarray(scene(24 + i, 32, i)).save(name)
    return names


def test_round_trip_with_bad_pictures(cluster, pictures, model):
    """Every name gives one row, in which there is a file or a reason."""
    import ray

    Path(pictures[3]).write_bytes(b"no image")
    os.remove(pictures[5])
    rows = vqcodec.ray.compress(pictures[:10], quality=70, model=model).take_all()
    assert sorted(row["path"] for row in rows) == sorted(pictures[:10])
    for row in rows:
        number = pictures.index(row["path"])
        if number in (3, 5):
            assert row["error"].startswith({3: "ImageError: ", 5: "FileNotFoundError: "}[number])
            assert (row["vqc"], row["width"]) == (b"", 0)
        else:
            assert row["error"] == "" and (row["width"], row["height"]) == (32, 24 + number)
            assert row["vqc"] == vqcodec.compress(row["path"], quality=70, model=model)

    kept = ray.data.from_items([{"vqc": row["vqc"], "note": row["path"]} for row in rows])
    back = vqcodec.ray.decompress(kept, model=model, workers=1).take_all()
    assert sorted(row["note"] for row in back) == sorted(pictures[:10])  # other columns are kept
    for row in back:
        vqc = next(r["vqc"] for r in rows if r["path"] == row["note"])
        if vqc:
            assert np.array_equal(
                np.asarray(Image.open(io.BytesIO(row["picture"]))), np.asarray(vqcodec.decompress(vqc, model=model))
            )
        else:
            assert row["error"].startswith("NotVqcodec: ")


def test_a_killed_worker_loses_nothing(cluster, pictures, model, monkeypatch):
    """Ray replaces it and repeats its batch."""
    monkeypatch.setattr(vqcodec.ray, "BATCH", 1)
    expected = {name: len(vqcodec.compress(name, effort=9, model=model)) for name in pictures}
    rows = iter(vqcodec.ray.compress(pictures, effort=9, model=model, workers=2).iter_rows())
    found = [next(rows)]
    before = coders()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    found += rows
    assert {row["path"]: len(row["vqc"]) for row in found} == expected
    assert len(found) == len(expected) and not any(row["error"] for row in found)


def coders() -> list[int]:
    """Processes of the actors, below this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if command.startswith(b"ray::") and b"Coder" in command and os.getpid() in ancestors(int(folder.name)):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            pass
    return found


def ancestors(process: int) -> set[int]:
    found = set()
    while process > 1:
        process = int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
        found.add(process)
    return found


def test_wrong_arguments(cluster, model):
    import ray

    with pytest.raises(InvalidArgument, match="must have the column 'picture', found name"):
        vqcodec.ray.compress(ray.data.from_items([{"name": "a"}]), model=model)
    with pytest.raises(vqcodec.VqcodecError, match=r"a\.xyz: must have the extension"):
        vqcodec.ray.decompress(["a.vqc"], extension=".xyz", model=model)


def test_bytes_keep_their_zeros(model):
    """NumPy's own bytes type drops trailing zeros, which files may have."""
    code = vqcodec.ray.Coder(batch.Decoder(model), "vqc", "picture", "a.bmp", paths=False)
    black = vqcodec.compress(np.zeros((16, 16, 3), np.uint8), quality=100, model=model)
    made = code({"vqc": np.array([black], object), "name": np.array(["x"])})
    assert made["picture"].dtype == object and Image.open(io.BytesIO(made["picture"][0])).format == "BMP"
    assert (list(made["name"]), made["width"], made["error"]) == (["x"], [16], [""])


def test_importing_needs_no_ray():
    """So that the error for a missing package is that of the call."""
    subprocess.run([sys.executable, "-c", "import sys, vqcodec.ray; sys.exit('ray' in sys.modules)"], check=True)
