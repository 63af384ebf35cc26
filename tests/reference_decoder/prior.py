"""A decoder of the code maps in .vqc files, written from docs/FORMAT.md and nothing else.

It imports nothing of vqcodec. Container and range coder are those of `format_v1`; here are the
model file, the integer prior (NumPy arrays of int64) and the wavefront, as direct as the
specification reads. The tests hold the library against it.

    model = format_v1_prior.read_model(path.read_bytes())
    maps = format_v1_prior.decode(data, model)
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator

import numpy as np

from tests.reference_decoder import container as reference_container
from tests.reference_decoder.container import require

DTYPES = {"I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "F16": "<f2"}
TOTAL = 2**24


# -- Model file --------------------------------------------------------------------------


class Model:
    """The description and the tensors of a model file, and its fingerprint."""

    def __init__(self, config: dict, tensors: dict[str, np.ndarray]) -> None:
        self.config, self.tensors = config, tensors
        self.strides = [m["stride"] for m in config["autoencoder"]["maps"]]
        self.unit = self.strides[0]
        self.fingerprint = fingerprint(config, tensors)


def read_model(data: bytes) -> Model:
    size = struct.unpack_from("<Q", data)[0]
    entries, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = entries.pop("__metadata__")
    require(metadata["format"] == "vqcodec-model-1", "the model file must have format vqcodec-model-1")
    tensors = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return Model(json.loads(metadata["config"]), tensors)


def fingerprint(config: dict, tensors: dict[str, np.ndarray]) -> bytes:
    """SHA-256 of the description, without its card and the encoder's weights, and of all tensors, 32 bytes."""
    described = {name: value for name, value in config.items() if name != "card"}
    described["autoencoder"] = {name: value for name, value in config["autoencoder"].items() if name != "distortion_weights"}
    found = hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        found.update(tensor.tobytes())
    return found.digest()


# -- Integers ----------------------------------------------------------------------------


def rshift(x: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    return (x + (2**s >> 1)) >> s


def sat8(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -128, 127)


def sat16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -32768, 32767)


def act(h: np.ndarray) -> np.ndarray:
    return sat8(rshift(h, 4))


# -- Windows -----------------------------------------------------------------------------


