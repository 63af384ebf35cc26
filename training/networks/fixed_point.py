"""Fixed-point layers for quantisation-aware training (docs/FORMAT.md, "Autoencoder: integer arithmetic").

A layer reads a :class:`Plane` and makes one. With ``quantized`` set, values are multiples of a power of two
that fit into int16, weights are int8 with one power-of-two scale for each output channel, and everything is
rounded as the integer network (:mod:`vqcodec.ops.reference.integer_network`) rounds: in float64 a layer computes
*the same numbers* as what it exports, in float32 the same but for sums beyond 24 bits. Gradients pass
through roundings unchanged (straight-through) and stop where values saturate. Without ``quantized`` the same
layers are an ordinary float network.

The formats of planes (how many bits after the point) are found by :func:`calibrate` and kept by checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.model.integer_network import LARGEST_SHIFT, Activation, square_offsets, upscale_offsets

BOTTOM, TOP = -(2**15), 2**15 - 1
WEIGHT_TOP = 127
#: Before calibration, and the finest format that calibration chooses.
START_FRACTION, LARGEST_FRACTION = 8, 14
#: Weights of a channel that is all zero need a scale, too.
LARGEST_EXPONENT = 16
#: How much larger than all that calibration saw a value may be.
HEADROOM = 2.0


class Format(nn.Module):
    """The int16 format of a plane: integers stand for integer / 2**fraction.

    ``fraction`` fixes it; otherwise :func:`calibrate` chooses.
    """

    fraction: Tensor

    def __init__(self, fraction: int | None = None) -> None:
        super().__init__()
        self.fixed = fraction is not None
        self.largest: float | None = None  # seen so far, while calibrating
        start = START_FRACTION if fraction is None else fraction
        self.register_buffer("fraction", torch.tensor(start), persistent=not self.fixed)

    def extra_repr(self) -> str:
        return f"fraction={int(self.fraction)}"

    def plane(
        self, sums: Tensor, quantized: bool, activation: Activation = "none", base: Tensor | None = None
    ) -> Plane:
        """A plane of this format: ``activation(base + sums)``, with ``sums`` rounded first when quantised."""
        if quantized:
            values = _Requantize.apply(sums, base, int(self.fraction), activation)
        else:
            values = activate(sums if base is None else base + sums, activation)
        if self.largest is not None:
            self.largest = max(self.largest, float(values.detach().abs().amax()))
        return Plane(values, self, quantized)

    def finish(self) -> None:
        """Choose the fraction from what was seen."""
        if not self.fixed and self.largest is not None:
            bits = math.log2(TOP / max(HEADROOM * self.largest, 2.0**-14))
            self.fraction.fill_(min(max(math.floor(bits), 0), LARGEST_FRACTION))
        self.largest = None


@dataclass(frozen=True)
class Plane:
    """Real values (B x C x H x W) of a format; multiples of 2**-fraction if ``quantized``."""

    values: Tensor
    format: Format
    quantized: bool

    @property
    def fraction(self) -> int:
        return int(self.format.fraction)


def calibrate(module: nn.Module, run: Callable[[], object]) -> None:
    """Choose the formats of all planes in ``module`` from what ``run`` makes it compute (in float)."""
    formats = [part for part in module.modules() if isinstance(part, Format)]
    for part in formats:
        part.largest = 0.0
    with torch.no_grad():
        run()
    for part in formats:
        part.finish()


def align(*formats: Format) -> None:
    """Give formats of planes that will lie side by side the same fraction, the coarsest."""
    least = min(int(part.fraction) for part in formats)
    for part in formats:
        part.fraction.fill_(least)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The float twin of the integer activations."""
    if activation == "relu":
        return F.relu(x)
    return F.leaky_relu(x, 1 / 8) if activation == "leaky" else x


