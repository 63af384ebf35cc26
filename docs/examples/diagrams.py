"""The drawings of the documentation: ``python docs/examples/diagrams.py`` writes docs/pictures/*.svg.

What is a number in them comes from the library. They follow the reader's light or dark setting.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vqcodec
from vqcodec.model import fixed_point
from vqcodec.ops.reference import prior as reference_prior

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"

STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2933; text-anchor: middle }
.small { font-size: 12px } .soft { fill: #5b6773 } .left { text-anchor: start } .bold { font-weight: 600 }
.mono { font-family: ui-monospace, monospace; font-size: 13px }
rect, path, line { stroke: #5b6773; stroke-width: 1.3; fill: none }
.box { fill: #eef2f6 } .code { fill: #d6e4ff; stroke: #3563c9 } .hot { fill: #ffd9a8; stroke: #b3640a }
.warm { fill: #fff1de; stroke: #b3640a } .cell { fill: none; stroke: #a9b4bf } .thick { stroke-width: 2.4 } .dash { stroke-dasharray: 5 4 }
.tip { fill: #5b6773; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e9ee } .soft { fill: #a3b0bd }
  rect, path, line { stroke: #a3b0bd } .box { fill: #2a333c } .code { fill: #203a6b; stroke: #86aaf7 }
  .hot { fill: #7a430a; stroke: #f5b062 } .warm { fill: #43301a; stroke: #f5b062 } .cell { stroke: #5b6773; fill: none }
  .tip { fill: #a3b0bd; stroke: none }
}"""


class Drawing:
    """An SVG file under construction."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
            f"<title>{title}</title>", f"<style>\n{STYLE}\n</style>",
            ('<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
             '<path class="tip" d="M0 0L10 5L0 10z"/></marker></defs>'),
        ]

    def rect(self, x: float, y: float, w: float, h: float, kind: str = "box", radius: float = 5) -> None:
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}"/>')

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{text}</text>')

    def box(self, x: float, y: float, w: float, h: float, *lines: str, kind: str = "box") -> None:
        """A rectangle with lines of text in its middle; the second and later ones are small."""
        self.rect(x, y, w, h, kind)
        top = y + h / 2 + 5 - 8.5 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(x + w / 2, top + 17 * i, line, "small soft" if i else "")

    def arrow(self, *points: tuple[float, float], kind: str = "") -> None:
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="{kind}" d="M{path}" marker-end="url(#tip)"/>')

    def grid(self, x: float, y: float, n: int, side: float, kind: str = "code") -> None:
        lines = "".join(f"M{x + i * side / n:g} {y:g}v{side:g}M{x:g} {y + i * side / n:g}h{side:g}" for i in range(1, n))
        self.rect(x, y, side, side, kind, 0)
        self.parts.append(f'<path class="{kind}" d="{lines}"/>')

    def svg(self) -> str:
        return "\n".join([*self.parts, "</svg>\n"])


def overview() -> str:
    """Three paths through the code maps: compress, decompress, sample."""
    d = Drawing(960, 330, "compress, decompress and sample, all through the code maps")
    d.rect(420, 20, 150, 290, "warm")
    d.text(495, 44, "code maps", "bold")
    for (x, y, side), n in zip(((475, 60, 40), (465, 116, 60), (455, 192, 80)), (2, 4, 8)):
        d.grid(x, y, n, side)
    d.text(495, 292, "coarse to fine", "small soft")
    for y, name in ((70, "compress"), (165, "decompress"), (260, "sample")):
        d.text(8, y - 38, name, "left bold")
    d.box(8, 45, 110, 50, "picture")
    d.box(150, 45, 100, 50, "encoder")
    d.box(282, 45, 106, 50, "nearest", "code")
    d.box(602, 45, 200, 50, "prior + range coder", "integers only", kind="code")
    d.box(846, 45, 106, 50, "file", "bytes")
    for a, b in ((118, 150), (250, 282), (388, 420), (570, 602), (802, 846)):
        d.arrow((a, 70), (b, 70))
    rows = ((165, "picture", "range decoder", ("file", "bytes")), (260, "new picture", "sampler", ("random", "and a class")))
    for y, made, step, source in rows:
        d.box(8, y - 25, 110, 50, made)
        d.box(150, y - 25, 238, 50, "decoder", "float network")
        d.box(602, y - 25, 200, 50, f"prior + {step}", "the same integers", kind="code")
        d.box(846, y - 25, 106, 50, *source)
        for a, b in ((846, 802), (602, 570), (420, 388), (150, 118)):
            d.arrow((a, y), (b, y))
    return d.svg()


def hierarchy(model: vqcodec.Codec) -> str:
    """The shipped model's code maps."""
    maps = model.model.config.autoencoder.maps
    d = Drawing(960, 200, f"the {len(maps)} code maps of the shipped model")
    d.box(8, 62, 96, 96, "picture", "256 x 256")
    d.arrow((104, 110), (136, 110))
    x = 144.0
    for number, m in enumerate(maps):
        n = 256 // m.stride
        side = 44 if m.stride == 8 else 30
        d.grid(x, 110 - side / 2, 8 if m.stride == 8 else 4, side)
        d.text(x + side / 2, 76, str(number), "small bold")
        d.text(x + side / 2, 150, f"{n} x {n}", "small")
        d.text(x + side / 2, 168, f"{m.dim} dim", "small soft")
        x += side + 17
    d.text(500, 30, f"map 0 at 1/16 of the side, maps 1 to {len(maps) - 1} at 1/8: groups of channels, from narrow to wide", "soft")
    d.text(500, 192, "any prefix is a picture", "small soft")
    return d.svg()


