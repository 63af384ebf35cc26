"""Many images in several processes: order and records, bad images, killed workers, interrupts."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqcodec
from tests.conftest import scene
from tests.support import workers
from vqcodec import batch
from vqcodec.errors import BackendError, ImageError, InvalidArgument, ModelError
from vqcodec.model import file as model_file
from vqcodec.tools import pool


@pytest.fixture(scope="module")
def model(small_model, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("batch") / "model.safetensors"
    model_file.save(path, small_model.config, small_model.tensors)
    return str(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Images in two folders, one of them not an image, and unrelated files."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(["a.png", "b.JPG", "deep/c.png", ".hidden/d.png", ".e.png"]):
        Image.fromarray(scene(24 + i, 32, i)).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("hello")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- records -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_there_and_back(photos, tmp_path, model, jobs):
    records = list(batch.compress(photos, tmp_path / "out", jobs=jobs, quality=70, model=model))
    by_name = {Path(record.input).name: record for record in records}
    assert set(by_name) == {"a.png", "b.JPG", "c.png", "bad.png"} and len(records) == 4
    assert names(tmp_path / "out") == {"a.vqc", "b.vqc", "deep/c.vqc"}
    bad = by_name.pop("bad.png")
    assert isinstance(bad.error, ImageError) and "must be an image" in str(bad.error) and bad.bytes == 0
    for record in by_name.values():
        data = Path(record.output).read_bytes()
        assert data == vqcodec.compress(record.input, quality=70, model=model)
        assert (record.bytes, record.width, record.error) == (len(data), 32, None)
        assert record.height == Image.open(record.input).height and record.seconds > 0
    (tmp_path / "out/cut.vqc").write_bytes((tmp_path / "out/a.vqc").read_bytes()[:-9])
    back = {
        r.output: r for r in batch.decompress(tmp_path / "out", tmp_path / "back", jobs=jobs, model=model, partial=True)
    }
    assert names(tmp_path / "back") == {"a.png", "b.png", "deep/c.png", "cut.png"}
    assert back[str(tmp_path / "back/cut.png")].warnings[0].startswith("the image is not complete: ")
    expected = vqcodec.decompress((tmp_path / "out/deep/c.vqc").read_bytes(), model=model)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "back/deep/c.png")), np.asarray(expected))


def test_lists_of_paths_and_outputs_that_clash(photos, tmp_path, model):
    (photos / "deep/a.png").write_bytes((photos / "a.png").read_bytes())
    (tmp_path / "c.vqc").write_bytes(b"precious")
    paths = [photos / "a.png", photos / "deep/a.png", photos / "deep/c.png"]
    records = {record.input: record for record in batch.compress(iter(paths), tmp_path, jobs=1, model=model)}
    assert len(records) == 3 and records[str(paths[0])].error is None
    assert f"a.vqc is already the output of {paths[0]}" in str(records[str(paths[1])].error)
    assert "exists" in str(records[str(paths[2])].error)
    assert (tmp_path / "c.vqc").read_bytes() == b"precious"
    (again,) = batch.compress(paths[2:], tmp_path, jobs=1, model=model, force=True)
    assert again.error is None and vqcodec.info((tmp_path / "c.vqc").read_bytes())["height"] == 26


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_cells_that_are_no_names(photos, tmp_path, model, jobs):
    good = str(photos / "a.png")
    wrong = [None, float("nan"), 5, "", b"bytes", "with\0zero"]
    records = list(batch.compress([*wrong, good], tmp_path / "out", model=model, jobs=jobs))
    errors = [record for record in records if record.error]
    assert len(errors) == len(wrong) and all("a file name is expected" in str(record.error) for record in errors)
    assert [record.input for record in records if not record.error] == [good]


def test_folders_without_their_folders(photos, tmp_path, model):
    assert len(list(batch.compress(photos, tmp_path / "out", recursive=False, jobs=1, model=model))) == 3


def test_pictures_are_known_in_a_new_process(photos):
    """In a process where Pillow has not loaded its formats yet."""
    script = f"from vqcodec import batch; print(*batch.pictures_in({str(photos)!r}, '.vqc', False), sep='\\n')"
    found = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert found.split() == [str(photos / name) for name in ("a.png", "b.JPG", "bad.png")]


def test_records_as_json(tmp_path):
    record = batch.Record("a.png", "a.vqc", 5, 2, 3, 0.123456, ("odd",), None)
    assert json.loads(json.dumps(record.as_dict())) == {
        "input": "a.png", "output": "a.vqc", "bytes": 5, "width": 2, "height": 3, "seconds": 0.1235,
        "warnings": ["odd"], "error": None,
    }  # fmt: skip
    missing = FileNotFoundError(2, "No such file", "a.png")
    for error, kind, text in [
        (ImageError("bad"), "ImageError", "bad"),
        (missing, "FileNotFoundError", "a.png: No such file"),
        (MemoryError(), "MemoryError", "not enough memory for this image"),
        (KeyError("x"), "KeyError", "KeyError: 'x'"),
    ]:
        assert batch.Record("a", "b", error=error).as_dict()["error"] == {"type": kind, "message": text}


def test_wrong_arguments_at_once(photos, tmp_path, model, small_model):
    for options, error, message in [
        ({"quality": 101}, InvalidArgument, "quality"), ({"effort": 10}, InvalidArgument, "effort"),
        ({"jobs": 0}, InvalidArgument, "jobs must be"), ({"model": small_model}, InvalidArgument, "model must be a file name"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            batch.compress(photos, tmp_path / "out", **{"model": model, **options})
    with pytest.raises(InvalidArgument, match="must be a folder"):
        batch.compress(photos / "a.png", tmp_path / "out", model=model)
    with pytest.raises(ImageError, match="must have the extension"):
        batch.decompress(photos, tmp_path / "out", extension=".xyz", model=model)
    for jobs in (1, 2):
        with pytest.raises(ModelError, match="none"):
            list(batch.compress(photos, tmp_path / "out", jobs=jobs, model=tmp_path / "none.safetensors"))
    assert names(tmp_path) == {f"photos/{name}" for name in names(photos)}


# -- workers that die --------------------------------------------------------------------


def run(tasks: list[str], folder: Path, jobs: int = 2, kind: str = "work") -> dict[str, object]:
    found = list(pool.Pool(functools.partial(workers.start, kind, str(folder)), jobs).run(iter(tasks)))
    assert sorted(task for task, _ in found) == sorted(tasks)  # each once, none lost
    assert not multiprocessing.active_children()
    return dict(found)


def test_a_killed_worker_is_replaced(tmp_path):
    """Its task is retried; one that always kills its worker is abandoned without affecting others."""
    found = run(["1", "once", "2", "always", "3", "raise", "odd", "4"], tmp_path)
    assert all(found[task][0] == task for task in ("1", "2", "3", "4", "once"))
    assert (tmp_path / "died").read_text() == ".."
    assert isinstance(found["always"], BackendError) and "died 3 times (SIGKILL)" in str(found["always"])
    assert isinstance(found["raise"], InvalidArgument) and str(found["raise"]) == "as asked"
    assert isinstance(found["odd"], RuntimeError) and "Unpicklable" in str(found["odd"])
    assert len({found[task][1] for task in ("1", "2", "3", "4", "once")}) >= 2


def test_workers_are_no_more_than_tasks_and_jobs(tmp_path):
    assert os.getpid() != run(["1"], tmp_path, jobs=8)["1"][1]
    assert len({found[1] for found in run([str(i) for i in range(6)], tmp_path, jobs=1).values()}) == 1
    assert run([], tmp_path) == {}


def test_workers_that_cannot_start(tmp_path):
    for kind, error, message in [("refuse", ModelError, "no model"), ("exit", BackendError, "exit status 3.*__main__")]:
        with pytest.raises(error, match=message):
            run(["1", "2"], tmp_path, kind=kind)
        assert not multiprocessing.active_children()


def test_tasks_are_taken_as_they_are_needed(tmp_path):
    """So that memory does not grow with their number; and closing the iterator ends the workers."""
    taken = []
    results = pool.Pool(functools.partial(workers.start, "work", str(tmp_path)), 2).run(
        taken.append(i) or str(i) for i in range(1000)
    )
    for _ in range(5):
        next(results)
    assert 5 <= len(taken) <= 5 + 2
    results.close()
    assert not multiprocessing.active_children()


def test_closing_does_not_wait(tmp_path):
    results = pool.Pool(functools.partial(workers.start, "work", str(tmp_path)), 2).run(iter(["sleep", "1"]))
    assert next(results)[0] == "1"
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 60 and not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_killed_at_a_picture(tmp_path, model):
    """From outside, at any moment: in the end every output exists, and nothing else."""
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        Image.fromarray(scene(40, 56, i)).save(path)
    records = batch.compress(paths, tmp_path / "out", jobs=2, model=model)
    found = [next(records)]
    multiprocessing.active_children()[0].kill()
    found += records
    assert sorted(record.input for record in found) == sorted(map(str, paths))
    assert not any(record.error for record in found)
    assert names(tmp_path / "out") == {f"{i}.vqc" for i in range(12)}
    for path in paths:
        assert (tmp_path / "out" / f"{path.stem}.vqc").read_bytes() == vqcodec.compress(path, model=model)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2])
def test_a_worker_killed_while_it_writes(tmp_path, after):
    """Its leftovers do not hinder the next one."""
    pairs = [(tmp_path / "died", tmp_path / "out" / "a")]
    (record,) = batch.run(workers.KilledAtWriting(after=after), pairs, jobs=2)
    assert record.error is None
    assert (tmp_path / "out" / "a").read_bytes() == b"half whole"
    assert names(tmp_path) == {"died", "out/a"}


def test_errors_survive_the_pipe():
    for error in (ImageError("bad"), vqcodec.errors.CorruptChunk("map 3", "odd"), FileNotFoundError(2, "gone", "a")):
        assert str(pool._portable(error)) == str(pickle.loads(pickle.dumps(error))) == str(error)


# -- interrupts --------------------------------------------------------------------------

SCRIPT = """
import sys
from vqcodec import batch
if __name__ == "__main__":
    slow = dict(jobs=2, effort=9, model=sys.argv[2])
    for record in batch.compress(sys.argv[1], sys.argv[1] + "/out", **slow):
        print(record.output, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["control-C", "kill -INT"])
def test_interrupt_leaves_whole_files_only(tmp_path, model, whole_group):
    for i in range(40):
        Image.fromarray(scene(120, 160, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(vqcodec.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path, model], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env=environment, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    first = process.stdout.readline().strip()
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert first and process.returncode in (1, -signal.SIGINT, 130)
    assert err.count("Traceback") - err.count("During handling") == 1 and err.rstrip().endswith(
        "KeyboardInterrupt"
    )  # the script's own; workers are silent
    done = {Path(line).name for line in [first, *out.split()]}
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert done <= left and len(left) < 40 and not any(name.endswith(".part") for name in left)
    for name in left:
        vqcodec.info((tmp_path / "out" / name).read_bytes())  # whole
