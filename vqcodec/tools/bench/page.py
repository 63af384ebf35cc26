"""A report as one HTML page that needs nothing but itself. No number is written here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vqcodec.tools.bench.cost import quartiles
from vqcodec.tools.bench.text import absent, cost_rows, counted, map_totals, megabytes, plain, plural, saved, signed, usual_maps

PARTS = Path(__file__).parent


def html(report: dict[str, Any], gallery: dict[str, Any]) -> str:
    """The page. gallery: what :func:`vqcodec.tools.bench.report.run` gives beside the report."""
    metrics = [m for m in report["metrics"] if report["curves"].get(m["name"], {}).get("vqcodec")]
    pictures = [{**{k: p[k] for k in ("box", "original", "rates")}, "name": os.path.basename(p["path"])} for p in gallery["pictures"]]
    data = json.dumps({"metrics": metrics, "curves": report["curves"], "pictures": pictures})
    claim, lead = claims(report)
    low, high = report["range"]
    steps = next((p for p in gallery["pictures"] if p["steps"]), None)
    filled = {
        "title": f"vqcodec on {escape(report['folder'])}", "version": escape(report["versions"]["vqcodec"]), "claim": claim, "lead": lead,
        "low": str(low), "high": str(high), "pictures": counted(report["pictures"], "picture"),
        "tiles": _tiles(report), "rivals": _rivals(report, metrics), "bd_table": _bd_table(report, metrics), "absent": _absent(report),
        "cropped": _cropped(gallery), "steps_hidden": "" if steps else " hidden", "steps": _steps(steps),
        "samples_hidden": "" if gallery["samples"] else " hidden", "samples": _samples(gallery["samples"]),
        "maps_text": _maps_text(report), "maps_table": _maps_table(report),
        "costs_text": _costs_text(report), "costs_table": _costs_table(report), "facts": _facts(report),
        "data": data.replace("<", "\\u003c"), "css": _part("page.css"), "js": _part("page.js"),
    }  # fmt: skip
    page = _part("page.html")
    pieces = page.split("{{")
    return pieces[0] + "".join(filled[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def claims(report: dict[str, Any]) -> tuple[str, str]:
    """The headline, against the first other codec there is, and the line below it, against the strongest by PSNR."""
    known = [(entry["codec"], entry["psnr"]["range"]) for entry in report["bd_rates"] if entry["psnr"]["range"] is not None]
    if not known:
        return "Nothing to compare with", "No other codec reaches the same quality here."
    name, rate = known[0]
    claim = f"<em>{_change(rate)}</em> than {escape(name)}"
    best, least = max(known, key=lambda entry: entry[1])
    lead = f"at the same PSNR, measured on {counted(report['pictures'], 'picture')} with real file sizes."
    if len(known) > 1:
        lead += f" Against the strongest rival by that measure, {escape(best)}, vqcodec’s files are {_change(least)}."
    return claim, f"{lead} One model for all qualities; the same bits on every machine."


def _change(rate: float) -> str:
    share = f"{abs(rate):.0f}" if abs(rate) >= 9.95 else f"{abs(rate):.1f}"
    return f"{share} % {'smaller' if rate < 0 else 'larger'}"


def _rivals(report: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> str:
    """Who needs fewer bytes than vqcodec, by the metrics that the headline does not speak of."""
    said = ""
    for metric in metrics:
        ahead = [entry["codec"] for entry in report["bd_rates"] if (entry[metric["name"]]["range"] or 0) > 0]
        if ahead and metric["name"] != "psnr":
            said += f" By {plain(metric)}, {_listed(ahead)} {'needs' if len(ahead) == 1 else 'need'} fewer bytes than vqcodec."
    return escape(said)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _tone(rate: float | None) -> str:
    return "" if rate is None else "good" if rate < 0 else "bad"


def _tiles(report: dict[str, Any]) -> str:
    return "".join(f'<div><dt>against {escape(entry["codec"])}</dt><dd class="{_tone(rate)}">{signed(rate)}</dd></div>'
                   for entry in report["bd_rates"] for rate in [entry["psnr"]["range"]])


def _bd_table(report: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> str:
    rows = [["against", *(plain(m) for m in metrics), "each picture, PSNR"]]
    tones: list[list[str]] = []
    for entry in report["bd_rates"]:
        rates = [entry[m["name"]]["range"] for m in metrics]
        each = [rate for rate in entry["each"] if rate is not None]
        spread = quartiles(each) if each else None
        shown = "–" if spread is None else (f"{signed(spread['median'])} <small>{signed(spread['low'], 0)} to "
                                           f"{signed(spread['high'], 0)}</small>")
        rows.append([escape(entry["codec"]), *map(signed, rates), shown])
        tones.append([*(f"strong {_tone(rate)}" for rate in rates), ""])
    return _table(rows, tones)


def _table(rows: Sequence[Sequence[str]], classes: Sequence[Sequence[str]] = ()) -> str:
    """Cells are HTML. The first row is the head, the first column names the rows."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in rows[0])
    body = ""
    for number, row in enumerate(rows[1:]):
        tones = classes[number] if classes else [""] * len(row)
        cells = "".join(f'<td class="{tone}">{cell}</td>' for cell, tone in zip(row[1:], tones))
        body += f'<tr{" class=ours" if row[0] == "vqcodec" else ""}><th scope="row">{row[0]}</th>{cells}</tr>'
    return f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"


