"""What every benchmark hands to ``python -m benchmarks``: rows of ours against a peer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vqcodec.tools.bench.cost import quartiles

Spread = dict[str, float]

#: Closes a generated section of a document.
END = "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """job: what both do. unit: "s" or "" (bytes relative to the peer's). ours, theirs: median, low and high quartile; less is better.

    ours is None if nothing was measured; theirs if the peer is not there, and ``absent`` says why. command: how to measure this row again.
    """

    job: str
    peer: str
    unit: str
    ours: Spread | None
    theirs: Spread | None
    absent: str = ""
    command: str = ""

    @classmethod
    def timed(cls, job: str, peer: str, ours: Sequence[float], theirs: Sequence[float] | None, absent: str = "") -> Row:
        """From seconds."""
        return cls(job, peer, "s", quartiles(ours), quartiles(theirs) if theirs else None, absent)

    @property
    def ratio(self) -> float | None:
        """How many times as much the peer takes."""
        return self.theirs["median"] / self.ours["median"] if self.theirs and self.ours else None


def dump(path: Path | None, rows: Sequence[Row]) -> None:
    """Write rows as JSON, if there is a path."""
    if path:
        path.write_text(json.dumps([asdict(row) for row in rows]))


def load(path: Path, command: str) -> list[Row]:
    """What ``dump`` has written, with the command that did it."""
    return [Row(**{**row, "command": command}) for row in json.loads(path.read_text())]


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Cells, the first row is the head."""
    cells = [["job", "peer", "ours", "peer's", "peer's / ours", "command"]]
    for row in rows:
        ratio = "absent" if row.ratio is None else f"{row.ratio:,.0f}x" if row.ratio >= 100 else f"{row.ratio:.3g}x"
        theirs = spread(row.theirs, row.unit) if row.theirs else row.absent
        cells.append([row.job, row.peer, spread(row.ours, row.unit), theirs, ratio, f"`{row.command}`"])
    return cells


def spread(values: Spread | None, unit: str) -> str:
    """Median and, if they differ, quartiles: "2.15 ms (2.10 to 2.31)"."""
    if values is None:
        return "-"
    factor, name = (1, "") if unit != "s" else (1, " s") if values["median"] >= 1 else (1e3, " ms")
    middle, low, high = (factor * values[key] for key in ("median", "low", "high"))
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f}{name}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if low != high else "")


def markdown(rows: Sequence[Row]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in table(rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], ["---", "---", "--:", "--:", "--:", "---"], *cells[1:]])


def plain(rows: Sequence[Row]) -> str:
    """For a terminal, without the commands."""
    cells = [line[:-1] for line in table(rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    lines = ["  ".join(cell.rjust(w) if i in (2, 4) else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
             for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def replaced(document: str, begin: str, content: str) -> str:
    """``document`` with other content between a marker and the next ``END``. Raises ``ValueError`` without them."""
    before, found, rest = document.partition(begin)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"the document must have the markers {begin} and {END}")
    return f"{before}{begin}\n\n{content}\n{END}{after}"
