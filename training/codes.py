"""Code extraction (VQ-VAE-2, algorithm 2): the training crops as code maps, what stage 2 is trained on.

Every crop is encoded several times, mirrored or not and each time at another rate, so that the
priors see all rates. The codes lie in WORK/codes, one array per map:

    map.M.npy     passes * N x h x w   uint16, code maps
    labels.npy    passes * N           class numbers (0 = none)
    levels.npy    passes * N           rate levels
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training import distributed
from training.autoencoder import draw_rate
from training.data import Crops
from training.deadline import FOREVER, Deadline, TimeIsUp
from training.networks.autoencoder import Autoencoder
from training.recipe import Codes

#: Batches between two notes of how far the extraction is.
SAVE_EVERY = 64


@dataclass(frozen=True)
class CodeMaps:
    """Extracted codes: memory-mapped, row by row."""

    maps: list[np.ndarray]
    labels: np.ndarray
    levels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: np.ndarray, maps: int, device: torch.device) -> tuple[list[Tensor], Tensor, Tensor]:
        """The first ``maps`` code maps (B x h x w each), classes and levels of some rows: int64."""
        codes = [torch.from_numpy(m[index].astype(np.int64)).to(device) for m in self.maps[:maps]]
        labels, levels = (torch.from_numpy(a[index]).to(device) for a in (self.labels, self.levels))
        return codes, labels, levels


def load(work: Path) -> CodeMaps:
    """The codes in WORK/codes."""
    folder = work / "codes"
    if not (folder / "done.json").exists():
        raise SystemExit(f"no codes in {folder}: extract them first")
    maps = json.loads((folder / "state.json").read_text())["maps"]
    return CodeMaps(
        [np.load(folder / f"map.{m}.npy", mmap_mode="r") for m in range(maps)],
        np.load(folder / "labels.npy"),
        np.load(folder / "levels.npy"),
    )


def extract(
    autoencoder: Autoencoder, recipe: Codes, crops: Crops, work: Path, seed: int, deadline: Deadline = FOREVER
) -> None:
    """Encode all crops, or go on where a run was interrupted. Codes of another autoencoder are replaced."""
    if not distributed.first():
        distributed.wait()
        return
    folder = work / "codes"
    folder.mkdir(parents=True, exist_ok=True)
    config, side = autoencoder.config, crops.pixels.shape[1]
    rows = recipe.passes * len(crops.pixels)
    description = dict(model=fingerprint(autoencoder), rows=rows, seed=seed, batch=recipe.batch, maps=len(config.maps))
    state = _read(folder / "state.json")
    if state is None or state["description"] != description:
        state = dict(description=description, maps=len(config.maps), next=0)
        (folder / "done.json").unlink(missing_ok=True)
        for m, code_map in enumerate(config.maps):
            shape = rows, side // code_map.stride, side // code_map.stride
            np.lib.format.open_memmap(folder / f"map.{m}.npy", mode="w+", dtype=np.uint16, shape=shape)
    np.save(folder / "labels.npy", np.tile(crops.labels, recipe.passes))
    levels = np.zeros(rows, np.int64)
    files = [np.load(folder / f"map.{m}.npy", mmap_mode="r+") for m in range(len(config.maps))]
    # The crops of a batch share a rate, so a batch holds crops from all over the data.
    orders = [np.random.default_rng([seed, p]).permutation(len(crops.pixels)) for p in range(recipe.passes)]
    batches = [
        (p, order[i : i + recipe.batch]) for p, order in enumerate(orders) for i in range(0, len(order), recipe.batch)
    ]
    device = next(autoencoder.parameters()).device
    for number, (p, index) in enumerate(batches):
        generator = torch.Generator().manual_seed((seed << 32) + number)
        rate = draw_rate(config, generator)
        mirror = torch.randint(0, 2, (len(index),), generator=generator).numpy().astype(bool)
        row = p * len(crops.pixels) + index
        levels[row] = rate.level if rate else 0
        if number < state["next"]:
            continue
        pixels = crops.pixels[index]
        pixels[mirror] = pixels[mirror, :, ::-1]
        x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255)
        for array, codes in zip(files, autoencoder.encode(x, rate)):
            array[row] = codes.cpu().numpy()
        stop = number + 1 < len(batches) and deadline.passed()
        if stop or (number + 1) % SAVE_EVERY == 0 or number + 1 == len(batches):
            for array in files:
                array.flush()
            state["next"] = number + 1
            _write(folder / "state.json", state)
            print(f"codes {number + 1} of {len(batches)} batches", flush=True)
        if stop:
            raise TimeIsUp
    np.save(folder / "levels.npy", levels)
    _write(folder / "done.json", {})
    distributed.wait()


def fingerprint(autoencoder: Autoencoder) -> str:
    """SHA-256 of the weights and codebooks."""
    digest = hashlib.sha256()
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _write(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, path)
