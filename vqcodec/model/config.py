"""A model's configuration as plain data: dataclasses, their JSON form, and the presets.

Imports neither torch nor numpy, so that tools can read a model's configuration
without loading a framework.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vqcodec.errors import InvalidArgument, ModelError

Transform = Literal["conv", "lapped"]


@dataclass(frozen=True)
class CodeMap:
    """One code map of the hierarchy.

    Maps are listed coarse to fine. Consecutive maps of equal stride share one
    latent tensor: each takes the next ``dim`` channels of it (a channel group),
    or, when ``refines`` is set, quantises what the maps before it leave over of
    ``dim`` channels that they have taken.
    """

    stride: int  #: pixels per code, a power of two, never larger than the map before
    dim: int  #: length of the codebook vectors
    codes: int = 512  #: codebook size K, 3 .. 65536
    refines: int | None = None  #: the first of the channels of its stride that it refines; None: the next channels


@dataclass(frozen=True)
class AutoencoderConfig:
    """Stage 1 (VQ-VAE-2, section 3.1 and table 5).

    ``transform`` chooses the networks around the quantisers:

    * ``conv``: the paper's strided convolutions and transposed convolutions.
    * ``lapped``: 3x3 convolutions over 8x8 blocks, initialised as the KLT of image
      patches, with residual branches initialised to zero, so that training starts
      from a transform codec.
    """

    maps: tuple[CodeMap, ...]
    transform: Transform = "lapped"
    hidden: int = 128  #: channels of the feature maps
    residual: int = 64  #: channels inside a residual block
    encoder_blocks: int = 3
    decoder_blocks: int = 8
    encoder_kernel: int = 3  #: filter size of the plain convolutions (conv)
    upsample_kernel: int = 4  #: filter size of strided and transposed convolutions (conv)
    refine: int = 48  #: channels of the quarter-resolution filter (lapped)
    refine_blocks: int = 3
    beta: float = 0.25  #: commitment loss weight, equation 2
    decay: float = 0.99  #: EMA decay gamma of the codebooks
    #: ``null_code``: code 0 of every map is the zero vector, and codes are chosen by
    #: squared error + lambda * bits. Off for the paper's presets.
    null_code: bool = True
    #: Ends of the range of Lagrange multipliers in training: summed squared error of
    #: [0, 1] pixels (all channels) per bit.
    lambda_max: float = 5e-2
    lambda_min: float = 8e-4
    #: Positions of quality 0, 50 and 100 on the logarithmic scale between the two (0 and 1);
    #: a parabola joins them. Below 0, codes are chosen outside the trained range.
    quality_positions: tuple[float, float, float] = (-0.2, 0.15, 1.0)
    levels: int = 8  #: rate levels: each has its own code lengths and prior input
    #: Weight of errors in each map when the codes of a file are chosen (not in training); empty: 1 in all.
    #: They affect what an encoder writes, but not how a decoder reads it.
    distortion_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_maps(self.maps)
        if self.transform not in get_args(Transform):
            raise InvalidArgument(f"transform must be one of {get_args(Transform)}, got {self.transform!r}")
        if self.transform == "lapped" and 8 not in {m.stride for m in self.maps}:
            raise InvalidArgument("the lapped transform needs its finest maps at stride 8")
        if not 1 <= self.levels <= 256:
            raise InvalidArgument(f"levels must be 1..256, got {self.levels}")
        weights = self.distortion_weights
        if weights and (len(weights) != len(self.maps) or not all(0 < w < math.inf for w in weights)):
            raise InvalidArgument(
                f"distortion_weights must be empty or a positive number for each of {len(self.maps)} maps, got {weights}"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """The distinct strides, coarse to fine: one latent tensor each."""
        return tuple(sorted({m.stride for m in self.maps}, reverse=True))

    def maps_at(self, stride: int) -> tuple[CodeMap, ...]:
        return tuple(m for m in self.maps if m.stride == stride)

    def latent_dim(self, stride: int) -> int:
        """Channels of the latent tensor at ``stride``."""
        return sum(m.dim for m in self.maps_at(stride) if m.refines is None)

    def maps_before(self, stride: int) -> int:
        """How many maps are coarser than those of a stride."""
        return sum(m.stride > stride for m in self.maps)

    def channels(self, stride: int) -> list[slice]:
        """The channels of the latent tensor of a stride that each of its maps quantises."""
        found, end = [], 0
        for m in self.maps_at(stride):
            begin = end if m.refines is None else m.refines
            found.append(slice(begin, begin + m.dim))
            end = max(end, begin + m.dim)
        return found

    def position(self, quality: float) -> float:
        """Position of a quality in [0, 100] between lambda_max (0) and lambda_min (1)."""
        low, middle, high = self.quality_positions
        x = quality / 100
        return low + (4 * middle - 3 * low - high) * x + 2 * (low - 2 * middle + high) * x**2

    def lagrangian(self, position: float) -> float:
        """lambda at a position: geometric between the two ends."""
        return self.lambda_max * (self.lambda_min / self.lambda_max) ** position

    def level(self, position: float) -> int:
        """Rate level at a position: equal parts of [0, 1]."""
        return min(max(int(position * self.levels), 0), self.levels - 1)


@dataclass(frozen=True)
class PriorConfig:
    """Stage 2: the prior of one code map (VQ-VAE-2, appendix A.1, tables 3 and 4)."""

    hidden: int = 48  #: channels of the feature stream ("hidden units")
    residual: int = 48  #: channels inside a gated block ("residual units")
    layers: int = 4  #: gated masked residual blocks
    kernel: int = 3  #: filter size of the masked convolutions in the blocks
    first_kernel: int = 5  #: filter size of the first masked convolution
    embedding: int = 16  #: channels of the embedding of the map's own codes
    attention_layers: int = 0  #: causal attention, spread evenly over the blocks
    heads: int = 0
    output_layers: int = 0  #: gated 1x1 blocks before the logits ("output stack")
    condition_embedding: int = 8  #: channels per coarser map
    condition_blocks: int = 1  #: residual blocks of the conditioning stack
    condition_residual: int = 48  #: channels inside those blocks
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("kernel", "first_kernel"):
            if getattr(self, name) % 2 == 0:
                raise InvalidArgument(f"{name} must be odd, got {getattr(self, name)}")
        if bool(self.attention_layers) != bool(self.heads):
            raise InvalidArgument("attention needs both attention_layers and heads")
        if self.heads and self.hidden % self.heads:
            raise InvalidArgument(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.attention_layers > self.layers:
            raise InvalidArgument("at most one attention layer per gated block")

    @property
    def lag(self) -> int:
        """Wavefront lag: position (r, c) belongs to step c + lag * r."""
        return max(self.kernel, self.first_kernel) // 2 + 1

    def attends_after(self, layer: int) -> bool:
        """Whether causal attention follows gated block ``layer`` (0-based)."""
        n = self.attention_layers
        return n > 0 and (layer + 1) * n // self.layers > layer * n // self.layers


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: autoencoder, one prior per map, classes."""

    name: str
    autoencoder: AutoencoderConfig
    priors: tuple[PriorConfig, ...]
    classes: tuple[str, ...] = ()  #: class k + 1 is called classes[k]; class 0 is "none"
    card: dict[str, Any] = field(default_factory=dict, compare=False)  #: data, licences, figures

    def __post_init__(self) -> None:
        if len(self.priors) != len(self.autoencoder.maps):
            raise InvalidArgument(f"one prior per map: {len(self.autoencoder.maps)} maps, {len(self.priors)} priors")

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this many pixels."""
        return max(m.stride for m in self.autoencoder.maps)

    def map_shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width in codes of every map of an image of this size."""
        height, width = (-(-side // self.stride) * self.stride for side in (height, width))
        return [(height // m.stride, width // m.stride) for m in self.autoencoder.maps]

    def class_number(self, name: int | str | None) -> int:
        """Number of a class given by number or name; None is 0, no class."""
        if name is None:
            return 0
        if isinstance(name, str) and not name.isdecimal():
            if name not in self.classes:
                raise InvalidArgument(f"unknown class {name!r}; this model has {', '.join(self.classes) or 'none'}")
            return self.classes.index(name) + 1
        try:
            number = int(name) if isinstance(name, str) else operator.index(name)
        except TypeError:
            raise InvalidArgument(f"class must be a number or a name, got {name!r}") from None
        if not 0 <= number <= len(self.classes):
            raise InvalidArgument(f"class must be 0 (none) to {len(self.classes)}, got {number}")
        return number

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> ModelConfig:
        """The inverse of :meth:`to_json`; :class:`ModelError` on anything unexpected."""
        try:
            autoencoder = dict(data["autoencoder"])
            autoencoder["maps"] = tuple(CodeMap(**m) for m in autoencoder["maps"])
            autoencoder["quality_positions"] = tuple(autoencoder["quality_positions"])
            autoencoder["distortion_weights"] = tuple(autoencoder.get("distortion_weights", ()))
            return cls(
                name=str(data["name"]),
                autoencoder=AutoencoderConfig(**autoencoder),
                priors=tuple(PriorConfig(**p) for p in data["priors"]),
                classes=tuple(str(c) for c in data["classes"]),
                card=dict(data.get("card", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"model description: {error!r}") from error


def check_maps(maps: tuple[CodeMap, ...]) -> None:
    """Raise :class:`InvalidArgument` unless ``maps`` is a legal hierarchy."""
    if not maps:
        raise InvalidArgument("a model needs at least one code map")
    before: CodeMap | None = None
    taken = 0  # channels of the maps of this stride so far
    for number, m in enumerate(maps):
        if m.stride < 1 or m.stride & (m.stride - 1):
            raise InvalidArgument(f"map {number}: stride must be a power of two, got {m.stride}")
        if not 3 <= m.codes <= 65536:
            raise InvalidArgument(f"map {number}: codebook size must be 3..65536, got {m.codes}")
        if m.dim < 1:
            raise InvalidArgument(f"map {number}: dim must be positive, got {m.dim}")
        if before and m.stride > before.stride:
            raise InvalidArgument(f"map {number}: maps go coarse to fine, stride {m.stride} follows {before.stride}")
        if before is None or before.stride != m.stride:
            taken = 0
        if m.refines is None:
            taken += m.dim
        elif not 0 <= m.refines <= taken - m.dim:
            raise InvalidArgument(
                f"map {number}: refines channels {m.refines} to {m.refines + m.dim - 1}; "
                f"the maps of stride {m.stride} before it have {taken}"
            )
        before = m


#: Maps 1, 2, 3 and 5 hold the brightness and colour of whole blocks (docs/MODEL.md says how they were chosen).
DEFAULT_WEIGHTS = (2.7, 2.7, 2.7, 1.3, 2.0, 1.3, 1.3, 1.3, 1.3, 1.3, 1.2, 1.2, 1.1)


def default() -> ModelConfig:
    """The shipped model: a 1/16 map of global structure, and channel groups and their refinements at 1/8."""
    groups: tuple[tuple[int, ...], ...] = ((1,), (1,), (2,), (2,), (3,), (4,), (4,), (6,), (6,), (8,), (8,), (12,))
    # For the highest qualities: channel, so many refined again, and channels that only they need.
    groups += ((3, 6), (4, 9), (4, 13), (6, 17), (6, 23), (14,), (8, 29), (8, 37), (12, 45), (18,))
    maps = (CodeMap(stride=16, dim=8), *(CodeMap(8, d, 512, *refines) for d, *refines in groups))
    top = PriorConfig(
        hidden=64, residual=64, layers=6, attention_layers=2, heads=4, output_layers=1, condition_blocks=0
    )
    # Conditioning runs over all positions at once, gated blocks step by step: where earlier maps carry most
    # of the information, blocks work as well in the conditioning stack, and decoding is faster.
    first, later = PriorConfig(layers=4, condition_blocks=3), PriorConfig(layers=3, condition_blocks=4)
    # What refinements add is nearly noise: little to predict.
    finest = PriorConfig(
        hidden=16,
        residual=16,
        layers=1,
        embedding=8,
        condition_embedding=4,
        condition_blocks=1,
        condition_residual=16,
    )
    return ModelConfig(
        name="default",
        autoencoder=AutoencoderConfig(
            maps=maps,
            hidden=160,
            encoder_blocks=4,
            refine_blocks=4,
            lambda_max=6e-2,
            lambda_min=2.5e-4,
            quality_positions=(-0.1, 0.3, 1.0),
            levels=10,
            distortion_weights=DEFAULT_WEIGHTS + (1.0,) * (len(maps) - len(DEFAULT_WEIGHTS)),
        ),
        priors=(top, *(first if m < 4 else later if m < 12 else finest for m in range(len(groups)))),
    )


def imagenet256() -> ModelConfig:
    """ImageNet at 256 x 256: tables 3 and 5 of VQ-VAE-2."""
    common: dict[str, Any] = dict(hidden=512, layers=20, kernel=5, first_kernel=5, embedding=512, dropout=0.1)
    return ModelConfig(
        name="imagenet256",
        autoencoder=_paper_autoencoder(strides=(8, 4)),
        priors=(
            PriorConfig(
                **common,
                residual=2048,
                attention_layers=4,
                heads=8,
                output_layers=20,
                condition_blocks=0,
                attention_dropout=0.1,
            ),
            PriorConfig(**common, residual=1024, condition_blocks=20, condition_residual=1024, condition_embedding=512),
        ),
    )


def ffhq1024() -> ModelConfig:
    """FFHQ at 1024 x 1024: tables 4 and 5 of VQ-VAE-2.

    Table 4 lists one attention layer for the middle prior and gives the number of
    heads (8) in the top prior's column only; the middle prior uses 8 as well.
    """
    common: dict[str, Any] = dict(hidden=512, kernel=5, first_kernel=5, embedding=512)
    condition = dict(condition_blocks=8, condition_residual=1024, condition_embedding=512)
    return ModelConfig(
        name="ffhq1024",
        autoencoder=_paper_autoencoder(strides=(32, 16, 8)),
        priors=(
            PriorConfig(
                **common,
                residual=2048,
                layers=20,
                attention_layers=4,
                heads=8,
                dropout=0.5,
                attention_dropout=0.5,
                condition_blocks=0,
            ),
            PriorConfig(
                **common,
                residual=1024,
                layers=20,
                attention_layers=1,
                heads=8,
                dropout=0.3,
                attention_dropout=0.3,
                **condition,
            ),
            PriorConfig(**common, residual=1024, layers=10, dropout=0.25, **condition),
        ),
    )


def tiny() -> ModelConfig:
    """For tests: every feature (two strides, a map that refines, attention, conditioning), but little computation."""
    maps = (CodeMap(16, 4, 32), CodeMap(8, 2, 16), CodeMap(8, 4, 24), CodeMap(8, 4, 16, refines=2))
    top = PriorConfig(hidden=16, residual=8, layers=2, attention_layers=1, heads=2, output_layers=1, condition_blocks=0)
    fine = PriorConfig(hidden=16, residual=8, layers=2, embedding=4, condition_embedding=4, condition_residual=8)
    return ModelConfig(
        name="tiny",
        autoencoder=AutoencoderConfig(
            maps=maps, hidden=24, residual=8, encoder_blocks=1, decoder_blocks=1, refine=8, refine_blocks=1
        ),
        priors=(top, fine, fine, fine),
    )


def _paper_autoencoder(strides: tuple[int, ...]) -> AutoencoderConfig:
    return AutoencoderConfig(
        maps=tuple(CodeMap(stride=s, dim=64, codes=512) for s in strides),
        transform="conv",
        hidden=128,
        residual=64,
        encoder_blocks=2,
        decoder_blocks=2,
        encoder_kernel=3,
        upsample_kernel=4,
        beta=0.25,
        decay=0.99,
        null_code=False,
        levels=1,
    )


PRESETS = {"default": default, "imagenet256": imagenet256, "ffhq1024": ffhq1024, "tiny": tiny}


def preset(name: str) -> ModelConfig:
    """The preset called ``name``; :class:`InvalidArgument` if there is none."""
    if name not in PRESETS:
        raise InvalidArgument(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()
