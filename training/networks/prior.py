"""The prior of one code map in float, with fake quantisation (DESIGN of the integer prior).

A PixelCNN with gated residual blocks (van den Oord et al. 2016) as in VQ-VAE-2,
section 3.2 and appendix A.1:

    coarser maps -> embeddings -> 3x3 conv -> residual blocks --.
    own codes -> embedding -> masked 5x5 (self unseen) ---------+--> h
    class, rate level -> embeddings ----------------------------'
    h -> [ h + out(tanh(a) * sigmoid(b)),  a, b = masked 3x3(h) ] x layers
         [ h + out(attention(h)) every few layers ]
      -> [ the same gated block, 1x1 ] x output_layers
      -> 1x1 -> K logits

Every scale is a power of two, and float32 is exact for the sums that occur, so that with
``quantized`` set this module computes *the same numbers* as the exported integer
network (:mod:`vqcodec.ops.reference.prior`); the tests compare them with ``==``. Gradients pass
through roundings unchanged (straight-through).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.errors import InvalidArgument
from vqcodec.model import fixed_point as fmt
from vqcodec.model.config import CodeMap, PriorConfig


class _Requantize(torch.autograd.Function):
    """Round to multiples of 2**-fraction (if asked) and clamp; gradients pass inside the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: float, high: float, rounding: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high
        if not rounding:
            return x.clamp(low, high)
        return (x * scale).add_(0.5).floor_().mul_(1 / scale).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (low, high) = ctx.saved_tensors, ctx.range
        return torch.ops.aten.hardtanh_backward(grad, x, low, high), None, None, None, None


class _GateProduct(torch.autograd.Function):
    """tanh(a) * sigmoid(b), in forward with both factors and the product rounded as the tables do."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, rounding: bool) -> Tensor:
        t, s = torch.tanh(a), torch.sigmoid(b)
        ctx.save_for_backward(t, s)
        if not rounding:
            return t * s
        # tanh_table() and sigmoid_table(): no entry lies near a rounding boundary.
        unit = 2**fmt.GATE
        tq = (t * unit).add_(0.5).floor_().clamp_(-127, 127)
        sq = (s * unit).add_(0.5).floor_().clamp_(0, 127)
        return tq.mul_(sq).add_(unit / 2).mul_(1 / unit).floor_().mul_(1 / unit)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        t, s = ctx.saved_tensors
        gs = grad * s
        return gs * (1 - t * t), gs * t * (1 - s), None


class _AddToStream(torch.autograd.Function):
    """h + y with y rounded to the stream's format first, then saturated."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, y: Tensor, rounding: bool) -> Tensor:
        scale, top = 2.0**fmt.STREAM, 2**15 - 1
        total = (y * scale).add_(0.5).floor_().mul_(1 / scale).add_(h) if rounding else h + y
        ctx.save_for_backward(total)
        ctx.range = -(top + 1) / scale, top / scale
        return total.clamp(*ctx.range)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = torch.ops.aten.hardtanh_backward(grad, ctx.saved_tensors[0], *ctx.range)
        return grad, grad, None


