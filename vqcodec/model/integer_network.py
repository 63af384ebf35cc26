"""Networks of integers: planes, layers and the proof that no sum overflows (docs/FORMAT.md, "Autoencoder").

NumPy only. A network is a list of layers that read planes (height x width x channels, int16) and make one each.
:func:`vqcodec.ops.reference.integer_network.run` says what a layer computes; this module says which ones there
are, and :class:`IntegerNetwork` checks that they fit together.

    plane 0 .. inputs - 1     given
    plane inputs + i          made by layers[i] from planes before it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from vqcodec.errors import ModelError

#: Values of the pixel planes that enter and leave the networks, and of latents, contexts and codebooks,
#: stand for integer / 2**fraction with these fractions.
PIXELS_IN, PIXELS_OUT, LATENT = 8, 14, 11
LARGEST_SHIFT = 30

#: What follows the rounding of a sum r: nothing, max(r, 0), or (r + 4) >> 3 where r is negative.
Activation = Literal["none", "relu", "leaky"]
Offsets: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]


def square_offsets(kernel: int, stride: int = 1) -> Offsets:
    """(row, column) offsets of a kernel x kernel window, in raster order, as the one phase of a convolution.

    The window is centred on the stride x stride inputs that a position stands for; kernel - stride must be even.
    """
    first = -((kernel - stride) // 2)
    axis = range(first, first + kernel)
    return (tuple((y, x) for y in axis for x in axis),)


def upscale_offsets(kernel: int) -> Offsets:
    """Offsets of the taps of each of the 4 phases of a transposed convolution of stride 2, kernel even.

    Output 2 y + i of an axis reads the inputs y + d to which a kernel of that size, padded by kernel / 2 - 1,
    spreads it: kernel 4 gives d = -1, 0 for i = 0 and d = 0, 1 for i = 1; kernel 2 gives d = 0.
    """
    half = kernel // 2 - 1
    axes = [[d for d in range(-kernel, kernel) if 0 <= i + half - 2 * d < kernel] for i in range(2)]
    return tuple(tuple((y, x) for y in axes[i] for x in axes[j]) for i in range(2) for j in range(2))


@dataclass(frozen=True)
class Kernel:
    """The parameters of a convolution, in ``phases`` groups of ``outputs`` sums.

    The sum of phase p and output o is bias[p, o] plus, over taps t and inputs c, weight[p, o, t, c] times the
    input at offsets[p][t].
    """

    weight: np.ndarray  #: int8, phases x outputs x taps x inputs
    bias: np.ndarray  #: int32, phases x outputs
    shift: np.ndarray  #: uint8, phases x outputs: how far each sum is shifted right, 0 .. 30
    offsets: Offsets  #: (row, column) of each tap of each phase

    @property
    def phases(self) -> int:
        return int(self.weight.shape[0])

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[3])

    def largest_sum(self) -> int:
        """No int16 inputs make a sum larger than this in size, the half that rounding adds included."""
        weights = np.abs(self.weight.astype(np.int64)).sum((2, 3))
        half = (np.int64(1) << self.shift.astype(np.int64)) >> 1
        return int((weights * 2**15 + np.abs(self.bias.astype(np.int64)) + half).max(initial=0))

    def check(self, name: str) -> None:
        """Raise :class:`ModelError` unless types, shapes and shifts fit and no sum can leave int32."""
        weight = self.weight
        if weight.dtype != np.int8 or weight.ndim != 4 or 0 in weight.shape:
            raise ModelError(
                f"{name}: expected weights of int8, phases x outputs x taps x inputs, found {_described(weight)}"
            )
        for what, array, dtype in (("bias", self.bias, np.int32), ("shift", self.shift, np.uint8)):
            if array.dtype != dtype or array.shape != weight.shape[:2]:
                raise ModelError(
                    f"{name}: expected {what} of {np.dtype(dtype)} {weight.shape[:2]}, found {_described(array)}"
                )
        if [len(taps) for taps in self.offsets] != [weight.shape[2]] * weight.shape[0]:
            raise ModelError(
                f"{name}: expected {weight.shape[2]} offsets for each of {weight.shape[0]} phases, "
                f"found {[len(taps) for taps in self.offsets]}"
            )
        if self.shift.max(initial=0) > LARGEST_SHIFT:
            raise ModelError(f"{name}: expected shifts of at most {LARGEST_SHIFT}, found {self.shift.max()}")
        if self.largest_sum() >= 2**31:
            raise ModelError(f"{name}: a sum can reach {self.largest_sum()}, int32 ends at {2**31 - 1}")


@dataclass(frozen=True)
class Unshuffle:
    """factor x factor positions become one: channel (i * factor + j) * channels + c is channel c of row i, column j."""

    source: int
    factor: int


@dataclass(frozen=True)
class Convolution:
    """saturate(activation(rounded sums)), at every ``stride``-th position, or ``upscale`` x ``upscale`` for each.

    Phase i * upscale + j makes row i and column j of each block.
    """

    source: int
    kernel: Kernel
    stride: int = 1
    upscale: int = 1
    activation: Activation = "none"


@dataclass(frozen=True)
class Residual:
    """saturate(activation(x + rounded sums of second(saturate(leaky(rounded sums of first(x))))))."""

    source: int
    first: Kernel
    second: Kernel
    activation: Activation = "none"


@dataclass(frozen=True)
class Concatenate:
    """The channels of several planes, side by side."""

    sources: tuple[int, ...]


@dataclass(frozen=True)
class Add:
    """saturate(first + second)."""

    first: int
    second: int


@dataclass(frozen=True)
class Subtract:
    """saturate(first - second)."""

    first: int
    second: int


Layer: TypeAlias = Unshuffle | Convolution | Residual | Concatenate | Add | Subtract


@dataclass(frozen=True)
class PlaneShape:
    """Channels of a plane, and how many pixels of the image lie between its positions in each direction."""

    channels: int
    stride: int


@dataclass(frozen=True)
class IntegerNetwork:
    """Layers that make ``outputs`` (numbers of planes) from ``inputs``. Construction checks everything.

    Raises :class:`ModelError`, which says what was expected and what was found, unless every layer reads planes
    that stand before it, channels and strides agree, arrays have the types and shapes that their layers need,
    and no sum of any convolution can leave int32.
    """

    inputs: tuple[PlaneShape, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for number, shape in enumerate(self.inputs):
            if shape.channels < 1 or shape.stride < 1:
                raise ModelError(
                    f"input {number}: expected at least 1 channel and a stride of at least 1, found {shape}"
                )
        planes = self.planes()
        for plane in self.outputs:
            if not 0 <= plane < len(planes):
                raise ModelError(f"expected outputs among {len(planes)} planes, found {plane}")

    def planes(self) -> list[PlaneShape]:
        """The shape of every plane, inputs first."""
        found = list(self.inputs)
        for number, layer in enumerate(self.layers):
            for source in sources(layer):
                if not 0 <= source < len(found):
                    raise ModelError(f"layer {number}: expected sources among {len(found)} planes, found {source}")
            found.append(_made(f"layer {number}", layer, [found[source] for source in sources(layer)]))
        return found

    def sizes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Rows, columns and channels of every plane for an image that is padded to height x width pixels.

        Raises :class:`ValueError` unless these are multiples of all strides.
        """
        for stride in {plane.stride for plane in self.planes()}:
            if height % stride or width % stride:
                raise ValueError(f"expected a size that is a multiple of {stride}, got {height} x {width}")
        return [(height // plane.stride, width // plane.stride, plane.channels) for plane in self.planes()]

    def kernels(self) -> Iterator[tuple[Kernel, int]]:
        """Every kernel, and how many pixels of the image lie between the positions that it is applied at."""
        planes = self.planes()
        for number, layer in enumerate(self.layers, len(self.inputs)):
            if isinstance(layer, Convolution):
                yield layer.kernel, planes[number].stride * layer.upscale
            elif isinstance(layer, Residual):
                yield from ((layer.first, planes[number].stride), (layer.second, planes[number].stride))

    def macs(self) -> float:
        """Multiply-accumulates for each pixel of the image."""
        return sum(kernel.weight.size / stride**2 for kernel, stride in self.kernels())

    def reach(self) -> int:
        """How many pixels beside a box of the outputs the inputs matter, at most, on every side.

        For boxes that begin and end at multiples of all strides, or with the image: an input position counts if
        any of its pixels lies within this distance.
        """
        planes, first = self.planes(), len(self.inputs)
        needed = [0] * len(planes)
        for number in range(len(planes) - 1, first - 1, -1):
            layer = self.layers[number - first]
            for source in sources(layer):
                step = planes[source].stride
                whole = -(-needed[number] // step) * step  # positions that the box touches are needed whole
                needed[source] = max(needed[source], whole + _margin(layer) * step)
        return max(needed[:first], default=0)


def sources(layer: Layer) -> tuple[int, ...]:
    """The planes that a layer reads."""
    if isinstance(layer, Concatenate):
        return layer.sources
    return (layer.first, layer.second) if isinstance(layer, (Add, Subtract)) else (layer.source,)


def _made(name: str, layer: Layer, read: Sequence[PlaneShape]) -> PlaneShape:
    """The plane that a layer makes, after all checks."""
    if isinstance(layer, Unshuffle):
        if layer.factor < 1:
            raise ModelError(f"{name}: expected a factor of at least 1, found {layer.factor}")
        return PlaneShape(read[0].channels * layer.factor**2, read[0].stride * layer.factor)
    if isinstance(layer, Convolution):
        return _convolved(name, layer, read[0])
    if isinstance(layer, Residual):
        inner = _convolved(f"{name}, first", Convolution(layer.source, layer.first), read[0])
        made = _convolved(
            f"{name}, second", Convolution(layer.source, layer.second, activation=layer.activation), inner
        )
        if made != read[0]:
            raise ModelError(f"{name}: expected {read[0].channels} channels to add, found {made.channels}")
        return made
    if not read:
        raise ModelError(f"{name}: expected at least one source, found none")
    if len({plane.stride for plane in read}) > 1:
        raise ModelError(f"{name}: expected planes of one stride, found {[plane.stride for plane in read]}")
    if isinstance(layer, Concatenate):
        return PlaneShape(sum(plane.channels for plane in read), read[0].stride)
    if read[0] != read[1]:
        raise ModelError(f"{name}: expected two planes of {read[0].channels} channels, found {read[1].channels}")
    return read[0]


def _convolved(name: str, layer: Convolution, read: PlaneShape) -> PlaneShape:
    kernel, stride, upscale = layer.kernel, layer.stride, layer.upscale
    kernel.check(name)
    if layer.activation not in get_args(Activation):
        raise ModelError(f"{name}: expected an activation of {get_args(Activation)}, found {layer.activation!r}")
    if stride < 1 or upscale < 1 or (stride > 1 and upscale > 1) or read.stride % upscale:
        raise ModelError(
            f"{name}: expected a stride, or an upscale that divides {read.stride}, found {stride} and {upscale}"
        )
    if kernel.phases != upscale**2:
        raise ModelError(f"{name}: expected {upscale**2} phases, found {kernel.phases}")
    if kernel.inputs != read.channels:
        raise ModelError(f"{name}: expected {read.channels} inputs, found {kernel.inputs}")
    return PlaneShape(kernel.outputs, read.stride * stride // upscale)


def _margin(layer: Layer) -> int:
    """How many positions beside those that belong to a box a layer reads, at most, on every side."""
    if isinstance(layer, Residual):
        return _offset_margin(layer.first, 1) + _offset_margin(layer.second, 1)
    return _offset_margin(layer.kernel, layer.stride) if isinstance(layer, Convolution) else 0


def _offset_margin(kernel: Kernel, stride: int) -> int:
    return max(max(-d, d - stride + 1, 0) for taps in kernel.offsets for offset in taps for d in offset)


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
