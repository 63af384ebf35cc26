"""How much decoding a file may ask for: estimated from its header, before anything is computed."""

from __future__ import annotations

from vqcodec.errors import InvalidArgument, LimitExceeded
from vqcodec.format.header import MOST_TILE, Header
from vqcodec.format.limits import Limits
from vqcodec.model.file import Model
from vqcodec.tiling import Box, Tiling

#: Multiply-adds that every byte of a file allows, beside those of ``Limits.work``. A tile takes bytes in the index of every map:
#: tiles of the usual size never reach it.
PER_BYTE = 1_500_000_000
#: Multiply-adds that take as long as one sample does.
SAMPLE = 50_000


def of_maps(model: Model, tile: Box, tiles: int, maps: int) -> int:
    """Multiply-adds of decoding the first ``maps`` maps of ``tiles`` tiles no larger than ``tile``, attention included."""
    total = 0
    for prior, code_map in zip(model.priors[:maps], model.config.autoencoder.maps):
        codes = -(-tile.height // code_map.stride) * -(-tile.width // code_map.stride)
        total += codes * (prior.macs() + len(prior.attention) * prior.hidden * codes)
    return total * tiles


def of_samples(header: Header, tile: Box, tiles: int) -> int:
    """The same for samples."""
    return SAMPLE * header.channels * tile.area * tiles


def of_pixels(model: Model, area: int) -> int:
    """Multiply-adds of making pixels from code maps."""
    return round(model.autoencoder.synthesis.macs() * area)


def check(needed: int, size: int, limits: Limits) -> None:
    """Raise :class:`LimitExceeded` if a file of ``size`` bytes asks for more than it may."""
    allowed = limits.work + PER_BYTE * size
    if needed > allowed:
        raise LimitExceeded(
            f"a file of {size} bytes may take {allowed:.1e} multiply-adds to decode, this needs about {needed:.1e}"
        )


def check_tiles(tiling: Tiling) -> None:
    """Raise :class:`InvalidArgument` if tiles are larger than the format allows."""
    first = next(iter(tiling))
    if first.area > MOST_TILE:
        raise InvalidArgument(f"a tile must have at most {MOST_TILE} pixels, got {first.width} x {first.height}")