def requantize(x: Tensor, bits: int, fraction: int, quantized: bool, *, low: int | None = None) -> Tensor:
    """``x`` in a signed fixed-point format: rounded halves up (when quantised), then saturated."""
    if bits == 32 and not quantized:
        return x  # far from saturation
    top = 2 ** (bits - 1) - 1
    bottom = -top - 1 if low is None else low
    return _Requantize.apply(x, float(2**fraction), bottom / 2**fraction, top / 2**fraction, quantized)


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of ``exact`` with the gradient of ``smooth``."""
    return smooth + (exact - smooth).detach()


class QuantizedConv2d(nn.Module):
    """A convolution whose weights are int8 with one power-of-two scale per output channel.

    Output is in multiples of 2**-fraction_out, input in multiples of 2**-fraction_in.
    ``offsets`` are the taps that are kept; all others are masked.
    """

    ARRAYS = ("weight", "bias", "shift")
    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        offsets: list[tuple[int, int]],
        *,
        fraction_in: int = fmt.ACTIVATION,
        fraction_out: int = fmt.STREAM,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.offsets = kernel, offsets
        self.fraction_in, self.fraction_out = fraction_in, fraction_out
        # Causal kernels have no rows below the centre.
        self.margin = half = kernel // 2
        self.rows_below = max(r for r, _ in offsets)
        mask = torch.zeros(half + 1 + self.rows_below, kernel)
        for r, c in offsets:
            mask[half + r, half + c] = 1
        self.register_buffer("mask", mask, persistent=False)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *mask.shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        std = 0.0 if zero else (inputs * len(offsets)) ** -0.5
        nn.init.normal_(self.weight, std=std)

    def exponents(self) -> Tensor:
        """p per output channel: weights are stored as round(w * 2**p), at most 127."""
        largest = (self.weight.detach() * self.mask).abs().amax((1, 2, 3)).clamp(min=2.0**-13)
        p = torch.floor(torch.log2(fmt.WEIGHT_MAX / largest))
        return p.clamp(max(0, self.fraction_out - self.fraction_in), 16)

    def forward(self, x: Tensor, quantized: bool) -> Tensor:
        """Outputs not yet rounded: the caller's :func:`requantize` also saturates."""
        weight: Tensor = self.weight * self.mask
        bias: Tensor = self.bias
        if quantized:
            p = torch.exp2(self.exponents())[:, None, None, None]
            top = fmt.WEIGHT_MAX
            weight = straight_through((torch.floor(weight.detach() * p + 0.5)).clamp(-top, top) / p, weight)
            unit = p.flatten() * 2**self.fraction_in
            bias = straight_through(torch.floor(bias.detach() * unit + 0.5) / unit, bias)
        # Where the kernel has fewer rows below the centre than above, the padding below makes rows too many.
        return F.conv2d(x, weight, bias, padding=self.margin)[:, :, : x.shape[2]]

    def export(self) -> dict[str, np.ndarray]:
        """``weight`` int8 outputs x taps x inputs, ``bias`` int32 and ``shift`` uint8 per output."""
        p = self.exponents().double().numpy()
        half = self.margin
        taps = [self.weight.detach().double().numpy()[:, :, half + r, half + c] for r, c in self.offsets]
        weight = np.floor(np.stack(taps, 1) * 2.0 ** p[:, None, None] + 0.5)
        bias = np.floor(self.bias.detach().double().numpy() * 2.0 ** (p + self.fraction_in) + 0.5)
        return {
            "weight": np.clip(weight, -fmt.WEIGHT_MAX, fmt.WEIGHT_MAX).astype(np.int8),
            "bias": bias.astype(np.int32),
            "shift": (p + self.fraction_in - self.fraction_out).astype(np.uint8),
        }

    @torch.no_grad()
    def restore(self, exported: Mapping[str, np.ndarray]) -> None:
        p = exported["shift"].astype(float) - self.fraction_in + self.fraction_out
        weight = torch.from_numpy(exported["weight"] * 2.0 ** -p[:, None, None]).float()
        for tap, (r, c) in enumerate(self.offsets):
            self.weight[:, :, self.margin + r, self.margin + c] = weight[:, tap]
        self.bias.copy_(torch.from_numpy(exported["bias"] * 2.0 ** -(p + self.fraction_in)))


