"""The codec: pictures <-> code maps <-> files, and samples. No arithmetic of its own.

    compress:   Picture -> autoencoder -> code maps -> prior frequencies + range coder -> Container -> bytes
    decompress: bytes -> Container -> fused loop (prior, range decoder) -> code maps -> autoencoder -> Picture
    sample:     random words -> fused loop (prior, inverse CDF) -> code maps -> autoencoder -> Picture
"""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from vqcodec import container, entropy, images, ops
from vqcodec.container import Container, Header, Limits, tile_grid
from vqcodec.errors import CorruptChunk, InvalidArgument, LimitExceeded, ModelMismatch
from vqcodec.images import Picture
from vqcodec.models import file
from vqcodec.models.file import Model

#: Side of a tile in pixels: bounds the working memory of the prior and its attention.
TILE = 1024
#: Candidates per code that each step of effort adds, and the effort that is usual.
CANDIDATES, EFFORT = 4, 3
#: Samples are drawn as if they had been compressed at this quality.
SAMPLE_QUALITY = 50

#: The largest picture that is coded, padding included: the autoencoder sees it whole and
#: takes about 100 bytes a pixel.
LIMITS = Limits(pixels=1 << 26)

if TYPE_CHECKING:
    from torch import Tensor

    from vqcodec.models.quantizer import Rate

Maps = list[np.ndarray]
#: Pictures and the number of the class that they should show -> a score for each, higher is better.
Critic = Callable[[list[PIL.Image.Image], int], Sequence[float] | np.ndarray]