class _Requantize(torch.autograd.Function):
    """saturate(activation(base + round(sums))) in multiples of 2**-fraction."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, base: Tensor | None, fraction: int, activation: Activation) -> Tensor:
        unit = 2.0**fraction
        x = (sums * unit).add_(0.5).floor_()
        if base is not None:
            x.add_(base, alpha=unit)
        ctx.save_for_backward(x)
        ctx.activation, ctx.has_base = activation, base is not None
        if activation == "leaky":
            y = torch.where(x < 0, (x + 4).mul_(1 / 8).floor_(), x)
        else:
            y = x.clamp(min=0 if activation == "relu" else BOTTOM)
        return y.clamp_(BOTTOM, TOP).mul_(1 / unit)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        low = {"none": BOTTOM, "relu": 0, "leaky": 8 * BOTTOM}[ctx.activation]
        grad = torch.ops.aten.hardtanh_backward(grad, x, low, TOP)
        if ctx.activation == "leaky":
            grad = torch.ops.aten.leaky_relu_backward(grad, x, 1 / 8, False)
        return grad, grad if ctx.has_base else None, None, None


def exponents(weight: Tensor, bias: Tensor, fraction_in: int, fraction_out: int) -> Tensor:
    """p for each channel: weights are stored as round(w * 2**p), biases as round(b * 2**(p + fraction_in)).

    weight: channels x n, bias: channels, both float64 without gradient. Returns channels, float64. It is the
    largest p with which weights stay within 127 and no sum can leave int32, whatever the inputs, as far as the
    shift p + fraction_in - fraction_out can be 0 to 30.
    """
    least, most = fraction_out - fraction_in, LARGEST_SHIFT + fraction_out - fraction_in
    mantissa, exponent = torch.frexp(weight.abs().amax(1))
    p = 7 - exponent.double() - (mantissa > WEIGHT_TOP / 128).double()
    p = p.where(mantissa > 0, LARGEST_EXPONENT).clamp(max=LARGEST_EXPONENT).clamp(least, most)
    while True:
        stored = torch.floor(weight * torch.exp2(p)[:, None] + 0.5).clamp(-WEIGHT_TOP, WEIGHT_TOP)
        sums = stored.abs().sum(1) * 2**15 + torch.floor(bias * torch.exp2(p + fraction_in) + 0.5).abs()
        sums += torch.floor(torch.exp2(p + fraction_in - fraction_out - 1))
        lower = (sums >= 2**31) & (p > least)
        if not bool(lower.any()):
            return p
        p = p - lower.double()


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of ``exact`` with the gradient of ``smooth``."""
    return smooth + (exact - smooth).detach()


class FixedConv2d(nn.Module):
    """A convolution of k x k taps: stride 1 and k odd, or stride 2 and k even; the edge is repeated outside the plane.

    ``upscale`` f: there are f * f times as many sums, which become an f x f block of positions each; sum
    (i * f + j) * outputs + o is channel o of the position in row i and column j of its block.
    ``fraction`` fixes the format of the output. ``adds``: it is added to a plane, whose format it takes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        upscale: int = 1,
        fraction: int | None = None,
        adds: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel, self.stride, self.upscale = inputs, outputs, kernel, stride, upscale
        self.offsets = square_offsets(kernel, stride)
        self.weight = nn.Parameter(torch.empty(upscale**2 * outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(upscale**2 * outputs))
        if not adds:
            self.format = Format(fraction)
        bound = (inputs * kernel**2) ** -0.5  # as torch.nn.Conv2d
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def exponents(self, fraction_in: int, fraction_out: int) -> Tensor:
        weight, bias = self.weight.detach().double(), self.bias.detach().double()
        return exponents(weight.flatten(1), bias, fraction_in, fraction_out)

    def sums(self, x: Plane, fraction_out: int) -> Tensor:
        """The sums, not yet rounded."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if x.quantized:
            scale = torch.exp2(self.exponents(x.fraction, fraction_out)).to(weight.dtype)
            weight = _stored(weight, scale[:, None, None, None], WEIGHT_TOP)
            bias = _stored(bias, scale * 2.0**x.fraction)
        margin = (self.kernel - self.stride + 1) // 2
        values = F.pad(x.values, (margin,) * 4, mode="replicate") if margin else x.values
        return F.conv2d(values, weight, bias, stride=self.stride)

    def forward(self, x: Plane, activation: Activation = "none", *, base: Plane | None = None) -> Plane:
        """``base``: the plane that it is added to, before the activation."""
        if base is not None:
            return base.format.plane(self.sums(x, base.fraction), x.quantized, activation, base.values)
        made = self.format.plane(self.sums(x, int(self.format.fraction)), x.quantized, activation)
        return made if self.upscale == 1 else Plane(shuffle(made.values, self.upscale), made.format, made.quantized)

    def export(self, fraction_in: int, fraction_out: int) -> dict[str, np.ndarray]:
        """``weight`` int8 phases x outputs x taps x inputs; ``bias`` int32 and ``shift`` uint8, phases x outputs.

        ``fraction_out``: of the plane that it makes or is added to.
        """
        weight = self.weight.detach().double().permute(0, 2, 3, 1).flatten(1, 2).cpu().numpy()
        shape = self.upscale**2, self.outputs
        return _exported(
            weight.reshape(*shape, *weight.shape[1:]),
            self.bias.detach().double().cpu().numpy().reshape(shape),
            self.exponents(fraction_in, fraction_out).cpu().numpy().reshape(shape),
            fraction_in,
            fraction_out,
        )

    @torch.no_grad()
    def restore(self, exported: dict[str, np.ndarray], fraction_in: int, fraction_out: int) -> None:
        """The inverse of :meth:`export`. Inputs and outputs past those that were exported become zero."""
        weight, bias = _restored(exported, fraction_in, fraction_out)
        p, o, taps, i = weight.shape
        own = torch.zeros(self.upscale**2, self.outputs, self.kernel, self.kernel, self.inputs, dtype=torch.float64)
        own[:, :o, ..., :i] = weight.reshape(p, o, self.kernel, self.kernel, i)
        self.weight.copy_(own.flatten(0, 1).permute(0, 3, 1, 2))
        self.bias.zero_().view(-1, self.outputs)[:, :o] = bias


