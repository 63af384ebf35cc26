"""Build and run the fuzz targets: ``python -m tests.fuzz.run [--seconds N | --runs N] [TARGET ...]``.

Each target runs for the given time or number of executions; without names, all run, one after another.
New corpus inputs are kept under ``build/fuzz`` for the next run, and so are inputs that break a
property, with a log. Exit status 1 if there are any. ``--minimise`` instead writes to
``tests/fuzz/corpus`` the smallest inputs that reach the same code as all inputs found so far.

Needs Clang with its fuzzer runtime (Debian: ``apt install clang libclang-rt-14-dev libfuzzer-14-dev``) for
the C++ targets and ``pip install atheris`` for the Python ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
BUILD = ROOT / "build" / "fuzz"
NATIVE = ("range_decoder", "wavefront", "prior_network", "integer_network", "samples")
PYTHON = ("header", "container", "alpha", "metadata", "model", "codec", "exact")
#: Maximum bytes of an input, and maximum number of inputs in a corpus in the repository.
MAX_LENGTH, MAX_FILES = 640, 40
OPTIONS = [f"-max_len={MAX_LENGTH}", "-timeout=60", "-rss_limit_mb=3072", "-print_final_stats=1", "-entropic=0"]
#: A small quarantine and short stacks: otherwise half of the time goes into tracking allocations.
ENVIRONMENT = {"ASAN_OPTIONS": "quarantine_size_mb=8:malloc_context_size=2", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Outcome:
    executions: int
    per_second: int
    findings: list[Path]


def clang() -> str:
    """The newest clang++ available; exits if there is none."""
    for name in ("clang++", *(f"clang++-{version}" for version in range(25, 13, -1))):
        if found := shutil.which(name):
            return found
    sys.exit(
        "the C++ targets need Clang and its fuzzer runtime: apt install clang libclang-rt-14-dev libfuzzer-14-dev\n"
        f"(without it, name Python targets only: {' '.join(PYTHON)})"
    )


def build() -> None:
    """The C++ targets with libFuzzer and the address and undefined-behaviour sanitizers."""
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(BUILD),
        f"-DCMAKE_CXX_COMPILER={clang()}",
        "-DVQCODEC_FUZZ=ON",
        "-DVQCODEC_FUZZ_ENGINE=libfuzzer",
        "-DVQCODEC_PYTHON=OFF",
        "-DVQCODEC_CUDA=off",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        "-DVQCODEC_SANITIZE=address,undefined",
    ]
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", *(f"fuzz_{name}" for name in NATIVE)]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            hint = (
                "is libclang-rt-14-dev (or compiler-rt) installed?" if "clang_rt" in done.stderr + done.stdout else ""
            )
            sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{hint}")


def command(name: str) -> list[str]:
    if name in NATIVE:
        return [str(BUILD / f"fuzz_{name}")]
    return [sys.executable, "-W", "ignore", "-m", "tests.fuzz.drive", name]


def environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}


def fuzz(name: str, limit: str) -> Outcome:
    """Run one target until ``limit``, an option of libFuzzer, or the first finding."""
    found, findings, log = BUILD / "corpus" / name, BUILD / "findings" / name, BUILD / f"{name}.log"
    for folder in (found, findings):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    with log.open("w") as stream:
        done = subprocess.run(
            [*command(name), *OPTIONS, limit, f"-artifact_prefix={findings}/", str(found), str(CORPUS / name)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment(),
        )
    text = log.read_text(errors="replace")
    new = sorted(set(findings.iterdir()) - before)
    if done.returncode and not new:
        new = [log]  # it did not even start
    figures = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s*(\d+)", text)}
    return Outcome(figures.get("number_of_executed_units", 0), figures.get("average_exec_per_sec", 0), new)


def minimise(name: str) -> int:
    """Rewrite the corpus of a target from all inputs found so far. Returns their number."""
    merged = BUILD / "merged" / name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    sources = [folder for folder in (CORPUS / name, BUILD / "corpus" / name) if folder.is_dir()]
    subprocess.run(
        [*command(name), "-merge=1", *OPTIONS[:2], str(merged), *map(str, sources)],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env=environment(),
    )
    files = sorted(merged.iterdir(), key=lambda file: (file.stat().st_size, file.name))
    kept = [files[i * len(files) // MAX_FILES] for i in range(MAX_FILES)] if len(files) > MAX_FILES else files
    shutil.rmtree(CORPUS / name, ignore_errors=True)
    (CORPUS / name).mkdir(parents=True)
    for file in kept:
        shutil.copyfile(file, CORPUS / name / file.name[:12])
    return len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build and run the fuzz targets.")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--seconds", type=int, help="how long each target runs (default: 60)")
    limits.add_argument("--runs", type=int, help="how many executions each target gets")
    limits.add_argument("--minimise", action="store_true", help="rewrite the corpora from what was found")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join((*NATIVE, *PYTHON)))
    arguments = parser.parse_args()
    names = arguments.targets or [*NATIVE, *PYTHON]
    if unknown := set(names) - {*NATIVE, *PYTHON}:
        parser.error(f"unknown targets {', '.join(sorted(unknown))}; there are {', '.join((*NATIVE, *PYTHON))}")
    if set(names) & set(NATIVE):
        build()
    if set(names) & set(PYTHON) and importlib.util.find_spec("atheris") is None:
        sys.exit("the Python targets need atheris: pip install atheris")
    if arguments.minimise:
        for name in names:
            print(f"{name:14}{minimise(name):4} inputs", flush=True)
        return
    limit = f"-runs={arguments.runs}" if arguments.runs else f"-max_total_time={arguments.seconds or 60}"
    print(f"{'target':14}{'executions':>12}{'per second':>12}  findings")
    failed = False
    for name in names:
        outcome = fuzz(name, limit)
        failed |= bool(outcome.findings)
        findings = " ".join(os.path.relpath(path) for path in outcome.findings) or "none"
        print(f"{name:14}{outcome.executions:12,}{outcome.per_second:12,}  {findings}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