class Codec:
    """A model, ready to work. Cheap to make: models are loaded once per process.

    ``model`` is a model file, a loaded :class:`~vqcodec.models.file.Model`, or None for the
    shipped one. ``device`` is "cpu", "cuda" or "cuda:1". Code maps are decoded to the same bits
    on all of them; pixels and the choice of codes come from floats and may differ in the last
    place. Safe to use from several threads.

    Raises :class:`~vqcodec.errors.BackendError`, with the reason, for a GPU that is not there. A
    GPU that fails its self-test is refused with a RuntimeWarning, and the CPU does its work.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, *, device: str = "cpu") -> None:
        self.model = model if isinstance(model, Model) else file.load(model)
        self.device = device
        self._backend: str | None = None  # of the prior's ops
        if device != "cpu":
            number = ops.cuda.number_of(device)
            ops.cuda.device(number)  # BackendError if there is none
            if ops.cuda.trusted(number):
                self._backend = f"cuda:{number}"

    @functools.cached_property
    def _place(self) -> str:
        """Where the autoencoder runs, as torch calls it."""
        if self._backend is None or _torch().cuda.is_available():
            return self._backend or "cpu"
        warnings.warn("this PyTorch has no CUDA: the GPU computes the prior, the CPU the autoencoder",
                      RuntimeWarning, stacklevel=4)
        return "cpu"

    # -- pictures and code maps ------------------------------------------------------

    def encode_maps(self, pixels: np.ndarray, quality: float = 50, *, effort: int = EFFORT, class_id: int = 0) -> Maps:
        """Code maps of an H x W x 3 uint8 array, coarse to fine: int32, each ceil'd to whole codes.

        ``effort`` 0 chooses codes by distortion and how common they are; 1 to 9 compare ever more
        candidates by what they will cost under the prior (of ``class_id``), given the codes before.
        """
        torch = _torch()
        from vqcodec.models.quantizer import Rate

        config = self.model.config.autoencoder
        rate = Rate.at(config, config.position(quality))
        height, width = pixels.shape[:2]
        down, right = (-side % self.model.config.stride for side in (height, width))
        padded = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
        x = torch.from_numpy(padded).to(self._place).permute(2, 0, 1)[None].float().div_(255)
        with torch.inference_mode(), _memory_errors():
            autoencoder = self.model.autoencoder_on(self._place)
            if effort == 0 or rate is None:
                codes = autoencoder.encode(x, rate)
            else:
                chooser = _Chooser(self, height, width, rate, class_id)
                codes = autoencoder.encode_choosing(x, rate, CANDIDATES * effort, chooser)
        return [c[0].cpu().numpy().astype(np.int32) for c in codes]

    def decode_pixels(self, maps: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
        """H x W x 3 uint8 from code maps; fewer maps than the model has give a coarser picture."""
        torch = _torch()
        codes = [torch.from_numpy(np.asarray(m, np.int64)).to(self._place)[None] for m in maps]
        with torch.inference_mode(), _memory_errors():
            x = self.model.autoencoder_on(self._place).decode(codes)[0, :, :height, :width]
            return x.mul_(255).round_().byte().permute(1, 2, 0).contiguous().cpu().numpy()

    # -- files -----------------------------------------------------------------------

    def compress(self, picture: Picture, *, quality: float = 50, effort: int = EFFORT,
                 class_id: int | str | None = None) -> bytes:
        """A file's bytes. ``quality`` 0 (smallest) to 100; ``effort`` 0 (fastest) to 9; ``class_id`` only helps the prior.

        Raises :class:`~vqcodec.errors.LimitExceeded` for a picture that :meth:`read` would refuse.
        """
        quality, effort = check_quality(quality), check_effort(effort)
        self._check_size(*picture.pixels.shape[:2], LIMITS)
        number = self.model.config.class_number(class_id)
        maps = self.encode_maps(picture.pixels, quality, effort=effort, class_id=number)
        height, width = picture.pixels.shape[:2]
        return self.write(maps, height, width, quality=quality, class_id=number, picture=picture)

    def write(self, maps: Maps, height: int, width: int, *, quality: float = 50, class_id: int = 0,
              picture: Picture | None = None) -> bytes:
        """A file from code maps; metadata and alpha come from ``picture``."""
        config = self.model.config
        level = config.autoencoder.level(config.autoencoder.position(quality))
        tile = tile_side(height, width)
        header = Header(
            fingerprint=self.model.fingerprint[:16], width=width, height=height, tile=tile, class_id=class_id,
            level=level, quality=round(quality), maps=self._kept(maps), grey=bool(picture and picture.grey),
        )
        streams: list[list[bytes]] = [[] for _ in range(header.maps)]
        for box in tile_grid(width, height, tile):
            tiles = [self._tile(m, number, box) for number, m in enumerate(maps)]
            for number in range(header.maps):
                start, frequency = ops.prior_frequencies(
                    self.model.priors[number], tiles[number], tiles[:number], class_id, level, backend=self._backend)
                streams[number].append(entropy.encode_stream(start, frequency))
        return container.write(Container(
            header=header, metadata=picture.metadata if picture else {}, maps=streams,
            alpha=picture.alpha if picture else None))

    def read(self, data: bytes, *, partial: bool = False, limits: Limits | None = None) -> tuple[Container, Maps]:
        """A file's container and code maps (all maps of the model; those not in the file are zero).

        With ``partial``, maps past the damage are left out of the list.
        """
        limits = limits or LIMITS
        found = container.read(data, partial=partial, limits=limits)
        header, config = found.header, self.model.config
        if header.fingerprint != self.model.fingerprint[:16]:
            raise ModelMismatch(header.fingerprint.hex(), self.model.fingerprint[:16].hex())
        auto = config.autoencoder
        for name, value, limit in (("level", header.level, auto.levels), ("class", header.class_id, len(config.classes) + 1),
                                   ("number of maps", header.maps, len(auto.maps) + 1)):
            if value >= limit:
                raise CorruptChunk("header", f"{name} must be under {limit} for this model, found {value}")
        self._check_size(header.height, header.width, limits)
        maps = [np.zeros(shape, np.int32) for shape in self._shapes(header.height, header.width)]
        whole = len(found.maps)
        tiles = [[self._tile(m, number, box) for number, m in enumerate(maps[:whole])]
                 for box in tile_grid(header.width, header.height, header.tile)]
        jobs = [ops.DecodeJob([view.shape for view in views], [streams[index] for streams in found.maps],
                              header.class_id, header.level) for index, views in enumerate(tiles)]
        decoded_tiles = ops.wavefront_decode_batch(self.model.priors[:whole], jobs, backend=self._backend) if whole else []
        for views, decoded in zip(tiles, decoded_tiles):
            for view, codes in zip(views, decoded):
                view[...] = codes
        return found, maps if whole == header.maps else maps[:whole]

    def decompress(self, data: bytes, *, partial: bool = False, limits: Limits | None = None) -> Picture:
        """The picture in a file; with ``partial``, the coarser picture of what is whole."""
        found, maps = self.read(data, partial=partial, limits=limits)
        header = found.header
        if not maps:
            raise found.error or CorruptChunk("map 0", "no map is whole")
        pixels = self.decode_pixels(maps, header.height, header.width)
        if header.grey:
            pixels = np.repeat(pixels.mean(2, keepdims=True).round().astype(np.uint8), 3, 2)
        return Picture(pixels=pixels, grey=header.grey, alpha=found.alpha, metadata=found.metadata)

    # -- samples ---------------------------------------------------------------------

    def sample_maps(self, class_id: int | str | None, n: int, *, size: tuple[int, int] = (256, 256), seed: int = 0,
                    temperature: float = 1.0, top_p: float = 1.0) -> list[Maps]:
        """Code maps of ``n`` new pictures of a class, each of ``size`` (width, height) pixels.

        Picture i depends on ``seed`` and i alone: on no other picture, machine or thread count.
        """
        number = self.model.config.class_number(class_id)
        width, height = check_sample_size(size)
        n, seed = whole_number("n", n, 0, 1 << 32), whole_number("seed", seed, 0, 1 << 64)
        if not isinstance(temperature, numbers.Real) or not 1 / 256 <= temperature <= 256:
            raise InvalidArgument(f"temperature must be a number from 1/256 to 256, got {temperature!r}")
        if not isinstance(top_p, numbers.Real) or not 0 < top_p <= 1:
            raise InvalidArgument(f"top_p must be a number above 0 and at most 1, got {top_p!r}")
        shapes = self._shapes(height, width)
        auto = self.model.config.autoencoder
        level = auto.level(auto.position(SAMPLE_QUALITY))
        jobs = [ops.SampleJob(shapes, uniform_words(seed, i, shapes), number, level) for i in range(n)]
        rule = dict(sharpness=max(1, round(256 / temperature)), nucleus=max(1, round(65536 * top_p)))
        return ops.wavefront_sample_batch(self.model.priors, jobs, **rule, backend=self._backend)

    def sample(self, class_id: int | str | None, n: int = 1, *, size: tuple[int, int] = (256, 256), seed: int = 0,
               temperature: float = 1.0, top_p: float = 1.0, candidates: int | None = None, keep: int | None = None,
               critic: Critic | None = None) -> list[Picture]:
        """``n`` new pictures of a class; with ``candidates``, the best of so many, see :func:`vqcodec.sample`."""
        width, height = check_sample_size(size)
        number = self.model.config.class_number(class_id)
        kept = check_candidates(n, candidates, keep, critic)
        if candidates is not None and critic is None:
            critic = self.critic(number)
        pictures = [
            Picture(pixels=self.decode_pixels(maps, height, width), grey=False, alpha=None, metadata={})
            for maps in self.sample_maps(number, n if candidates is None else candidates, size=size, seed=seed,
                                         temperature=temperature, top_p=top_p)
        ]
        if critic is None:
            return pictures
        return [pictures[i] for i in best_first(pictures, number, critic)[:kept]]

    def critic(self, class_id: int) -> Critic:
        """The shipped critic, or :class:`InvalidArgument` if it does not know this class of this model."""
        from vqcodec.models import critic

        found = critic.shipped()
        if found.classes != self.model.config.classes:
            raise InvalidArgument("the shipped critic knows the classes of the shipped model only: give a critic of your own")
        if class_id == 0:
            raise InvalidArgument("the shipped critic scores classes, and 0 is none: give a class, or a critic of your own")
        return found

    # -- geometry --------------------------------------------------------------------

    def _check_size(self, height: int, width: int, limits: Limits) -> None:
        pixels = math.prod(-(-side // self.model.config.stride) * self.model.config.stride for side in (height, width))
        if pixels > limits.pixels:
            raise LimitExceeded(f"at most {limits.pixels} pixels are allowed, {width} x {height} needs {pixels} with padding")

    def _shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        unit = self.model.config.stride
        height, width = (-(-side // unit) * unit for side in (height, width))
        return [(height // m.stride, width // m.stride) for m in self.model.config.autoencoder.maps]

    def _tile(self, codes: np.ndarray, number: int, box: tuple[int, int, int, int]) -> np.ndarray:
        """The part of map ``number`` that belongs to a tile (x0, y0, x1, y1 in pixels)."""
        stride, unit = self.model.config.autoencoder.maps[number].stride, self.model.config.stride
        x0, y0, x1, y1 = box
        bottom, right = (-(-side // unit) * unit for side in (y1, x1))
        return codes[y0 // stride : bottom // stride, x0 // stride : right // stride]

    def _kept(self, maps: Maps) -> int:
        """Trailing maps that are all code 0, the zero vector, need not be written."""
        if not self.model.config.autoencoder.null_code:
            return len(maps)
        used = [number for number, m in enumerate(maps, 1) if m.any()]
        return max(used, default=1)


class _Chooser:
    """Chooses codes for an encoder by the prior that will code them, tile by tile."""

    def __init__(self, codec: Codec, height: int, width: int, rate: Rate, class_id: int) -> None:
        self._codec, self._rate, self._class_id = codec, rate, class_id
        self._boxes = list(tile_grid(width, height, tile_side(height, width)))
        self._maps = [np.zeros(shape, np.int32) for shape in codec._shapes(height, width)]

    def __call__(self, first: int, candidates: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        torch, codec, end = _torch(), self._codec, first + len(candidates)
        numbers = range(first, end)
        arrays = []
        for number, (codes, costs) in zip(numbers, candidates):
            # Half of the rate by how common a code is, half by the prior: better than either alone.
            quantizer = codec.model.autoencoder_on(codec._place).quantizers[number]
            common = quantizer.bits(self._rate.level)[codes]
            shape = *self._maps[number].shape, -1
            arrays.append((codes.cpu().numpy().astype(np.int32).reshape(shape),
                           (2 * costs + common).cpu().numpy().reshape(shape)))
        for box in self._boxes:
            tiles = [codec._tile(self._maps[number], number, box) for number in range(end)]
            streams = []
            for number, pair in zip(numbers, arrays):
                order = ops.coding_order(*tiles[number].shape, codec.model.priors[number].lag)
                streams.append(tuple(codec._tile(array, number, box)[order] for array in pair))
            chosen = ops.wavefront_choose(
                codec.model.priors[first:end], [tiles[number].shape for number in numbers], streams,
                self._class_id, self._rate.level, given=tiles[:first])
            for number, codes in zip(numbers, chosen):
                tiles[number][...] = codes
        return [torch.from_numpy(self._maps[number].astype(np.int64)) for number in numbers]


_threads: int | None = None


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core and, once it is loaded, in torch."""
    global _threads
    n = whole_number("the number of threads", n, 1, 1025)
    ops.native.set_num_threads(n)
    _threads = n
    if "torch" in sys.modules:
        _torch()


