"""The model card's tables of rate and distortion, from the numbers that ``vqcodec bench FOLDER --json`` writes.

python -m benchmarks.model_card bench.json        # into docs/MODEL.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.rows import replaced
from vqcodec.tools.bench.text import counted, map_totals, saved, signed

DOCUMENT = Path(__file__).parent.parent / "docs/MODEL.md"
BEGIN = "<!-- begin: python -m benchmarks.model_card -->"


def tables(report: dict[str, Any]) -> str:
    """Markdown: means at every quality, those of the other codecs, BD-rates, and what the priors save."""
    labels = {m["name"]: m["label"] for m in report["metrics"] if m["name"] in report["curves"]}
    peers = [codec for codec in report["codecs"][1:] if not codec["missing"]]
    entries = {entry["codec"]: entry for entry in report["bd_rates"]}
    low, high = report["range"]
    pictures = counted(report["pictures"], "picture")
    lines = [f"{report['date']}, {pictures} (`{report['command']}`). Real file sizes, means over the pictures.", ""]
    lines += _table(["quality", "bits per pixel", *labels.values()], (_cells(point) for point in _points(report, "vqcodec")), numbers=True)
    lines += ["", "The same run, the other codecs:", ""]
    described = " / ".join(["setting: bits per pixel", *labels.values()])
    lines += _table(["codec", described], ([f"{codec['name']} ({codec['detail']})", _in_a_line(report, codec["name"])] for codec in peers))
    lines += ["", "BD-rate of vqcodec (bytes at equal quality; negative is better) against", ""]
    rates = [(f"{label.partition(',')[0]}, {where}", [signed(entries[c["name"]][metric][key]).translate({ord("−"): "-"}) for c in peers])
             for metric, label in labels.items() for key, where in (("range", f"{low} to {high} bits per pixel"), ("all", "common range"))]
    lines += _table(["", *(c["name"] for c in peers)], ([name, *row] for name, row in rates), numbers=True)
    lines += ["", "What the priors save: bits per pixel of the code maps, all overhead of the files included", ""]
    bits = ([f"{e['quality']:g}", *(f"{value:.3f}" for value in map_totals(e)), f"{saved(e):.1f} %"] for e in report["maps"])
    lines += _table(["quality", "uniform", "zero-order", "files", "fewer than zero-order"], bits, numbers=True)
    return "\n".join(lines) + "\n"


def _points(report: dict[str, Any], codec: str) -> list[list[float]]:
    """Setting, bits per pixel, and the metrics, of every setting."""
    curves = [curve[codec] for curve in report["curves"].values() if curve[codec]]  # empty for pictures too small for the metric
    return [[same[0]["setting"], same[0]["bpp"], *(point["value"] for point in same)] for same in zip(*curves)]


def _cells(point: list[float]) -> list[str]:
    return [f"{point[0]:g}", f"{point[1]:.3f}", *(f"{value:.2f}" for value in point[2:])]


def _in_a_line(report: dict[str, Any], codec: str) -> str:
    return ", ".join(f"{setting}: {' / '.join(rest)}" for setting, *rest in map(_cells, _points(report, codec)))


def _table(head: list[str], body: Iterable[list[str]], numbers: bool = False) -> list[str]:
    rule = ["--:" if numbers and (i or head[0]) else "---" for i in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in [head, rule, *body]]


def write(report: dict[str, Any]) -> None:
    """Put the tables into the model card."""
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), BEGIN, tables(report)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what --json has written")
    write(json.loads(parser.parse_args().report.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