def window(size: int) -> list[tuple[int, int]]:
    """The taps (row, column) less the centre, in raster order."""
    reach = range(-(size // 2), size // 2 + 1)
    return [(r, c) for r in reach for c in reach]


def causal(size: int, centre: bool) -> list[tuple[int, int]]:
    return [tap for tap in window(size) if tap < (0, 0) or centre and tap == (0, 0)]


def gather(x: np.ndarray, r: np.ndarray, c: np.ndarray, taps: list[tuple[int, int]]) -> np.ndarray:
    """n x taps x channels: what positions (r, c) see of x, rows x columns x channels; zero outside."""
    seen = np.zeros((len(r), len(taps), x.shape[2]), np.int64)
    for t, (down, right) in enumerate(taps):
        y, z = r + down, c + right
        inside = (y >= 0) & (y < x.shape[0]) & (z >= 0) & (z < x.shape[1])
        seen[inside, t] = x[y[inside], z[inside]]
    return seen


# -- The network of one map --------------------------------------------------------------


class Prior:
    """The network of map m, without state. Values of n positions are n x channels, those of a tile rows x columns x channels."""

    def __init__(self, model: Model, m: int) -> None:
        own = f"prior.{m}/"
        self.tensors = {n.removeprefix(own): t.astype(np.int64) for n, t in model.tensors.items() if n.startswith(own)}
        self.tanh, self.sigmoid, self.exp = (model.tensors[f"tables/{n}"].astype(np.int64) for n in ("tanh", "sigmoid", "exp"))
        self.config = model.config["priors"][m]
        self.lag = max(self.config["kernel"], self.config["first_kernel"]) // 2 + 1
        self.ratios = [stride // model.strides[m] for stride in model.strides[:m]]

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        """x: n x taps x inputs, or n x inputs where the window is 1x1."""
        weight, bias, shift = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        return rshift(x.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T + bias, shift)

    def condition(self, coarser: list[np.ndarray], rows: int, columns: int) -> np.ndarray | int:
        """g, rows x columns x H: what the codes of coarser maps, of the same tile, tell."""
        if not coarser:
            return 0
        r, c = (i.ravel() for i in np.mgrid[:rows, :columns])
        parts = []
        for j, (codes, f) in enumerate(zip(coarser, self.ratios)):
            embedded = self.tensors[f"coarser.{j}"].reshape(-1, f * f, self.config["condition_embedding"])
            parts.append(embedded[codes[r // f, c // f], r % f * f + c % f])

        def conv(name: str, x: np.ndarray) -> np.ndarray:
            return self.conv(name, gather(x.reshape(rows, columns, -1), r, c, window(3)))

        s = sat16(conv("condition.in", np.concatenate(parts, 1)))
        for b in range(self.config["condition_blocks"]):
            y = np.clip(conv(f"condition.{b}.conv", act(s)), 0, 127)
            s = sat16(s + self.conv(f"condition.{b}.out", y))
        return s.reshape(rows, columns, -1)

    def has_attention(self, block: int) -> bool:
        attentions, blocks = self.config["attention_layers"], self.config["layers"]
        return (block + 1) * attentions // blocks > block * attentions // blocks

    def gated(self, name: str, h: np.ndarray, seen: np.ndarray) -> np.ndarray:
        ab = sat8(self.conv(f"{name}.gate", seen)) + 128
        a, b = np.split(ab, 2, axis=1)
        g = rshift(self.tanh[a] * self.sigmoid[b], 7)
        return sat16(h + self.conv(f"{name}.out", g))

    def attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """k, v: rows of all positions so far in coding order; q: of the last n of them, which are one step.

        Those see all earlier ones, and each sees itself.
        """
        heads, n, before = self.config["heads"], len(q), len(k) - len(q)
        q, k, v = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v))
        sees = np.concatenate([np.ones((n, before), bool), np.eye(n, dtype=bool)], 1)
        score = np.where(sees, q @ k.transpose(0, 2, 1), -(2**40))
        weight = self.exponential((score.max(2, keepdims=True) - score) >> 3)
        total = weight.sum(2, keepdims=True)
        out = (2 * (weight @ v) + total) // (2 * total)
        return out.transpose(1, 0, 2).reshape(n, -1)

    def exponential(self, distance: np.ndarray) -> np.ndarray:
        """Zero past the end of the table."""
        return np.where(distance < 512, self.exp[np.minimum(distance, 511)], 0)

    def cumulative(self, logits: np.ndarray) -> np.ndarray:
        """n x (K + 1): F_0 .. F_K."""
        e = self.exponential(logits.max(1, keepdims=True) - logits)
        c = np.concatenate([np.zeros((len(e), 1), np.int64), e.cumsum(1)], 1)
        codes = logits.shape[1]
        return np.arange(codes + 1) + c * (TOTAL - codes) // c[:, -1:]


class Tile:
    """One tile of one map, decoded step by step; every layer keeps what it computed."""

    def __init__(self, prior: Prior, coarser: list[np.ndarray], shape: tuple[int, ...], class_id: int, level: int) -> None:
        self.prior, (rows, columns) = prior, shape
        hidden, layers = prior.config["hidden"], prior.config["layers"]
        tensors = prior.tensors
        self.start = tensors["class"][class_id] + tensors["level"][level] + prior.condition(coarser, rows, columns)
        self.start = np.broadcast_to(self.start, (rows, columns, hidden))
        self.codes = np.zeros((rows, columns), np.int64)
        self.embedded = np.zeros((rows, columns, tensors["embedding"].shape[1]), np.int64)
        self.inputs = [np.zeros((rows, columns, hidden), np.int64) for _ in range(layers)]
        self.qkv = {block: np.zeros((0, 3 * hidden), np.int64) for block in range(layers) if prior.has_attention(block)}

    def logits(self, r: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Of the positions (r, c) of one step, n x K."""
        prior, config = self.prior, self.prior.config
        h = sat16(self.start[r, c] + prior.conv("first", gather(self.embedded, r, c, causal(config["first_kernel"], centre=False))))
        for block in range(config["layers"]):
            self.inputs[block][r, c] = act(h)
            h = prior.gated(f"block.{block}", h, gather(self.inputs[block], r, c, causal(config["kernel"], centre=True)))
            if block in self.qkv:
                name = f"attention.{block}"
                self.qkv[block] = np.concatenate([self.qkv[block], sat8(prior.conv(f"{name}.qkv", act(h)))])
                q, k, v = np.split(self.qkv[block], 3, axis=1)
                h = sat16(h + prior.conv(f"{name}.out", prior.attention(q[-len(r) :], k, v)))
        for i in range(config["output_layers"]):
            h = prior.gated(f"output.{i}", h, act(h))
        return prior.conv("logits", act(h))

    def steps(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the positions of every step, in coding order."""
        lag, (rows, columns) = self.prior.lag, self.codes.shape
        for t in range(columns + lag * (rows - 1)):
            r = np.array([r for r in range(rows) if 0 <= t - lag * r < columns], np.int64)
            if len(r):
                yield r, t - lag * r

    def put(self, r: np.ndarray, c: np.ndarray, codes: list[int]) -> None:
        self.codes[r, c] = codes
        self.embedded[r, c] = self.prior.tensors["embedding"][codes]

    def decode(self, stream: bytes) -> np.ndarray:
        decoder = reference_container.RangeDecoder(stream)
        for r, c in self.steps():
            frequencies = np.diff(self.prior.cumulative(self.logits(r, c)))
            self.put(r, c, [decoder.symbol(row) for row in frequencies.tolist()])
        return self.codes


# -- Files -------------------------------------------------------------------------------


def spans(length: int, tile: int, unit: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along one side in pixels, the last one rounded up to a multiple of unit."""
    begins = range(0, length, tile or length)
    return [(x, -(-min(x + (tile or length), length) // unit) * unit) for x in begins]


def decode(data: bytes, model: Model) -> list[np.ndarray]:
    """All code maps of a file, also those that it leaves out."""
    found = reference_container.read(data)
    require(found["fingerprint"] == model.fingerprint[:16], "the file must name this model")
    require(found["maps"] <= len(model.strides), "the file must not have more maps than the model")
    require(found["class"] <= len(model.config["classes"]), "the class must be one of the model's")
    require(found["level"] < model.config["autoencoder"]["levels"], "the level must be one of the model's")
    down, right = (spans(found[side], found["tile"], model.unit) for side in ("height", "width"))
    maps = [np.zeros((down[-1][1] // s, right[-1][1] // s), np.int64) for s in model.strides]
    for m, streams in enumerate(found["streams"]):
        prior, owned = Prior(model, m), [(y, x) for y in down for x in right]
        for (y, x), stream in zip(owned, streams):
            parts = [a[y[0] // s : y[1] // s, x[0] // s : x[1] // s] for a, s in zip(maps[: m + 1], model.strides)]
            tile = Tile(prior, parts[:-1], parts[-1].shape, found["class"], found["level"])
            parts[-1][:] = tile.decode(stream)
    return maps
