"""A report in words: tables for a terminal, and what they share with the page. No number is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: The quality whose maps are shown, at which times and memory are measured, and which the page compares at.
USUAL = 50


def text(report: dict[str, Any]) -> str:
    """Tables for a terminal."""
    metrics = list(report["curves"])
    labels = {m["name"]: m["label"] for m in report["metrics"]}
    lines = [f"{counted(report['pictures'], 'picture')}; means", "",
             f"{'codec':10} {'setting':>8} {'bits/pixel':>11} " + " ".join(f"{labels[m]:>12}" for m in metrics)]
    for name, points in report["curves"]["psnr"].items():
        for i, point in enumerate(points):
            values = [report["curves"][m][name][i]["value"] if report["curves"][m][name] else None for m in metrics]
            lines.append(f"{name:10} {point['setting']:8g} {point['bpp']:11.3f} "
                         + " ".join(f"{'-' if value is None else format(value, '.2f'):>12}" for value in values))
    low, high = report["range"]
    lines += ["", f"BD-rate of vqcodec, {low} to {high} bits per pixel", f"{'against':22} " + " ".join(f"{labels[m]:>12}" for m in metrics)]
    lines += [f"{entry['codec']:22} " + " ".join(f"{signed(entry[m]['range']):>12}" for m in metrics) for entry in report["bd_rates"]]
    lines += ["", f"{'quality':>7} {'uniform':>8} {'zero-order':>11} {'files':>7} {'fewer':>7}   bits per pixel of the code maps"]
    for entry in report["maps"]:
        uniform, zero, stored = map_totals(entry)
        lines.append(f"{entry['quality']:7g} {uniform:8.3f} {zero:11.4f} {stored:7.4f} {saved(entry):5.1f} %")
    timed = report["timed"]
    lines += ["", f"{timed['name']}, {timed['width']} x {timed['height']}, near {timed['bpp']:.2f} bits per pixel; medians",
              f"{'codec':10} {'threads':>8} {'encode, ms':>11} {'decode, ms':>11} {'encode, MB':>11} {'decode, MB':>11}"]
    for name, threads, encode, decode, most, least in cost_rows(report):
        lines.append(f"{name:10} {threads:8} {encode:11.1f} {decode:11.1f} {megabytes(most):>11} {megabytes(least):>11}")
    if missing := absent(report):
        lines += ["", *(f"not here: {line}" for line in missing)]
    return "\n".join(lines).translate({ord("–"): "-", ord("−"): "-"}) + "\n"


# -- of a report ----------------------------------------------------------------------------


def usual_maps(report: dict[str, Any]) -> dict[str, Any]:
    return min(report["maps"], key=lambda entry: abs(entry["quality"] - USUAL))


def map_totals(entry: dict[str, Any]) -> tuple[float, float, float]:
    """Bits per pixel: uniform, zero-order, in the file."""
    uniform, zero, stored = (sum(m[kind] for m in entry["maps"]) / entry["pixels"] for kind in ("uniform", "zero_order", "file"))
    return uniform, zero, stored


def saved(entry: dict[str, Any]) -> float:
    """How many percent fewer bits the files take than the zero-order entropy."""
    _, zero, stored = map_totals(entry)
    return 100 * (1 - stored / zero) if zero else 0.0


def cost_rows(report: dict[str, Any]) -> list[tuple[str, int, float, float, int | None, int | None]]:
    """Codec, threads, milliseconds to encode and decode, and peak bytes."""
    memory = {entry["codec"]: entry for entry in report["memory"]}
    order = [c["name"] for c in report["codecs"]]
    rows = sorted(report["times"], key=lambda t: (order.index(t["codec"]), t["threads"]))
    return [(t["codec"], t["threads"], 1000 * t["encode"]["median"], 1000 * t["decode"]["median"],
             memory.get(t["codec"], {}).get("encode"), memory.get(t["codec"], {}).get("decode")) for t in rows]


def absent(report: dict[str, Any]) -> list[str]:
    """A line for every codec and metric that is not here, and for every picture that was left out."""
    found = [f"{c['name']}: {c['missing']}" for c in report["codecs"] if c["missing"]]
    found += [f"{plain(m)}: {m['missing']}" for m in report["metrics"] if m["missing"]]
    return found + [f"{s['name']} left out: {s['reason']}" for s in report["skipped"]]


# -- words -------------------------------------------------------------------------------------


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counted(things: Sequence[Any], noun: str) -> str:
    return plural(len(things), noun)


def megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.0f}"


def plain(metric: dict[str, Any]) -> str:
    return str(metric["label"]).partition(",")[0]


def signed(rate: float | None, digits: int = 1) -> str:
    return "–" if rate is None else f"{'−' if rate < 0 else '+'}{abs(rate):.{digits}f} %"
