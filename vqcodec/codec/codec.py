"""The codec: pictures <-> code maps <-> files, and samples. No arithmetic of its own.

    compress:   Picture -> autoencoder -> code maps -> prior frequencies + range coder -> Container -> bytes
    decompress: bytes -> Reader -> fused loop (prior, range decoder) -> code maps -> autoencoder -> Picture
    sample:     random words -> fused loop (prior, inverse CDF) -> code maps -> autoencoder -> Picture
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from vqcodec.codec import engine, geometry, sampler
from vqcodec.codec.decoder import LIMITS, CodedPicture, Progressive, check_size
from vqcodec.codec.encoder import Encoding, Maps, Trial, code_streams, largest_file, smallest_file
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import Picture, psnr
from vqcodec.codec.options import check_candidates, check_decibels, check_effort, check_quality, check_sample_size, check_tile, whole_number
from vqcodec.codec.sampler import Critic
from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Container, Header, Limits
from vqcodec.format.header import Box, tile_grid
from vqcodec.model.file import Model

#: The usual effort of choosing codes.
EFFORT = 3


class Codec:
    """A model, ready to work. Cheap to make: models are loaded once per process.

    ``model`` is a model file, a loaded :class:`~vqcodec.model.file.Model`, or None for the
    shipped one. ``device`` is "cpu", "cuda" or "cuda:1". Code maps are decoded to the same bits
    on all of them; pixels and the choice of codes come from floats and may differ in the last
    place. Safe to use from several threads.

    Raises :class:`~vqcodec.errors.BackendError`, with the reason, for a GPU that is not there. A
    GPU that fails its self-test is refused with a RuntimeWarning, and the CPU does its work.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, *, device: str = "cpu") -> None:
        self._engine = Engine(model, device)
        self.model = self._engine.model

    # -- pictures and code maps ------------------------------------------------------

    def encode_maps(self, pixels: np.ndarray, quality: float = 50, *, effort: int = EFFORT, class_id: int = 0,
                    tile: int | None = None) -> Maps:
        """Code maps of an H x W x 3 uint8 array, coarse to fine: int32, each ceil'd to whole codes."""
        height, width = pixels.shape[:2]
        side = geometry.tile_side(height, width, tile)
        encoding = Encoding(self._engine, pixels, tile=side, effort=effort, class_id=class_id)
        return encoding.maps(encoding.rate(quality))

    def decode_pixels(self, maps: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
        """H x W x 3 uint8 from code maps; fewer maps than the model has give a coarser picture."""
        from vqcodec.networks.windows import Windows

        with engine.torch().inference_mode(), engine.memory_errors():
            return Windows(self._engine.autoencoder, height, width).pixels(maps, Box(0, 0, width, height))

    # -- files -----------------------------------------------------------------------

    def compress(self, picture: Picture, *, quality: float = 50, effort: int = EFFORT, class_id: int | str | None = None,
                 tile: int | None = None, target_bytes: int | None = None, target_psnr: float | None = None,
                 limits: Limits | None = None) -> bytes:
        """A file's bytes, see :func:`vqcodec.compress`."""
        quality, effort, tile = check_quality(quality), check_effort(effort), check_tile(tile)
        if target_bytes is not None and target_psnr is not None:
            raise InvalidArgument("target_bytes and target_psnr both choose the quality: give one of them")
        height, width = picture.pixels.shape[:2]
        check_size(self._engine, height, width, limits or LIMITS)
        number = self.model.config.class_number(class_id)
        side = geometry.tile_side(height, width, tile)
        encoding = Encoding(self._engine, picture.pixels, tile=side, effort=effort, class_id=number)

        def make(quality: float, level: int | None = None) -> Trial:
            rate = encoding.rate(quality, level)
            maps = encoding.maps(rate)
            data = self.write(maps, height, width, quality=quality, level=rate.level, class_id=number, picture=picture, tile=side)
            if target_psnr is None:
                return Trial(quality, rate.level, data)
            reached = psnr(picture.pixels, self.decode_pixels(maps, height, width))
            return Trial(quality, rate.level, data, min(reached, 100.0))  # finite, for the search to interpolate

        if target_bytes is not None:
            target = whole_number("target_bytes", target_bytes, 1, 1 << 62)
            found = largest_file(target, make)
            return found if len(found) <= target else self._shortened(found, target)
        if target_psnr is not None:
            return smallest_file(check_decibels(target_psnr), make)
        return make(quality).data

    def write(self, maps: Maps, height: int, width: int, *, quality: float = 50, level: int | None = None, class_id: int = 0,
              picture: Picture | None = None, tile: int | None = None) -> bytes:
        """A file from code maps; metadata and alpha come from ``picture``.

        level: the rate level whose priors code the maps; None for the one that was trained for the quality.
        """
        config = self.model.config
        if level is None:
            level = config.autoencoder.level(config.autoencoder.position(quality))
        tile = geometry.tile_side(height, width, tile)
        header = Header(
            fingerprint=self.model.fingerprint[:16], width=width, height=height, tile=tile, class_id=class_id,
            level=level, quality=round(quality), maps=self._kept(maps), grey=bool(picture and picture.grey),
        )
        streams = code_streams(self._engine, maps, list(tile_grid(width, height, tile)), class_id, level, header.maps)
        return container.write(Container(
            header=header, metadata=picture.metadata if picture else {}, maps=streams,
            alpha=picture.alpha if picture else None))

    def open(self, source: bytes | str | os.PathLike[str] | BinaryIO, *, partial: bool = False,
             limits: Limits | None = None) -> CodedPicture:
        """A file, of which nothing but the header and the metadata is decoded yet, see :func:`vqcodec.open`."""
        return CodedPicture(self._engine, source, partial=partial, limits=limits)

    def read(self, source: bytes, *, partial: bool = False, limits: Limits | None = None) -> tuple[CodedPicture, Maps]:
        """A file, and its code maps."""
        coded = self.open(source, partial=partial, limits=limits)
        return coded, coded.code_maps()

    def decompress(self, source: bytes | str | os.PathLike[str] | BinaryIO, *, partial: bool = False,
                   limits: Limits | None = None, region: Sequence[int] | None = None, scale: int = 1,
                   maps: int | None = None, complete: str | None = None, seed: int = 0) -> Picture:
        """The picture in a file, see :func:`vqcodec.decompress`."""
        with self.open(source, partial=partial, limits=limits) as coded:
            return coded.picture(region=region, scale=scale, maps=maps, complete=complete, seed=seed)

    def progressive(self, *, limits: Limits | None = None) -> Progressive:
        """For a file that is still arriving, see :class:`vqcodec.Decoder`."""
        return Progressive(self._engine, limits)

    def _kept(self, maps: Maps) -> int:
        """Trailing maps that are all code 0, the zero vector, need not be written."""
        if not self.model.config.autoencoder.null_code:
            return len(maps)
        used = [number for number, m in enumerate(maps, 1) if m.any()]
        return max(used, default=1)

    def _shortened(self, data: bytes, target: int) -> bytes:
        """A file with as many of its maps as fit into ``target`` bytes."""
        found = container.read(data, limits=Limits(pixels=1 << 60))
        while len(data) > target and len(found.maps) > 1:
            found.maps.pop()
            found.header = dataclasses.replace(found.header, maps=len(found.maps))
            data = container.write(found)
        if len(data) > target:
            raise InvalidArgument(f"target_bytes must be at least {len(data)} for this picture and its metadata, got {target}")
        return data

    # -- samples ---------------------------------------------------------------------

    def sample_maps(self, class_id: int | str | None, n: int, *, size: tuple[int, int] = (256, 256), seed: int = 0,
                    temperature: float = 1.0, top_p: float = 1.0) -> list[Maps]:
        """Code maps of ``n`` new pictures of a class, each of ``size`` (width, height) pixels.

        Picture i depends on ``seed`` and i alone: on no other picture, machine or thread count.
        """
        number = self.model.config.class_number(class_id)
        return sampler.draw(self._engine, number, n, size=size, seed=seed, temperature=temperature, top_p=top_p)

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
        return [pictures[i] for i in sampler.best_first(pictures, number, critic)[:kept]]

    def inpaint(self, picture: Picture, mask: np.ndarray, *, class_id: int | str | None = None, quality: float = 50,
                seed: int = 0, temperature: float = 1.0) -> Picture:
        """``picture`` with what ``mask`` covers drawn anew, see :func:`vqcodec.inpaint`."""
        height, width = picture.pixels.shape[:2]
        check_sample_size((width, height))
        config, number = self.model.config, self.model.config.class_number(class_id)
        # What is hidden must not show through the codes beside it.
        blank = picture.pixels[~mask].mean(0).round().astype(np.uint8) if not mask.all() else np.uint8(128)
        seen = np.where(mask[..., None], blank, picture.pixels)
        maps = self.encode_maps(seen, check_quality(quality), effort=0, class_id=number)
        unknown = sampler.covered_codes(config, mask)
        level = config.autoencoder.level(config.autoencoder.position(quality))
        drawn = sampler.fill(self._engine, maps, unknown, number, level, seed=seed, temperature=temperature)
        pixels = np.where(mask[..., None], self.decode_pixels(drawn, height, width), picture.pixels)
        return Picture(pixels=pixels, grey=False, alpha=picture.alpha, metadata=picture.metadata)

    def critic(self, class_id: int) -> Critic:
        """The shipped critic, or :class:`InvalidArgument` if it does not know this class of this model."""
        from vqcodec.networks import classifier

        found = classifier.shipped()
        if found.classes != self.model.config.classes:
            raise InvalidArgument("the shipped critic knows the classes of the shipped model only: give a critic of your own")
        if class_id == 0:
            raise InvalidArgument("the shipped critic scores classes, and 0 is none: give a class, or a critic of your own")
        return found


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core and, once it is loaded, in torch."""
    engine.set_num_threads(whole_number("the number of threads", n, 1, 1025))