def wavefront(lag: int = 3, height: int = 5, width: int = 9, shown: int = 8) -> str:
    """The number of the step of every position, and what a position of one step looks at."""
    side, x0, y0 = 46, 20, 52
    d = Drawing(960, 330, "the wavefront order")
    steps = reference_prior.wavefront_steps(height, width, lag)
    at = {(int(r), int(c)): t for t, (rows, columns) in enumerate(steps) for r, c in zip(rows, columns)}
    d.text(x0 + side * width / 2, 30, f"step of every position, lag {lag}")
    for (r, c), t in at.items():
        kind = "hot" if t == shown else "code" if t < shown else "cell"
        d.rect(x0 + c * side, y0 + r * side, side, side, kind, 0)
        d.text(x0 + (c + 0.5) * side, y0 + (r + 0.5) * side + 5, str(t), "bold" if t == shown else "")
    said = f"step {shown}: {len(steps[shown][0])} positions at once. {len(steps)} steps instead of {height * width}"
    d.text(x0 + side * width / 2, 312, said, "soft")
    x1, centre = 560, (2, 2)
    d.text(x1 + side * 2.5, 30, "what a position sees: a causal window of width 5")
    for r in range(3):
        for c in range(5):
            seen = (r, c) < centre
            d.rect(x1 + c * side, y0 + r * side, side, side, "hot" if (r, c) == centre else "code" if seen else "cell", 0)
            label = "t" if (r, c) == centre else f"t - {lag * (2 - r) + 2 - c}" if seen else ""
            d.text(x1 + (c + 0.5) * side, y0 + (r + 0.5) * side + 5, label, "small")
    d.text(x1 + side * 2.5, y0 + 3 * side + 26, "all of it has a smaller t", "soft")
    return d.svg()


def prior() -> str:
    """The network of one map, from the codes that are known to the interval of the next."""
    d = Drawing(960, 400, "the integer prior of one code map")
    d.box(8, 40, 170, 56, "codes before it", "embeddings, int8")
    d.box(8, 120, 170, 56, "coarser maps", "conditioning stack, int8")
    d.box(8, 200, 170, 56, "class, rate level", "int16")
    for y in (68, 148, 228):
        d.arrow((178, y), (218, 148))
    d.box(218, 110, 104, 76, "stream h", "int16", "8 fraction bits", kind="code")
    d.arrow((322, 148), (354, 148))
    d.rect(354, 30, 334, 250, "dash")
    d.text(521, 52, "gated block, several times", "bold")
    d.box(370, 70, 146, 60, "act(h)", "round, clamp: int8")
    d.box(370, 158, 146, 60, "convolution", "int8 x int8, int32 sum")
    d.box(530, 158, 146, 60, "shift right", "(s + half) &gt;&gt; n")
    d.box(530, 70, 146, 60, "tanh, sigmoid", "tables of 256")
    d.arrow((443, 130), (443, 158))
    d.arrow((516, 188), (530, 188))
    d.arrow((603, 158), (603, 130))
    d.text(521, 246, "then a 1 x 1 convolution, and the sum with h", "small soft")
    d.text(521, 264, "top map: attention, one floor division", "small soft")
    d.arrow((688, 148), (720, 148))
    d.box(720, 110, 104, 76, "logits", "int32", kind="code")
    d.arrow((824, 148), (852, 148))
    d.box(852, 110, 100, 76, "weights", "exp table", "uint16")
    d.arrow((902, 186), (902, 318), (856, 318))
    logits = np.array([[40, 8, -1000]])
    total = 1 << fixed_point.FREQUENCY_BITS
    f = reference_prior.cumulative_frequencies(logits, fixed_point.exp_table())[0].tolist()
    d.text(120, 312, "intervals of 2^24,", "")
    d.text(120, 330, "for the range coder", "")
    left, width = 216, 636
    d.rect(left, 298, width * f[1] / total, 40, "code", 0)
    d.rect(left + width * f[1] / total, 298, width * (f[2] - f[1]) / total, 40, "hot", 0)
    d.text(left + width * f[1] / total / 2, 323, "code 0", "small")
    d.text(left + width * (f[1] + f[2]) / total / 2, 323, "code 1", "small")
    for value, x in ((f[0], left), (f[1], left + width * f[1] / total), (f[3], left + width)):
        d.text(x, 358, f"{value:,}", "mono")
    d.text(536, 386, f"logits 40, 8, -1000; code 2 keeps {f[3] - f[2]} of {total:,}: the last one", "small soft")
    return d.svg()