class Embedding(nn.Module):
    """A table of vectors in a fixed-point format."""

    ARRAYS = ("",)

    def __init__(
        self, rows: int, columns: int, *, bits: int = 8, fraction: int = fmt.ACTIVATION, std: float = 0.5
    ) -> None:
        super().__init__()
        self.bits, self.fraction = bits, fraction
        self.weight = nn.Parameter(torch.randn(rows, columns) * std)

    def table(self, quantized: bool) -> Tensor:
        return requantize(self.weight, self.bits, self.fraction, quantized)

    def forward(self, index: Tensor, quantized: bool) -> Tensor:
        return F.embedding(index, self.table(quantized))

    def export(self) -> dict[str, np.ndarray]:
        table = self.table(True).detach().double().numpy() * 2**self.fraction
        return {"": table.astype(np.int8 if self.bits == 8 else np.int16)}

    @torch.no_grad()
    def restore(self, exported: Mapping[str, np.ndarray]) -> None:
        """Rows that are missing begin as the last one."""
        known = torch.from_numpy(exported[""] * 2.0**-self.fraction).float()
        self.weight.copy_(known[torch.arange(len(self.weight)).clamp(max=len(known) - 1)])


class Gate(nn.Module):
    """h + out(tanh(a) * sigmoid(b)) with a, b from a (masked) convolution of h."""

    def __init__(self, hidden: int, residual: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = QuantizedConv2d(
            hidden, 2 * residual, kernel, fmt.causal_offsets(kernel, center=True), fraction_out=fmt.GATE_INPUT
        )
        self.out = QuantizedConv2d(residual, hidden, 1, [(0, 0)], fraction_in=fmt.GATE, zero=True)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, h: Tensor, quantized: bool) -> Tensor:
        a, b = requantize(self.conv(activation(h, quantized), quantized), 8, fmt.GATE_INPUT, quantized).chunk(2, 1)
        g = _GateProduct.apply(a, b, quantized)
        return _AddToStream.apply(h, self.out(self.dropout(g), quantized), quantized)


