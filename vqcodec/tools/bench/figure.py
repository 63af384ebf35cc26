"""The curves of a report as one PNG."""

from __future__ import annotations

import io
from typing import Any

from vqcodec.tools.bench.text import counted

COLOURS = ("#d43d1a", "#7d838d", "#a88a52", "#1f9168", "#2f63c8", "#8a49bd")


def figure(report: dict[str, Any]) -> bytes:
    """The curves of all metrics as one PNG. Raises ``ImportError`` without matplotlib."""
    from matplotlib.figure import Figure

    metrics = [m for m in report["metrics"] if report["curves"].get(m["name"], {}).get("vqcodec")]
    whole = Figure(figsize=(5.2 * len(metrics), 4.6), dpi=160, layout="constrained")
    right = 1.25 * max(p["bpp"] for p in report["curves"]["psnr"]["vqcodec"])
    for number, metric in enumerate(metrics, 1):
        axes = whole.add_subplot(1, len(metrics), number)
        seen = []
        for name, colour in zip(report["curves"][metric["name"]], COLOURS):
            curve = sorted((p["bpp"], p["value"]) for p in report["curves"][metric["name"]][name])
            ours = name == "vqcodec"
            axes.plot(*zip(*curve), label=name, color=colour, linewidth=3 if ours else 1.4, marker="o", markersize=5 if ours else 3,
                      zorder=3 if ours else 2)
            seen += [value for bpp, value in curve if bpp <= right]
        room = 0.04 * (max(seen) - min(seen) or 1)
        axes.set(xlim=(0, right), ylim=(min(seen) - room, max(seen) + room), xlabel="bits per pixel", title=metric["label"])
        axes.grid(color="#ece9e2")
        axes.spines[["top", "right"]].set_visible(False)
    whole.axes[0].legend(frameon=False)
    whole.suptitle(f"{report['folder']}: {counted(report['pictures'], 'picture')}, real file sizes")
    stream = io.BytesIO()
    whole.savefig(stream, format="png")
    return stream.getvalue()
