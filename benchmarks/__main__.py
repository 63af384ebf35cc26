"""All benchmarks, one table: ours against every peer.

    python -m benchmarks [FOLDER] [--write] [--short] [--only decode sampling ...]

FOLDER has pictures for rate and distortion, best the 24 of Kodak; without it the photograph that ships with
vqcodec has to do. Every benchmark is a process of its own. The machine should have nothing else to do; it takes
about a quarter of an hour on two cores. --write puts the table into docs/BENCHMARKS.md and, with --full, rate and
distortion into docs/MODEL.md; --short checks that all work, in few rounds, and its times mean little.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import model_card, rows
from benchmarks.rows import Row
from vqcodec.tools.bench import machine
from vqcodec.tools.bench.cost import quartiles
from vqcodec.tools.demo import PHOTO

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs/BENCHMARKS.md"
BEGIN = "<!-- begin: python -m benchmarks --write -->"


@dataclass(frozen=True)
class Task:
    """One process. command: as a user would type it; run: what is added to it here; short: with --short, too."""

    name: str
    command: list[str]
    run: list[str]
    short: list[str]
    avx2: bool = False

    def shown(self) -> str:
        words = [os.path.basename(word) if os.path.isabs(word) else word for word in self.command]
        return ("VQCODEC_CPU=avx2 " if self.avx2 else "") + shlex.join(["python", "-m", *words])


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    model = ["--model", "vqcodec/model/weights/default.safetensors"]
    for avx2 in (True, False):
        yield Task("decode", ["benchmarks.decode", *model], ["--compressai", options.compressai],
                   ["--rounds", "2", "--peer-rounds", "1", "--size", "192x128"], avx2)
        yield Task("sampling", ["benchmarks.sampling"], [],
                   ["--rounds", "2", "--cached-rounds", "1", "--naive-positions", "2", "--size", "64x64"], avx2)
        yield Task("nearest_codebook", ["benchmarks.nearest_codebook"], [], ["--rounds", "2", "--rows", "8192"], avx2)
    yield Task("startup", ["benchmarks.startup"], [], ["--rounds", "2"])
    quick = [] if options.full else ["--quick"]
    yield Task("bench", ["vqcodec", "bench", options.folder or "vqcodec/data", *quick], ["-f"], ["--quick", "--effort", "0"])


def measured(task: Task, options: argparse.Namespace, folder: Path) -> list[Row]:
    """Run a task, its output to ours; its rows."""
    result = folder / "rows.json"
    result.unlink(missing_ok=True)  # that of the task before
    more = ["-o", str(folder / "bench.html")] if task.name == "bench" else []
    command = [sys.executable, "-m", *task.command, *task.run, *(task.short if options.short else []), *more, "--json", str(result)]
    environment = {**os.environ, **({"VQCODEC_CPU": "avx2"} if task.avx2 else {})}
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    if task.name != "bench":
        return rows.load(result, task.shown())
    report = json.loads(result.read_text())
    if options.write and options.full:
        model_card.write(report)
    return from_bench(report, task.shown())


def from_bench(report: dict[str, Any], command: str) -> list[Row]:
    """Bytes at equal quality, the peer's as 1, with the quartiles of the pictures' own PSNR curves; times of whole calls."""
    low, high = report["range"]
    labels = {m["name"]: m["label"].partition(",")[0] for m in report["metrics"]}
    pictures = f"{len(report['pictures'])} picture{'s' * (len(report['pictures']) > 1)} of {report['folder']}"
    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    found = []
    for metric in report["curves"]:
        for entry in report["bd_rates"]:
            if entry[metric]["range"] is None:
                continue
            middle = 1 + entry[metric]["range"] / 100
            ours = {"median": middle, "low": middle, "high": middle}
            each = [1 + rate / 100 for rate in entry["each"] if rate is not None]
            if metric == "psnr" and each:
                ours |= {key: value for key, value in quartiles(each).items() if key != "median"}
            found.append(Row(f"bytes at equal {labels[metric]}, {low} to {high} bits per pixel, {pictures}", entry["codec"], "", ours, one,
                             command=command))
    for codec in report["codecs"]:
        if codec["missing"]:
            found.append(Row(f"bytes at equal quality, {pictures}", codec["name"], "", None, None, codec["missing"], command))
    for what in ("encode", "decode"):
        ours, *theirs = best_times(report, what).items()
        size = f"{report['timed']['width']} x {report['timed']['height']}"
        found += [Row(f"{what} {size}, whole call, all threads", name, "s", ours[1], taken, command=command) for name, taken in theirs]
    return found


def best_times(report: dict[str, Any], what: str) -> dict[str, rows.Spread]:
    """Of every codec, with as many threads as it was given."""
    return {t["codec"]: t[what] for t in sorted(report["times"], key=lambda t: t["threads"])}


def section(found: list[Row], options: argparse.Namespace, minutes: float) -> str:
    """Markdown, with all that is needed to judge it."""
    here = machine.described()
    peers = {name: version(name) for name in ("torch", "faiss-cpu", "pillow", "imagecodecs")}
    described = (f"{here['date']}, {here['processor']}, {here['cores']} cores, {here['system']}, Python {here['versions']['Python']}, "
                 + ", ".join(f"{name} {number or 'absent'}" for name, number in peers.items())
                 + f"; `{shown(options)}`, {minutes:.0f} minutes. Medians, quartiles in brackets; less is better.")
    return f"{described}\n\n{rows.markdown(found)}\n"


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def shown(options: argparse.Namespace) -> str:
    flags = [flag for flag, given in (("--full", options.full), ("--short", options.short)) if given]
    folder = [os.path.basename(os.path.abspath(options.folder))] if options.folder else []
    only = ["--only", *options.only] if options.only else []
    return shlex.join(["python", "-m", "benchmarks", *folder, *flags, *only])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help=f"pictures (default: {PHOTO.name} alone)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="decode, sampling, nearest_codebook, startup, bench")
    parser.add_argument("--full", action="store_true", help="rate and distortion of all pictures at all settings: another half hour")
    parser.add_argument("--short", action="store_true", help="few rounds")
    parser.add_argument("--write", action="store_true", help="into docs/BENCHMARKS.md and, with --full, docs/MODEL.md")
    parser.add_argument("--compressai", metavar="PYTHON", default=sys.executable, help="of the environment that has CompressAI")
    options = parser.parse_args()
    if options.folder:
        options.folder = os.path.abspath(options.folder)
    begun, found, status = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(options):
            if options.only and task.name not in options.only:
                continue
            print(f"\n$ {task.shown()}\n", flush=True)
            try:
                found += measured(task, options, Path(folder))
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                print(f"failed: {error}", file=sys.stderr)
                status = 1
    print(f"\n{rows.plain(found)}\n")
    text = section(found, options, (time.monotonic() - begun) / 60)
    if options.write:
        DOCUMENT.write_text(rows.replaced(DOCUMENT.read_text(encoding="utf-8"), BEGIN, text), encoding="utf-8")
        print(f"written to {DOCUMENT.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