def _steps(picture: dict[str, Any] | None) -> str:
    if picture is None:
        return ""
    width, height = picture["box"][2] - picture["box"][0], picture["box"][3] - picture["box"][1]
    return "".join(
        f'<figure><img src="{step["image"]}" width="{width}" height="{height}" decoding="async" '
        f'alt="The picture after {step["maps"]} of {step["of"]} maps"><figcaption><b>'
        f'{"all " + str(step["of"]) + " maps" if step["maps"] == step["of"] else plural(step["maps"], "map")}</b> · '
        f'{step["bytes"]:,} bytes · {step["psnr"]:.1f} dB</figcaption></figure>'
        for step in picture["steps"])


def _samples(samples: Iterable[dict[str, Any]]) -> str:
    return "".join(
        f'<figure><img src="{s["image"]}" width="{128 * s["count"]}" height="128" decoding="async" '
        f'alt="Samples of {escape(s["class"])}"><figcaption>{escape(s["class"])}</figcaption></figure>' for s in samples)


# -- maps --------------------------------------------------------------------------------


def _maps_text(report: dict[str, Any]) -> str:
    entry = usual_maps(report)
    uniform, zero, stored = map_totals(entry)
    return (f"At quality {entry['quality']:g}, plain indices would take {uniform:.2f} bits per pixel, a perfect coder that knows how often "
            f"each code occurs in these pictures {zero:.3f}. The files take <b>{stored:.3f}</b>, all overhead included: "
            f"<b>{saved(entry):.0f} % fewer</b>, because a network predicts every code from those before it. Bits per code:")


def _maps_table(report: dict[str, Any]) -> str:
    entry = usual_maps(report)
    key = ('<span class="key" style="background:var(--grid)"></span>uniform <span class="key" '
           'style="background:color-mix(in srgb, var(--c1) 55%, transparent)"></span>zero-order '
           '<span class="key" style="background:var(--c0)"></span>in the file')
    rows, tones = [["map", "uniform", "zero-order", "in the file", key]], []
    for number, m in enumerate(entry["maps"], 1):
        uniform, zero, stored = (m[kind] / m["codes"] for kind in ("uniform", "zero_order", "file"))
        rows.append([str(number), f"{uniform:.0f}", f"{zero:.2f}", f"{stored:.2f}",
                     _track(100, 100 * zero / uniform, 100 * stored / uniform)])
        tones.append(["", "", "strong", "plot"])
    return _table(rows, tones)


def _track(*widths: float, ours: bool = False) -> str:
    mark = ' class="ours"' if ours else ""
    return '<span class="track" aria-hidden="true">' + "".join(f'<i{mark} style="width:{max(w, .6):.1f}%"></i>' for w in widths) + "</span>"


# -- costs -------------------------------------------------------------------------------


def _costs_text(report: dict[str, Any]) -> str:
    timed = report["timed"]
    return (f"Whole calls in one process, {escape(timed['name'])}, {timed['width']} × {timed['height']}, every codec at its setting "
            f"nearest to {timed['bpp']:.2f} bits per pixel; medians. Memory: the peak of a process that does one call, "
            f"of which opening the picture alone takes {megabytes(report['memory_of_nothing'])} MB.")


def _costs_table(report: dict[str, Any]) -> str:
    found = cost_rows(report)
    slowest = max(row[3] for row in found)
    rows = [["codec", "threads", "encode, ms", "decode, ms", "encode, MB", "decode, MB", "decoding"]]
    for name, threads, encode, decode, most, least in found:
        rows.append([escape(name), str(threads), f"{encode:.0f}", f"{decode:.0f}" if decode >= 10 else f"{decode:.1f}",
                     megabytes(most), megabytes(least), _track(100 * decode / slowest, ours=name == "vqcodec")])
    return _table(rows, [["", "", "strong", "", "", "plot"]] * len(found))


# -- words -------------------------------------------------------------------------------


def _absent(report: dict[str, Any]) -> str:
    lines = absent(report)
    return "".join(f"<br><b>Not here.</b> {escape(line)}" for line in lines)


def _cropped(gallery: dict[str, Any]) -> str:
    cropped = any((p["width"], p["height"]) != (p["box"][2] - p["box"][0], p["box"][3] - p["box"][1]) for p in gallery["pictures"])
    return " Of large pictures the middle is shown." if cropped else ""


def _facts(report: dict[str, Any]) -> str:
    sizes = sorted({(p["width"], p["height"]) for p in report["pictures"]})
    shown = [f"{w} × {h}" for w, h in sizes]
    size = ", ".join(shown) if len(shown) < 4 else f"{shown[0]} to {shown[-1]}"
    memory = f", {report['machine_memory'] / 2**30:.0f} GiB" if report["machine_memory"] else ""
    facts = [
        ("command", f"<code>{escape(report['command'])}</code>" + " (fewer pictures, settings and rounds)" * report["quick"]),
        ("date", escape(report["date"])),
        ("machine", escape(f"{report['processor']}, {plural(report['cores'], 'core')}{memory}, {report['system']}; vqcodec uses "
                           f"{report['instructions']}")),
        ("versions", escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))),
        ("pictures", escape(f"{counted(report['pictures'], 'picture')} of {report['folder']}, {size}; RGB, without alpha and metadata")),
        *((escape(c["name"]), f"<b>not here</b>: {escape(c['missing'])}" if c["missing"] else escape(c["detail"]))
          for c in report["codecs"]),
        ("metrics", escape("PSNR over the RGB channels; MS-SSIM as −10 log10(1 − x), mean of the channels; SSIMULACRA2 by the package "
                           "of that name; means of the pictures’ values. " + " ".join(
                               f"{plain(m)} is not here: {m['missing']}." for m in report["metrics"] if m["missing"]))),
        *(("left out", escape(f"{s['name']}: {s['reason']}")) for s in report["skipped"]),
    ]  # fmt: skip
    return "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")
