"""All measurements of a folder, as one dictionary that JSON can hold; and the pictures for the page."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import vqcodec
from vqcodec import batch
from vqcodec.codec.options import check_effort
from vqcodec.errors import ImageError
from vqcodec.tools.bench import cost, curves, gallery, machine, measure, text
from vqcodec.tools.bench.codecs import Codec, every
from vqcodec.tools.bench.measure import Measurement
from vqcodec.tools.pool import Pool, cores

#: The quality at which times and memory are measured; peers at their setting of nearest size.
USUAL = text.USUAL


@dataclass(frozen=True)
class Plan:
    """What to measure. quick: a third of the settings, at most six pictures, few rounds.

    shown: how many pictures to look at, 4 unless told (quick: 1). pages: False for none, and no samples.
    """

    folder: str
    quick: bool = False
    pages: bool = True
    model: str | None = None
    device: str = "cpu"
    effort: int = 3
    jobs: int | None = None
    threads: int | None = None
    shown: int | None = None


#: Called with the name of a stage, what is done of it, and of how many.
Progress = Callable[[str, int, int], None]


def run(plan: Plan, command: str = "", progress: Progress = lambda *_: None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report, and the gallery for the page.

    Pictures that cannot be read, or that a codec cannot code, are left out and named in the report, as are
    codecs and metrics that are not there. Raises :class:`~vqcodec.errors.ImageError` if no picture is left.
    """
    missing = measure.missing_metrics()
    codecs = every(plan.model, plan.device, check_effort(plan.effort))
    for codec in codecs[1:]:
        codec.try_out()
    working = [codec for codec in codecs if not codec.missing]
    measurement = Measurement(tuple(c.name for c in working), tuple(m for m in measure.METRICS if m not in missing), plan.quick,
                              plan.model, plan.device, plan.effort)
    paths = chosen(plan)
    jobs = plan.jobs or (cores() if plan.device == "cpu" else 1)
    found, skipped = _through(measurement, paths, jobs, progress, "pictures")
    if not found:
        reasons = f": {skipped[0]['name']}: {skipped[0]['reason']}" if skipped else ""
        raise ImageError(f"{plan.folder}: must hold a picture that can be measured, found none{reasons}")
    report: dict[str, Any] = {
        "command": command, "folder": os.path.basename(os.path.abspath(plan.folder)), "quick": plan.quick, **machine.described(),
        "codecs": [{"name": c.name, "detail": c.detail, "unit": c.unit, "missing": c.missing, "threads": c.threads} for c in codecs],
        "metrics": [{"name": name, "label": label, "missing": missing.get(name, "")} for name, label in measure.METRICS.items()],
        "pictures": [{"name": os.path.basename(p["path"]), "width": p["width"], "height": p["height"], "rows": p["rows"]} for p in found],
        "skipped": skipped, "range": curves.RANGE,
    }
    report["curves"] = {metric: {c.name: curve(found, measurement, c.name, metric) for c in working} for metric in measurement.metrics}
    report["bd_rates"] = [rates(report, found, measurement, c.name) for c in working[1:]]
    sizes = [m.codes for m in vqcodec.Codec(plan.model).model.config.autoencoder.maps]
    report["maps"] = map_bits(found, sizes)
    report |= _costs(plan, found, working, report["curves"]["psnr"], progress)
    return report, _gallery(plan, measurement, found, jobs, progress) if plan.pages else {}