class Attention(nn.Module):
    """h + out(causal multi-head attention), masked by wavefront step, self always seen."""

    exp: Tensor

    def __init__(self, hidden: int, heads: int, lag: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.lag, self.dropout = heads, lag, dropout
        self.qkv = QuantizedConv2d(hidden, 3 * hidden, 1, [(0, 0)], fraction_out=fmt.ACTIVATION)
        self.out = QuantizedConv2d(hidden, hidden, 1, [(0, 0)], zero=True)
        self.register_buffer("exp", torch.from_numpy(fmt.exp_table().astype(np.float64)), persistent=False)

    def forward(self, h: Tensor, quantized: bool) -> Tensor:
        n, c, height, width = h.shape
        qkv = requantize(self.qkv(activation(h, quantized), quantized), 8, fmt.ACTIVATION, quantized)
        q, k, v = qkv.reshape(n, 3, self.heads, c // self.heads, height * width).transpose(3, 4).unbind(1)
        row, column = torch.meshgrid(
            torch.arange(height, device=h.device), torch.arange(width, device=h.device), indexing="ij"
        )
        step = (column + self.lag * row).flatten()
        itself = torch.eye(len(step), dtype=torch.bool, device=h.device)
        hidden = ~((step[None] < step[:, None]) | itself)
        score = (q @ k.transpose(2, 3)).masked_fill(hidden, -torch.inf)
        if self.training and self.dropout:  # on the logits: a dropped key is not seen, self stays
            drop = (torch.rand_like(score) < self.dropout) & ~itself
            score = score.masked_fill(drop, -torch.inf)
        o = torch.softmax(score, 3) @ v
        if quantized:
            with torch.no_grad():
                unit = 2 ** (2 * fmt.ACTIVATION - fmt.EXP_STEP)
                exact = score.double() * 2 ** (2 * fmt.ACTIVATION)
                distance = torch.floor((exact.amax(3, keepdim=True) - exact) / unit)
                weight = self.exp[distance.clamp(max=fmt.EXP_SIZE - 1).long()].masked_fill(distance >= fmt.EXP_SIZE, 0)
                total = weight.sum(3, keepdim=True)
                value = v.double() * 2**fmt.ACTIVATION
                exact = torch.floor((2 * (weight @ value) + total) / (2 * total)) / 2**fmt.ACTIVATION
            o = straight_through(exact.float(), o)
        y = self.out(o.transpose(2, 3).reshape(n, c, height, width), quantized)
        return _AddToStream.apply(h, y, quantized)


class ConditionBlock(nn.Module):
    """h + conv1x1(relu(conv3x3(h))): a residual block of the conditioning stack."""

    def __init__(self, hidden: int, residual: int) -> None:
        super().__init__()
        self.conv = QuantizedConv2d(hidden, residual, 3, fmt.window_offsets(3), fraction_out=fmt.ACTIVATION)
        self.out = QuantizedConv2d(residual, hidden, 1, [(0, 0)], zero=True)

    def forward(self, h: Tensor, quantized: bool) -> Tensor:
        y = requantize(self.conv(activation(h, quantized), quantized), 8, fmt.ACTIVATION, quantized, low=0)
        return _AddToStream.apply(h, self.out(y, quantized), quantized)


def activation(h: Tensor, quantized: bool) -> Tensor:
    """The stream as the int8 input of a convolution."""
    return requantize(h, 8, fmt.ACTIVATION, quantized)


def stream(h: Tensor, quantized: bool) -> Tensor:
    """The residual stream's format."""
    return requantize(h, 16, fmt.STREAM, quantized)


class Prior(nn.Module):
    """Prior of the last of ``maps``, conditioned on all the maps before it, a class and a rate level."""

    def __init__(self, config: PriorConfig, maps: Sequence[CodeMap], classes: int, levels: int) -> None:
        super().__init__()
        self.config, self.map = config, maps[-1]
        hidden = config.hidden
        self.quantized = False
        self.embedding = Embedding(self.map.codes, config.embedding)
        self.first = QuantizedConv2d(
            config.embedding, hidden, config.first_kernel, fmt.causal_offsets(config.first_kernel, center=False)
        )
        self.class_embedding = Embedding(classes + 1, hidden, bits=16, fraction=fmt.STREAM, std=0.02)
        self.level_embedding = Embedding(levels, hidden, bits=16, fraction=fmt.STREAM, std=0.02)
        self.factors = [m.stride // self.map.stride for m in maps[:-1]]
        # Annotated as what they hold: for a type checker, PyTorch's lists hold modules of any kind.
        self.coarser: Sequence[Embedding] = nn.ModuleList(  # type: ignore[assignment]
            Embedding(m.codes, f * f * config.condition_embedding) for m, f in zip(maps, self.factors)
        )
        self.condition: Sequence[ConditionBlock] = nn.ModuleList()  # type: ignore[assignment]
        if self.coarser:
            channels = len(self.coarser) * config.condition_embedding
            self.condition_in = QuantizedConv2d(channels, hidden, 3, fmt.window_offsets(3))
            self.condition = nn.ModuleList(  # type: ignore[assignment]
                ConditionBlock(hidden, config.condition_residual) for _ in range(config.condition_blocks)
            )
        self.blocks: Sequence[Gate] = nn.ModuleList(  # type: ignore[assignment]
            Gate(hidden, config.residual, config.kernel, config.dropout) for _ in range(config.layers)
        )
        self.attention: Mapping[str, Attention] = nn.ModuleDict(
            {  # type: ignore[assignment]
                str(i): Attention(hidden, config.heads, config.lag, config.attention_dropout)
                for i in range(config.layers)
                if config.attends_after(i)
            }
        )
        self.output: Sequence[Gate] = nn.ModuleList(  # type: ignore[assignment]
            Gate(hidden, config.residual, 1, 0.0) for _ in range(config.output_layers)
        )
        self.logits = QuantizedConv2d(hidden, self.map.codes, 1, [(0, 0)], fraction_out=fmt.LOGIT)
        with torch.no_grad():
            self.logits.weight.mul_(0.1)

    @torch.no_grad()
    def start(self, codebooks: Sequence[Tensor], usage: Tensor) -> None:
        """Embeddings from the codebook vectors (first channels, unit variance); logits from code usage (K)."""

        def fill(table: Embedding, codebook: Tensor, repeat: int = 1) -> None:
            channels = table.weight.shape[1] // repeat
            scaled = codebook / codebook.std().clamp(min=1e-6)
            view = table.weight.view(len(codebook), repeat, channels)
            n = min(channels, codebook.shape[1])
            view[:, :, :n] = scaled[:, None, :n]

        fill(self.embedding, codebooks[-1])
        for table, codebook, f in zip(self.coarser, codebooks, self.factors):
            fill(table, codebook, f * f)
        self.logits.bias.copy_((usage + 1e-6).log() - (usage + 1e-6).log().mean())

    def forward(self, codes: Tensor, coarser: Sequence[Tensor], class_id: Tensor, level: Tensor) -> Tensor:
        """Logits, B x K x H x W, in nats and multiples of 1/32 when quantised.

        ``codes``: B x H x W int64; ``coarser``: the maps before, B x H/f x W/f each;
        ``class_id`` and ``level``: B int64.
        """
        q = self.quantized
        # The stream stays in float32 under autocast.
        h = requantize(self.first(self.embedding(codes, q).permute(0, 3, 1, 2), q).float(), 32, fmt.STREAM, q)
        if self.coarser:
            parts = []
            for table, c, f in zip(self.coarser, coarser, self.factors):
                e = table(c, q)  # B x h x w x (f f E): one vector per position of the finer map
                b, rows, columns, _ = e.shape
                e = e.reshape(b, rows, columns, f, f, -1).permute(0, 5, 1, 3, 2, 4)
                parts.append(e.reshape(b, -1, rows * f, columns * f))
            g = stream(self.condition_in(torch.cat(parts, 1), q).float(), q)
            for residual in self.condition:
                g = residual(g, q)
            h = h + g
        h = h + (self.class_embedding(class_id, q) + self.level_embedding(level, q))[:, :, None, None]
        h = stream(h, q)
        for i, block in enumerate(self.blocks):
            h = block(h, q)
            if str(i) in self.attention:
                h = self.attention[str(i)](h, q)
        for block in self.output:
            h = block(h, q)
        return requantize(self.logits(activation(h, q), q), 32, fmt.LOGIT, q)

    def parts(self) -> Iterator[tuple[str, QuantizedConv2d | Embedding]]:
        """All convolutions and tables, with their names in a model file."""
        yield "embedding", self.embedding
        yield "first", self.first
        yield "class", self.class_embedding
        yield "level", self.level_embedding
        for j, table in enumerate(self.coarser):
            yield f"coarser.{j}", table
        if self.coarser:
            yield "condition.in", self.condition_in
        for j, residual in enumerate(self.condition):
            yield f"condition.{j}.conv", residual.conv
            yield f"condition.{j}.out", residual.out
        for group, blocks in (("block", self.blocks), ("output", self.output)):
            for i, block in enumerate(blocks):
                yield f"{group}.{i}.gate", block.conv
                yield f"{group}.{i}.out", block.out
        for after, attention in self.attention.items():
            yield f"attention.{after}.qkv", attention.qkv
            yield f"attention.{after}.out", attention.out
        yield "logits", self.logits

    def export(self) -> dict[str, np.ndarray]:
        """The integer network as named arrays (docs/FORMAT.md, "Model file")."""
        return {
            f"{name}.{key}" if key else name: array
            for name, part in self.parts()
            for key, array in part.export().items()
        }

    def restore(self, exported: Mapping[str, np.ndarray]) -> None:
        """The inverse of :meth:`export`, of a prior for the same maps. Rate levels past those that it knew begin as its last."""
        for name, part in self.parts():
            try:
                part.restore({key: exported[f"{name}.{key}" if key else name] for key in part.ARRAYS})
            except (KeyError, RuntimeError) as error:
                raise InvalidArgument(f"the prior is not one to go on from: {name}: {error}") from error
