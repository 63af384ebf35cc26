"""Training end to end on generated pictures: the command, resumption, determinism, guards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import scene
from tests.support.autoencoders import nearest_codes
from training import autoencoder, checkpoint, data, muon, pack, recipe
from vqcodec.model import file
from vqcodec.model.config import preset
from vqcodec.model.file import Model
from vqcodec.ops.reference import integer_network as reference

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "training" / "recipes" / "tiny.toml"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, odd files among them: one unreadable, one too small."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(("cats", "dogs")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(scene(256, 300 + label, seed=10 * label + i)).save(folder / f"{i}.png")
    (root / "train" / "cats" / "broken.png").write_bytes(b"not a picture")
    Image.fromarray(scene(50, 50)).save(root / "train" / "dogs" / "small.png")
    (root / "train" / "dogs" / "notes.txt").write_text("not a picture either")
    return root


def command(pictures: Path, work: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "training",
        str(RECIPE),
        "--data",
        str(pictures),
        "--work",
        str(work),
        "--threads",
        "1",
        *more,
    ]


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, str]:
    """The model of an uninterrupted run, and what the run printed."""
    work = tmp_path_factory.mktemp("straight")
    done = subprocess.run(command(pictures, work), cwd=ROOT, capture_output=True, text=True, check=True)
    return file.load(work / "model.safetensors"), done.stdout


def test_one_command_trains_a_working_model(straight, pictures):
    model, printed = straight
    assert model.config.classes == ("cats", "dogs") and model.config.card["note"]
    assert "skipped 2 of 10 pictures" in printed and "broken.png" in printed and "8 training crops" in printed
    image = scene(96, 128)
    networks = model.autoencoder
    back = reference.decode(networks, nearest_codes(networks, image), 96, 128)
    assert np.mean((back.astype(float) - image) ** 2) < image.var() / 4


def test_killed_anywhere_and_resumed_is_the_same(straight, pictures, tmp_path):
    """Kill -9 in every stage, then let it finish: the same model to the bit."""
    kills = 0
    for waits_for in ("autoencoder.pt", "codes/state.json", "prior.0.pt"):
        process = subprocess.Popen(command(pictures, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / waits_for).exists():
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run(command(pictures, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    assert kills and file.load(tmp_path / "model.safetensors").fingerprint == straight[0].fingerprint


def test_maps_can_be_trained_apart(straight, pictures, tmp_path):
    for stages in (["autoencoder", "codes"], ["priors", "--maps", "2:4"], ["priors", "--maps", "0:2"]):
        subprocess.run(command(pictures, tmp_path, *stages), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    assert not (tmp_path / "model.safetensors").exists()
    out = tmp_path / "apart.safetensors"
    subprocess.run(
        command(pictures, tmp_path, "export", "--out", str(out)), cwd=ROOT, stdout=subprocess.DEVNULL, check=True
    )
    assert file.load(out).fingerprint == straight[0].fingerprint


def test_a_checkpoint_is_whole_or_old(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"step": 1})
    monkeypatch.setattr(
        torch, "save", lambda state, file: Path(file).write_bytes(b"half") and (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}


class TestMuon:
    @pytest.mark.parametrize("shape", [(48, 432), (96, 40), (5, 5), (3, 1)])
    def test_singular_values_are_about_one(self, shape):
        torch.manual_seed(1)
        matrix = torch.randn(shape) * 1e-3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = muon.orthogonal(matrix)
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.3 and values.max() < 1.3
        assert float((found * (u @ v)).sum()) > 0.6 * min(shape)  # in the directions of the matrix

    def test_fits_faster_than_its_start(self):
        """A linear map by its own gradients; two learning rates' steps stay within what they say."""
        torch.manual_seed(2)
        target, weight = (
            torch.randn(8, 4, 3, 3),
            torch.nn.Parameter(torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)),
        )
        optimizer = muon.Muon([weight], lr=0.05)
        first = None
        for _ in range(300):
            optimizer.zero_grad()
            loss = (weight - target).square().mean()
            loss.backward()
            before = weight.detach().clone()
            optimizer.step()
            step = (weight.detach() - before).square().mean().sqrt()
            assert step < 0.05 * 0.2 * 1.3 * 8**0.5  # 0.2 * lr, for a matrix of 8 x 36 whose rank is 8
            first = first or loss.item()
        assert loss.item() < first / 20


