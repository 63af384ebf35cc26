"""The codec: images <-> code maps <-> files, and samples. No arithmetic of its own.

compress:   RasterImage -> autoencoder -> code maps -> prior frequencies + range coder -> Container -> bytes
            RasterImage -> samples, without loss or nearly -> Container -> bytes
decompress: bytes -> Reader -> fused loop (prior, range decoder) -> code maps -> autoencoder -> RasterImage
sample:     random words -> fused loop (prior, inverse CDF) -> code maps -> autoencoder -> RasterImage
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from vqcodec.codec import classifier, code_maps, engine, sampler, samples, work
from vqcodec.codec.code_maps import Maps
from vqcodec.codec.decoder import CodedImage, check_size
from vqcodec.codec.encoder import Encoding, code_streams
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import RasterImage, psnr
from vqcodec.codec.options import (
    DecodeOptions,
    EncodeOptions,
    SampleOptions,
    bound_quality,
    check_quality,
    check_sample_size,
    check_temperature,
    options,
    whole_number,
)
from vqcodec.codec.progressive import Progressive
from vqcodec.codec.rate_search import Trial, largest_file, smallest_file
from vqcodec.codec.sampler import Classifier
from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Container, Header, Limits
from vqcodec.model.file import Model
from vqcodec.model.prior import Condition
from vqcodec.tiling import Box, Tiling

Source = bytes | str | os.PathLike[str] | BinaryIO


class Codec:
    """A model, ready for use. Cheap to create: models are loaded once per process.

    ``model`` is a model file, a loaded :class:`~vqcodec.model.file.Model`, or None for the
    shipped one. ``device`` is "cpu", "cuda" or "cuda:1". Code maps are decoded to the same bits
    on all of them, to the same pixels, and images are encoded to the same files. Safe to use from several threads.

    Raises :class:`~vqcodec.errors.BackendError`, with the reason, if the GPU does not exist. A
    GPU that fails its self-test is rejected with a RuntimeWarning, and the CPU is used instead.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None = None, *, device: str = "cpu") -> None:
        self._engine = Engine(model, device)
        self.model = self._engine.model

    def __repr__(self) -> str:
        return f"Codec({self.model!r}, device={self._engine.backend or 'cpu'!r})"

    # -- images and code maps --------------------------------------------------------

    def encode_maps(
        self,
        pixels: np.ndarray,
        quality: float = EncodeOptions.quality,
        *,
        effort: int = EncodeOptions.effort,
        class_id: int | str | None = None,
        tile: int | None = None,
    ) -> Maps:
        """Code maps of an H x W x 3 uint8 array, coarse to fine: int32, sizes rounded up to whole codes."""
        return self.encoded_maps(pixels, EncodeOptions(quality, effort, class_id, tile=tile))

    def encoded_maps(self, pixels: np.ndarray, asked: EncodeOptions) -> Maps:
        """:meth:`encode_maps`, with checked options."""
        encoding = self._encoding(pixels, asked)
        return encoding.maps(encoding.rate(asked.quality))

    def decode_pixels(self, maps: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
        """H x W x 3 uint8 from code maps; fewer maps than the model has give a coarser image."""
        return self._engine.windows(height, width).pixels(maps, Box(0, 0, width, height))

    def _encoding(self, pixels: np.ndarray, asked: EncodeOptions) -> Encoding:
        tiling = Tiling.usual(pixels.shape[0], pixels.shape[1], asked.tile)
        work.check_tiles(tiling)
        number = self.model.config.class_number(asked.class_id)
        return Encoding(self._engine, pixels, tiling, effort=asked.effort, class_id=number)

    # -- files -----------------------------------------------------------------------

    def compress(self, image: RasterImage, **given: Any) -> bytes:
        """The bytes of a file, with the options of :func:`vqcodec.compress`."""
        return self.compressed(image, options(EncodeOptions, given))

    def compressed(self, image: RasterImage, asked: EncodeOptions) -> bytes:
        """:meth:`compress`, with checked options."""
        height, width = image.pixels.shape[:2]
        check_size(self._engine, height, width, asked.limits)
        if not asked.metadata:
            image = RasterImage(image.pixels, image.grey, image.alpha)
        if (bound := asked.bound) is not None:
            return container.write(samples.content(image, bound, quality=bound_quality(bound), tile=asked.tile))
        encoding = self._encoding(image.pixels, asked)
        class_id = self.model.config.class_number(asked.class_id)

        def make(quality: float, level: int | None = None) -> Trial:
            rate = encoding.rate(quality, level)
            maps = encoding.maps(rate)
            content = self.content(
                maps,
                height,
                width,
                quality=quality,
                condition=Condition(class_id, rate.level),
                image=image,
                tile=asked.tile,
            )
            data = container.write(content)
            if asked.target_psnr is None:
                return Trial(quality, content, data)
            reached = psnr(image.pixels, self.decode_pixels(maps, height, width))
            return Trial(quality, content, data, min(reached, 100.0))  # finite, so that the search can interpolate

        def sampled(bound: int) -> Trial:
            content = samples.content(image, bound, quality=bound_quality(bound), tile=asked.tile)
            data = container.write(content)
            if asked.target_psnr is None or bound == 0:
                return Trial(content.header.quality, content, data, math.inf)
            decoded = self.decompressed(data, DecodeOptions()).pixels
            return Trial(content.header.quality, content, data, psnr(image.pixels, decoded))

        if asked.target_bytes is not None:
            return largest_file(asked.target_bytes, make, sampled)
        if asked.target_psnr is not None:
            return smallest_file(asked.target_psnr, make, sampled)
        return make(asked.quality).data

    def content(
        self,
        maps: Maps,
        height: int,
        width: int,
        *,
        quality: float = EncodeOptions.quality,
        condition: Condition | None = None,
        image: RasterImage | None = None,
        tile: int | None = None,
    ) -> Container:
        """A file's content from code maps; metadata and alpha come from ``image``.

        condition: the class and rate level whose priors code the maps; None for no class and the level trained for
        the quality.
        """
        auto = self.model.config.autoencoder
        condition = condition or Condition(level=auto.level(auto.position(quality)))
        tiling = Tiling.usual(height, width, tile)
        header = Header(
            fingerprint=self.model.fingerprint[:16],
            width=width,
            height=height,
            tile=tiling.side,
            class_id=condition.class_id,
            level=condition.level,
            quality=round(quality),
            maps=code_maps.used(self.model.config, maps),
            grey=bool(image and image.grey),
        )
        streams = code_streams(self._engine, maps, tiling, condition, header.maps)
        return Container(header, image.metadata if image else {}, streams, image.alpha if image else None)

    def write(self, maps: Maps, height: int, width: int, **given: Any) -> bytes:
        """A file from code maps, see :meth:`content`."""
        return container.write(self.content(maps, height, width, **given))

    def open(self, source: Source, *, partial: bool = False, limits: Limits | None = None) -> CodedImage:
        """A file of which only the header and the metadata have been decoded, see :func:`vqcodec.open`."""
        return CodedImage(self._engine, source, partial=partial, limits=limits)

    def read(self, source: bytes, *, partial: bool = False, limits: Limits | None = None) -> tuple[CodedImage, Maps]:
        """A file, and its code maps."""
        coded = self.open(source, partial=partial, limits=limits)
        return coded, coded.code_maps()

    def decompress(self, source: Source, **given: Any) -> RasterImage:
        """The image in a file, with the options of :func:`vqcodec.decompress`."""
        return self.decompressed(source, options(DecodeOptions, given))

    def decompressed(self, source: Source, asked: DecodeOptions) -> RasterImage:
        """:meth:`decompress`, with checked options."""
        with self.open(source, partial=asked.partial, limits=asked.limits) as coded:
            return coded.decoded(asked)

    def progressive(self, *, limits: Limits | None = None) -> Progressive:
        """For a file that is still arriving, see :class:`vqcodec.Decoder`."""
        return Progressive(self._engine, limits)

    # -- samples ---------------------------------------------------------------------

    def sample_maps(self, class_id: int | str | None, n: int, **given: Any) -> list[Maps]:
        """Code maps of ``n`` new images of a class, with ``size``, ``seed``, ``temperature`` and ``top_p`` as in :func:`vqcodec.sample`.

        Image i depends only on ``seed`` and i, not on the other images, the machine or the number of threads.
        """
        return sampler.draw(
            self._engine, self.model.config.class_number(class_id), options(SampleOptions, {"n": n, **given})
        )

    def sample(self, class_id: int | str | None, n: int = SampleOptions.n, **given: Any) -> list[RasterImage]:
        """``n`` new images of a class, with the options of :func:`vqcodec.sample`; with ``candidates``, the best of that many."""
        return self.sampled(class_id, options(SampleOptions, {"n": n, **given}))

    def sampled(self, class_id: int | str | None, asked: SampleOptions) -> list[RasterImage]:
        """:meth:`sample`, with checked options."""
        width, height = asked.size
        number = self.model.config.class_number(class_id)
        classifier = asked.classifier or (None if asked.candidates is None else self.classifier(number))
        drawn = [
            RasterImage(self.decode_pixels(maps, height, width)) for maps in sampler.draw(self._engine, number, asked)
        ]
        if classifier is None:
            return drawn
        return [drawn[i] for i in sampler.best_first(drawn, number, classifier)[: asked.kept]]

    def inpaint(
        self,
        image: RasterImage,
        mask: np.ndarray,
        *,
        class_id: int | str | None = None,
        quality: float = EncodeOptions.quality,
        seed: int = 0,
        temperature: float = 1.0,
    ) -> RasterImage:
        """``image`` with the area covered by ``mask`` redrawn, see :func:`vqcodec.inpaint`."""
        height, width = image.pixels.shape[:2]
        check_sample_size("size", (width, height))
        quality, temperature = check_quality("quality", quality), check_temperature("temperature", temperature)
        config, number = self.model.config, self.model.config.class_number(class_id)
        # Covered pixels must not leak into the neighbouring codes.
        blank = image.pixels[~mask].mean(0).round().astype(np.uint8) if not mask.all() else np.uint8(128)
        seen = np.where(mask[..., None], blank, image.pixels)
        maps = self.encode_maps(seen, quality, effort=0, class_id=number)
        condition = Condition(number, config.autoencoder.level(config.autoencoder.position(quality)))
        drawn = sampler.fill(
            self._engine,
            maps,
            code_maps.covered(config, mask),
            condition,
            seed=whole_number("seed", seed, 0, 1 << 64),
            temperature=temperature,
        )
        pixels = np.where(mask[..., None], self.decode_pixels(drawn, height, width), image.pixels)
        if image.grey:
            mean = (2 * pixels.sum(2, keepdims=True, dtype=np.uint16) + 3) // 6
            pixels = np.repeat(mean.astype(np.uint8), 3, 2)
        return RasterImage(pixels, grey=image.grey, alpha=image.alpha, metadata=image.metadata)

    def classifier(self, class_id: int) -> Classifier:
        """The shipped classifier, or :class:`InvalidArgument` if it does not know this class or model."""
        found = classifier.shipped()
        if found.classes != self.model.config.classes:
            raise InvalidArgument(
                "the shipped classifier only knows the classes of the shipped model: pass your own classifier"
            )
        if class_id == 0:
            raise InvalidArgument(
                "the shipped classifier scores classes, and 0 means no class: pass a class, or your own classifier"
            )
        return found


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in the compiled core."""
    engine.set_num_threads(whole_number("the number of threads", n, 1, 1025))