def _torch() -> ModuleType:
    """torch, imported when pixels are first needed."""
    import torch

    if _threads is not None and torch.get_num_threads() != _threads:
        torch.set_num_threads(_threads)
    return torch


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """torch reports a failed allocation as a RuntimeError; callers expect MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "CUDA out of memory" in str(error):
            raise MemoryError("not enough memory for a picture of this size") from error
        raise


def tile_side(height: int, width: int) -> int:
    """Side of the tiles of a picture in pixels; 0 if it is one."""
    return TILE if max(height, width) > TILE else 0


#: One sample is one tile: its attention is quadratic in the number of codes.
MAX_SAMPLE_SIDE = 2048


def whole_number(name: str, value: Any, low: int, end: int) -> int:
    """``value`` as an int in [low, end), or :class:`InvalidArgument`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number < end:
        raise InvalidArgument(f"{name} must be a whole number from {low} to {end - 1}, got {value!r}")
    return number


def check_quality(quality: float) -> float:
    """``quality`` as a float in [0, 100], or :class:`InvalidArgument`."""
    if isinstance(quality, bool) or not isinstance(quality, numbers.Real) or not 0 <= quality <= 100:
        raise InvalidArgument(f"quality must be a number from 0 to 100, got {quality!r}")
    return float(quality)


