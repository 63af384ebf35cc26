"""Whole processes, from a cold start: what a user of the command line waits for.

    python -m benchmarks.startup [--rounds 15]

One picture of 768 x 512 (the package's photograph, resized), compressed to about 0.3 bits per pixel and
back. Contenders take turns. The peers are programs of Debian's packages webp, libavif-bin, libjxl-tools
and libjpeg-turbo-progs; those that are not on PATH are named as absent.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.decode import seconds
from benchmarks.rows import Row, dump, plain
from vqcodec.tools.demo import PHOTO

SIZE = 768, 512
PYTHON = [sys.executable, "-c"]
VQCODEC = [sys.executable, "-m", "vqcodec"]
#: Peer: how it compresses, and decompresses.
CODERS = {
    "libjpeg-turbo": (["cjpeg", "-quality", "12", "-optimize", "-progressive", "-outfile", "a.jpg", "a.ppm"],
                      ["djpeg", "-outfile", "b.ppm", "a.jpg"]),
    "WebP": (["cwebp", "-quiet", "-m", "6", "-q", "12", "a.png", "-o", "a.webp"], ["dwebp", "-quiet", "a.webp", "-o", "b.png"]),
    "AVIF": (["avifenc", "-s", "6", "--min", "40", "--max", "48", "a.png", "a.avif"], ["avifdec", "a.avif", "b.png"]),
    "JPEG XL": (["cjxl", "a.png", "a.jxl", "-d", "7", "-e", "7", "--quiet"], ["djxl", "a.jxl", "b.png", "--quiet"]),
}  # fmt: skip


def jobs() -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """What is done, our command, and those of the peers. Every command overwrites what it writes."""
    compress = [*VQCODEC, "compress", "-f", "--quiet", "-q", "50", "a.png", "a.vqc"]
    size = f"{SIZE[0]} x {SIZE[1]}"
    return [
        ("start: import", [*PYTHON, "import vqcodec"], [("import torch", [*PYTHON, "import torch"]), ("python alone", [*PYTHON, ""])]),
        ("start: vqcodec info", [*VQCODEC, "info", "a.vqc"], [("import torch", [*PYTHON, "import torch"])]),
        (f"whole process: compress {size}", compress, [(name, coder[0]) for name, coder in CODERS.items()]),
        (f"whole process: decompress {size}", [*VQCODEC, "decompress", "-f", "--quiet", "a.vqc", "b.png"],
         [(name, coder[1]) for name, coder in CODERS.items()]),
    ]  # fmt: skip


def run(command: list[str], folder: str) -> None:
    """In another folder, with the vqcodec that this process uses."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def measure(folder: str, rounds: int) -> list[Row]:
    picture = Image.open(PHOTO).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    for name in ("a.png", "a.ppm"):
        picture.save(Path(folder, name))
    run([*VQCODEC, "compress", "-q", "50", "a.png", "a.vqc"], folder)
    rows = []
    for job, ours, peers in jobs():
        here = {name: command for name, command in peers if shutil.which(command[0])}
        times: dict[str, list[float]] = {name: [] for name in ("", *here)}
        for number in range(rounds + 1):
            for name, command in {"": ours, **here}.items():
                taken = seconds(lambda command=command: run(command, folder))
                if number:  # the first round brings files into memory
                    times[name].append(taken)
        rows += [Row.timed(job, name, times[""], times.get(name), f"{command[0]} is not on PATH") for name, command in peers]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write rows for python -m benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(folder, options.rounds)
    dump(options.json, rows)
    print(plain(rows))


if __name__ == "__main__":
    main()