def chosen(plan: Plan) -> list[str]:
    """The pictures of the folder; if quick, at most six, evenly spread."""
    paths = [str(path) for path in batch.pictures_in(plan.folder, ".vqc", recursive=False)]
    count = min(len(paths), 6) if plan.quick else len(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def _through(work: Any, paths: Sequence[str], jobs: int, progress: Progress, stage: str) -> tuple[list[Any], list[dict[str, str]]]:
    """``work`` for every path, in processes: what came of it, in the order of ``paths``; and those that failed."""
    done: dict[str, Any] = {}
    progress(stage, 0, len(paths))
    pool: Pool[str, Any] = Pool(work.start, max(1, min(jobs, len(paths))))
    with contextlib.closing(pool):
        for path, result in pool.run(iter(paths)):
            if isinstance(result, Exception) and not isinstance(result, ImageError):
                raise result
            done[path] = result
            progress(stage, len(done), len(paths))
    failed = [{"name": os.path.basename(path), "reason": batch.message(done[path]).removeprefix(f"{path}: ")}
              for path in paths if isinstance(done[path], ImageError)]
    return [done[path] for path in paths if not isinstance(done[path], ImageError)], failed


# -- what follows from the rows ----------------------------------------------------------


def points(picture: dict[str, Any], measurement: Measurement, codec: str, metric: str) -> list[tuple[float, float] | None]:
    """Bits per pixel and a metric of one picture at every setting; None where the metric does not exist."""
    column = 2 + measurement.metrics.index(metric)
    area = picture["width"] * picture["height"]
    return [None if row[column] is None else (8 * row[1] / area, row[column]) for row in picture["rows"][codec]]


def curve(found: list[Any], measurement: Measurement, codec: str, metric: str) -> list[dict[str, float]]:
    """Means over the pictures, for every setting of a codec."""
    means = curves.mean([points(p, measurement, codec, metric) for p in found])
    return [{"setting": row[0], "bpp": bpp, "value": value} for row, (bpp, value) in zip(found[0]["rows"][codec], means)]


def rates(report: dict[str, Any], found: list[Any], measurement: Measurement, codec: str) -> dict[str, Any]:
    """BD-rates of vqcodec against a codec: of the mean curves, and of each picture by PSNR."""
    result: dict[str, Any] = {"codec": codec}
    for metric in measurement.metrics:
        ours, theirs = ([(p["bpp"], p["value"]) for p in report["curves"][metric][name]] for name in ("vqcodec", codec))
        result[metric] = {"range": curves.bd_rate(ours, theirs, curves.RANGE), "all": curves.bd_rate(ours, theirs)}
    result["each"] = [own_rate(p, measurement, codec) for p in found]
    return result


def own_rate(picture: dict[str, Any], measurement: Measurement, codec: str) -> float | None:
    """BD-rate of one picture by PSNR, over all that both codecs reach."""
    ours, theirs = ([point for point in points(picture, measurement, name, "psnr") if point] for name in ("vqcodec", codec))
    return curves.bd_rate(ours, theirs)


def map_bits(found: list[Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Bits of the code maps at every quality, over all pictures; ``sizes``: of the maps' codebooks.

    uniform: the logarithm of the codebook's size for every code. zero_order: the entropy of a map's codes over the
    whole folder, as if a coder knew it. file: the maps' chunks as they are stored, all overhead included.
    """
    result = []
    for quality in found[0]["maps"]:
        stored = [p["maps"][quality] for p in found]
        maps = []
        for number, size in enumerate(sizes):
            total = np.sum([np.pad(s["counts"][number], (0, size - len(s["counts"][number]))) for s in stored], axis=0)
            share = total[total > 0] / total.sum()
            maps.append({"codes": int(total.sum()), "uniform": float(total.sum() * np.log2(size)),
                         "zero_order": float(-(share * np.log2(share)).sum() * total.sum()),
                         "file": 8 * sum(s["bytes"][number] for s in stored)})
        result.append({"quality": quality, "pixels": sum(p["width"] * p["height"] for p in found), "maps": maps})
    return result


# -- costs and pictures ------------------------------------------------------------------


def _costs(plan: Plan, found: list[Any], working: list[Codec], means: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Times and memory of the picture of middling size, all codecs at nearly the same rate."""
    picture = sorted(found, key=lambda p: p["width"] * p["height"])[len(found) // 2]
    usual = min(means["vqcodec"], key=lambda point: abs(point["setting"] - USUAL))
    nearest = [(codec, min(means[codec.name], key=lambda p: abs(np.log(p["bpp"] / usual["bpp"])))["setting"]) for codec in working]
    most = plan.threads or cores()
    steps = len({1, most}) + 1
    progress("times and memory", 0, steps)
    times = []
    for done, count in enumerate(sorted({1, most}), 1):
        times += list(cost.times(measure.opened(picture["path"]), nearest, [count], 3 if plan.quick else 15))
        progress("times and memory", done, steps)
    empty = cost.memory(picture["path"], None, 0, False, None, plan.device)
    memory = [] if empty is None else [
        {"codec": codec.name, **{name: cost.memory(picture["path"], codec, setting, decode, plan.model, plan.device)
                                 for name, decode in (("encode", False), ("decode", True))}}
        for codec, setting in nearest]
    progress("times and memory", steps, steps)
    timed = {"name": os.path.basename(picture["path"]), "width": picture["width"], "height": picture["height"], "bpp": usual["bpp"]}
    return {"timed": timed, "times": times, "memory": memory, "memory_of_nothing": empty}


def _gallery(plan: Plan, measurement: Measurement, found: list[Any], jobs: int, progress: Progress) -> dict[str, Any]:
    count, each, classes = (1, 2, 4) if plan.quick else (4, 4, 16)
    ranked = sorted(found, key=lambda p: _gain(p, measurement))
    count = min(plan.shown or count, len(ranked))
    picked = [ranked[i * (len(ranked) - 1) // max(count - 1, 1)] for i in range(count)]  # from where we gain most to least
    side = gallery.Side(measurement, (10, USUAL), picked[0]["path"])
    shown, _ = _through(side, [p["path"] for p in picked], jobs, progress, "pictures to look at")
    return {"pictures": shown, "samples": gallery.samples(plan.model, plan.device, classes, each)}


def _gain(picture: dict[str, Any], measurement: Measurement) -> float:
    """BD-rate of one picture against the best other codec, by PSNR: the larger, the worse for us."""
    found = [own_rate(picture, measurement, name) for name in measurement.names[1:]]
    return max((rate for rate in found if rate is not None), default=0.0)