class FixedConvTranspose2d(nn.Module):
    """A transposed convolution of stride 2 and k x k taps, k even: twice as many rows and columns.

    Every position of its output reads k / 2 x k / 2 inputs; the edge is repeated outside the plane.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, fraction: int | None = None) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel = inputs, outputs, kernel
        self.offsets = upscale_offsets(kernel)
        self.weight = nn.Parameter(torch.empty(inputs, outputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.format = Format(fraction)
        bound = (outputs * kernel**2) ** -0.5  # as torch.nn.ConvTranspose2d
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def phases(self) -> Tensor:
        """The weights of each position of a 2 x 2 block: 4 x outputs x taps x inputs."""
        half = (self.kernel - 2) // 2
        # Output 2 y + i of an axis reads input y + d with the weight of index i + half - 2 d.
        parts = [
            self.weight[:, :, i + half - 2 * dy, j + half - 2 * dx]
            for (i, j), taps in zip(np.ndindex(2, 2), self.offsets)
            for dy, dx in taps
        ]
        return torch.stack(parts).reshape(4, -1, self.inputs, self.outputs).permute(0, 3, 1, 2)

    def exponents(self, fraction_in: int, fraction_out: int) -> Tensor:
        """4 x outputs."""
        weight, bias = self.phases().detach().double(), self.bias.detach().double()
        return exponents(weight.flatten(2).flatten(0, 1), bias.repeat(4), fraction_in, fraction_out).reshape(4, -1)

    def forward(self, x: Plane, activation: Activation = "none") -> Plane:
        weight: Tensor = self.weight
        bias: Tensor = self.bias.expand(4, -1)
        if x.quantized:
            scale = torch.exp2(self.exponents(x.fraction, int(self.format.fraction))).to(weight.dtype)
            bias = _stored(bias, scale * 2.0**x.fraction)
            block = scale.t().reshape(-1, 2, 2)  # outputs, row and column of the block
            parity = block.roll((self.kernel // 2 - 1, self.kernel // 2 - 1), (1, 2))  # by the parity of a tap's index
            weight = _stored(weight, parity.repeat(1, self.kernel // 2, self.kernel // 2), WEIGHT_TOP)
        reach = self.kernel // 4  # inputs beside its own that an output reads
        values = F.pad(x.values, (reach,) * 4, mode="replicate") if reach else x.values
        sums = F.conv_transpose2d(values, weight, stride=2, padding=(self.kernel - 2) // 2 + 2 * reach)
        b, o, h, w = sums.shape
        blocks = bias.t().reshape(1, o, 1, 2, 1, 2)
        sums = (sums.reshape(b, o, h // 2, 2, w // 2, 2) + blocks).reshape(b, o, h, w)
        return self.format.plane(sums, x.quantized, activation)

    def export(self, fraction_in: int, fraction_out: int) -> dict[str, np.ndarray]:
        """``weight`` int8 4 x outputs x taps x inputs; ``bias`` int32 and ``shift`` uint8, 4 x outputs."""
        bias = self.bias.detach().double().expand(4, -1).cpu().numpy()
        return _exported(
            self.phases().detach().double().cpu().numpy(),
            bias,
            self.exponents(fraction_in, fraction_out).cpu().numpy(),
            fraction_in,
            fraction_out,
        )

    @torch.no_grad()
    def restore(self, exported: dict[str, np.ndarray], fraction_in: int, fraction_out: int) -> None:
        """The inverse of :meth:`export`. Inputs and outputs past those that were exported become zero."""
        weight, bias = _restored(exported, fraction_in, fraction_out)
        half, (_, o, _, i) = (self.kernel - 2) // 2, weight.shape
        self.weight.zero_()
        for (y, x), taps, phase in zip(np.ndindex(2, 2), self.offsets, weight):
            for (dy, dx), tap in zip(taps, phase.permute(1, 2, 0)):
                self.weight[:i, :o, y + half - 2 * dy, x + half - 2 * dx] = tap.float()
        self.bias.zero_()[:o] = bias.mean(0)


def _stored(value: Tensor, scale: Tensor, top: int | None = None) -> Tensor:
    """Weights or biases as they are stored, in real numbers."""
    exact = torch.floor(value.detach() * scale + 0.5)
    return straight_through((exact if top is None else exact.clamp(-top, top)) / scale, value)


def _exported(
    weight: np.ndarray, bias: np.ndarray, p: np.ndarray, fraction_in: int, fraction_out: int
) -> dict[str, np.ndarray]:
    stored = np.floor(weight * 2.0 ** p[..., None, None] + 0.5)
    limits = np.iinfo(np.int32)
    return {
        "weight": np.clip(stored, -WEIGHT_TOP, WEIGHT_TOP).astype(np.int8),
        "bias": np.clip(np.floor(bias * 2.0 ** (p + fraction_in) + 0.5), limits.min, limits.max).astype(np.int32),
        "shift": (p + fraction_in - fraction_out).astype(np.uint8),
    }


def _restored(exported: dict[str, np.ndarray], fraction_in: int, fraction_out: int) -> tuple[Tensor, Tensor]:
    """Weights, phases x outputs x taps x inputs, and biases, phases x outputs, in real numbers: float64."""
    p = torch.from_numpy(exported["shift"].astype(np.float64)) + (fraction_out - fraction_in)
    weight, bias = (torch.from_numpy(exported[name].astype(np.float64)) for name in ("weight", "bias"))
    return weight * torch.exp2(-p)[..., None, None], bias * torch.exp2(-p - fraction_in)


class ResidualBlock(nn.Module):
    """activation(x + conv1x1(leaky(conv3x3(x)))); the last convolution starts at zero if asked."""

    def __init__(self, channels: int, inner: int, *, zero: bool) -> None:
        super().__init__()
        self.conv1 = FixedConv2d(channels, inner, 3)
        self.conv2 = FixedConv2d(inner, channels, 1, adds=True)
        if zero:
            zero_convolution(self.conv2)

    def forward(self, x: Plane, activation: Activation = "none") -> Plane:
        return self.conv2(self.conv1(x, "leaky"), activation, base=x)


def scale_format(conv: FixedConv2d | FixedConvTranspose2d) -> None:
    """Choose the format of the plane that ``conv`` makes, if it is free, for weights as large as they start."""
    made: Format | None = getattr(conv, "format", None)
    size = float(conv.weight.detach().square().mean().sqrt())
    if made is None or made.fixed or not size:
        return
    wanted = (3 * conv.inputs * conv.kernel**2) ** -0.5
    made.fraction.add_(round(math.log2(size / wanted))).clamp_(0, LARGEST_FRACTION)


def zero_convolution(conv: FixedConv2d | FixedConvTranspose2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


def shuffle(x: Tensor, f: int) -> Tensor:
    """B x (f f C) x H x W -> B x C x (f H) x (f W): channel (i * f + j) * C + c goes to row i, column j of a block."""
    b, c, h, w = x.shape
    return x.reshape(b, f, f, c // f**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // f**2, f * h, f * w)


def unshuffle(x: Tensor, f: int) -> Tensor:
    """The inverse of :func:`shuffle`."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // f, f, w // f, f).permute(0, 3, 5, 1, 2, 4).reshape(b, f * f * c, h // f, w // f)


def add(a: Plane, b: Plane) -> Plane:
    """a + b, saturated; both of the same format, which is a's."""
    return _combined(a, b, a.values + b.values)


def subtract(a: Plane, b: Plane) -> Plane:
    """a - b, saturated; both of the same format, which is a's."""
    return _combined(a, b, a.values - b.values)


def _combined(a: Plane, b: Plane, values: Tensor) -> Plane:
    if a.quantized:
        unit = _common(a, b)
        values = values.clamp(BOTTOM / unit, TOP / unit)
    return Plane(values, a.format, a.quantized)


def concatenate(a: Plane, b: Plane) -> Plane:
    """Channels side by side; both of the same format."""
    if a.quantized:
        _common(a, b)
    return Plane(torch.cat([a.values, b.values], 1), a.format, a.quantized)


def _common(a: Plane, b: Plane) -> float:
    if a.fraction != b.fraction:
        raise ValueError(f"planes of fractions {a.fraction} and {b.fraction} do not fit together")
    return 2.0**a.fraction