def check_effort(effort: int) -> int:
    """``effort`` as an int in 0 .. 9, or :class:`InvalidArgument`."""
    return whole_number("effort", effort, 0, 10)


def check_sample_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) as ints that one tile can hold, or :class:`InvalidArgument`."""
    try:
        width, height = size
    except (TypeError, ValueError):
        raise InvalidArgument(f"size must be (width, height), got {size!r}") from None
    width, height = (whole_number(name, v, 1, MAX_SAMPLE_SIDE + 1) for name, v in (("width", width), ("height", height)))
    return width, height


def check_candidates(n: int, candidates: int | None, keep: int | None, critic: Critic | None) -> int:
    """How many samples to return, or :class:`InvalidArgument`: ``keep``, or ``n`` where it is not given."""
    if candidates is None:
        if keep is not None or critic is not None:
            raise InvalidArgument("keep and critic choose among candidates: say how many candidates to draw")
        return n
    if critic is not None and not callable(critic):
        raise InvalidArgument(f"critic must be callable, got {type(critic).__name__}")
    candidates = whole_number("candidates", candidates, 1, 1 << 32)
    if keep is not None and n not in (1, keep):
        raise InvalidArgument(f"n and keep both say how many to return: got {n!r} and {keep!r}")
    kept = whole_number("n" if keep is None else "keep", n if keep is None else keep, 0, 1 << 32)
    if kept > candidates:
        raise InvalidArgument(f"cannot keep {kept} of {candidates} candidates")
    return kept


def best_first(pictures: Sequence[Picture], class_id: int, critic: Critic) -> list[int]:
    """Numbers of the pictures in order of score; equals in their own order."""
    found = critic([images.to_pil(picture) for picture in pictures], class_id)
    try:
        scores = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the critic must give numbers: {error}") from error
    if scores.shape != (len(pictures),) or not np.isfinite(scores).all():
        raise InvalidArgument(f"the critic must give {len(pictures)} finite scores, got {scores.size} of shape {scores.shape}")
    return np.argsort(-scores, kind="stable").tolist()


def uniform_words(seed: int, index: int, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """24-bit words for one sample, per map in coding order: Philox counters, stable across NumPy versions.

    ``seed`` is an int in [0, 2**64).
    """
    words = []
    for number, (height, width) in enumerate(shapes):
        generator = np.random.Philox(key=seed, counter=[0, 0, index, number])
        words.append((generator.random_raw(height * width) >> np.uint64(40)).astype(np.uint32))
    return words