def file_layout(data: bytes) -> str:
    """The chunks of a golden file, to scale."""
    found = vqcodec.info(data)
    d = Drawing(960, 190, "the chunks of a file")
    left, width, total = 10.0, 940.0, len(data)
    x = left + width * 5 / total
    d.rect(left, 60, x - left, 50, "hot", 0)
    labels = [("magic", left + 14, 5)]
    for chunk in found["chunks"]:
        end = left + width * (chunk["offset"] + chunk["bytes"]) / total
        kind = "code" if chunk["name"].startswith("map") else "box"
        d.rect(x, 60, end - x, 50, kind, 0)
        labels.append((chunk["name"].removeprefix("map "), (x + end) / 2, chunk["bytes"]))
        x = end
    for i, (name, at, size) in enumerate(labels):
        high = i % 2 == 0
        d.text(at, 50 if high else 34, name, "small bold")
        d.text(at, 128 if high else 144, str(size), "small")
    d.text(480, 14, "chunks, coarse to fine: in a file that is cut off, the maps that are whole are a picture", "small soft")
    d.text(480, 176, f"bytes of each; {found['width']} x {found['height']} pixels, quality {found['quality']}, {total} bytes in all", "soft")
    return d.svg()


def tiles() -> str:
    """A region, the codes that its pixels depend on, and the tiles that hold them."""
    d = Drawing(960, 280, "a region and its tiles")
    side, x0, y0 = 100, 20, 30
    region, margin = (152, 84, 60, 76), 20
    x, y, w, h = region
    for r in range(2):
        for c in range(4):
            left, top = x0 + c * side, y0 + r * side
            touched = left < x + w + margin and left + side > x - margin and top < y + h + margin and top + side > y - margin
            d.rect(x0 + c * side, y0 + r * side, side, side, "warm" if touched else "cell", 0)
            d.text(x0 + c * side + 16, y0 + r * side + 20, str(4 * r + c), "small soft")
    d.rect(x - margin, y - margin, w + 2 * margin, h + 2 * margin, "dash", 0)
    d.rect(x, y, w, h, "hot", 0)
    d.text(x + w / 2, y + h / 2 + 5, "region")
    d.text(220, 258, "picture of 4 x 2 tiles", "soft")
    for i, (kind, line) in enumerate((("hot", "the pixels that are asked for"), ("dash", "the codes that they depend on: the networks look past tiles,"),
                                      ("warm", "the tiles that are read, checked and decoded"))):
        row = 70 + 52 * i + (16 if i == 2 else 0)
        d.rect(480, row - 14, 26, 20, kind, 0)
        d.text(520, row + 2, line, "left")
        if i == 1:
            d.text(520, row + 20, "so there are no seams", "left")
    return d.svg()


def drawings() -> dict[str, str]:
    """File name -> SVG."""
    return {
        "overview.svg": overview(),
        "hierarchy.svg": hierarchy(vqcodec.Codec()),
        "wavefront.svg": wavefront(),
        "prior.svg": prior(),
        "file.svg": file_layout((ROOT / "tests" / "golden" / "colour.vqc").read_bytes()),
        "tiles.svg": tiles(),
    }


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, svg in drawings().items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
        print(f"docs/pictures/{name}: {len(svg):,} bytes")