def test_nan_stops_with_the_step(pictures, tmp_path, monkeypatch):
    plan = recipe.load(RECIPE)
    crops = data.load(pictures, "train", tmp_path)
    monkeypatch.setattr(autoencoder.F, "mse_loss", lambda a, b: (a - b).square().mean() * float("nan"))
    with pytest.raises(SystemExit, match="nan at step 0"):
        autoencoder.train(preset("tiny").autoencoder, plan.stage1, crops, crops, tmp_path, plan.seed)
    assert not (tmp_path / "autoencoder.pt").exists()


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("preset = 'tiny'\nseed = 1\n[stage1]\nsteps = 1", "stage2"),
        ("preset = 'tiny'\nseed = 1\n[stage1]\nsteps = 1\nspeed = 9\n[stage2]\nsteps = 1", "speed"),
    ],
)
def test_wrong_recipes_name_the_key(text, complaint, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(SystemExit, match=complaint):
        recipe.load(tmp_path / "r.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_load(path):
    plan = recipe.load(path)
    assert preset(plan.preset).name == plan.preset


def test_checkpoints_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PART", 1000)
    path = tmp_path / "c.pt"
    for step in (1, 2):
        state = {"step": step, "weights": torch.arange(2000.0) * step}
        checkpoint.save(path, state)
        back = checkpoint.load(path)
        assert back["step"] == step and torch.equal(back["weights"], state["weights"])
        parts = [file for file in tmp_path.iterdir() if file != path]
        assert len(parts) > 8 and all(file.stat().st_size <= 1000 for file in parts)
    parts[0].write_bytes(b"")
    with pytest.raises(SystemExit, match="expected parts of"):
        checkpoint.load(path)


def test_a_time_limit_saves_and_the_same_command_goes_on(straight, pictures, tmp_path):
    packed = tmp_path / "pictures.zip"
    pack.pack(pictures, packed, 1)  # the data that the limit is for; not the same pixels as the files
    stopped = subprocess.run(command(packed, tmp_path, "--minutes", "0"), cwd=ROOT, capture_output=True, text=True)
    assert stopped.returncode == 0 and "stopped after 0 minutes" in stopped.stdout
    assert checkpoint.load(tmp_path / "autoencoder.pt")["step"] == 1
    work = tmp_path / "work"
    for _ in range(20):
        done = subprocess.run(
            command(pictures, work, "--minutes", "0.1"), cwd=ROOT, capture_output=True, text=True, check=True
        )
        if "wrote" in done.stdout:
            break
    assert file.load(work / "model.safetensors").fingerprint == straight[0].fingerprint


def test_a_packed_folder_holds_what_the_folder_held(pictures, tmp_path):
    packed = tmp_path / "pictures.zip"
    assert pack.pack(pictures, packed, 1) == 95 and packed.stat().st_size < 1e6
    folder = pack.unpacked(packed, tmp_path)
    assert folder == pack.unpacked(packed, tmp_path) and pack.unpacked(folder, tmp_path) == folder
    before, after = (data.load(root, "train", tmp_path / name) for root, name in ((pictures, "a"), (folder, "b")))
    assert before.classes == after.classes and np.array_equal(before.labels, after.labels)
    assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 3
    with pytest.raises(SystemExit, match="more than 0.001"):
        pack.pack(pictures, packed, 0.001)
    with pytest.raises(SystemExit, match="no pictures"):
        pack.pack(tmp_path / "nowhere", packed, 1)


def test_pictures_kept_out_of_training(tmp_path):
    for folder, count in (("train/cats", 1), ("lossless", 22), ("photos", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(scene(256, 256, seed=i)).save(tmp_path / folder / f"{i}.png")
    kept = data.kept_out(tmp_path)
    assert len(kept) == data.KEPT_OUT
    crops = data.load(tmp_path, "train", tmp_path / "cache", photo_crops=3, lossless_crops=2, synthetic=5)
    assert len(crops.pixels) == 1 + 3 + 2 * 2 + 5 and crops.classes == ("cats",)
    excluded = {np.asarray(Image.open(file)).tobytes() for file in kept}
    # Seeds 0 to 2 serve in other folders, too.
    assert not excluded & {pixels.tobytes() for pixels in crops.pixels[4:8]}
