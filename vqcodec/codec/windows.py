"""The autoencoder on an image of any size, a window at a time.

.-----------------.    Every window is computed with a margin as wide as the networks look, and the
|  .-----------.  |    margin is thrown away. So the result is that of the whole image at once, there
|  |  window   |  |    are no seams, and the memory that is needed does not depend on the image.
|  '-----------'  |
'------ margin ---'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vqcodec import ops
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.tiling import Box

#: Side of a window in pixels. Larger ones waste less on margins: 20 % of the decoder's work at this size.
SIDE = 1536


class Windows:
    """An autoencoder at work on one image.

    height, width: of the image in pixels; the networks see it padded at the right and the bottom to multiples of the
    coarsest stride. backend: who computes, see :mod:`vqcodec.ops.backend`. side: of a window, a multiple of that stride.
    """

    def __init__(
        self, autoencoder: IntegerAutoencoder, height: int, width: int, *, backend: str | None = None, side: int = SIDE
    ) -> None:
        self._autoencoder, self._backend, self.side = autoencoder, backend, side
        self._unit = autoencoder.config.strides[0]
        self._height, self._width = (-(-size // self._unit) * self._unit for size in (height, width))
        self._features: tuple[Box, list[np.ndarray]] | None = None  # of the window that was analysed last

    def latents(self, pixels: np.ndarray, stride: int, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
        """What the maps of a stride quantise, in a box: h x w x D int16.

        pixels: the image, H x W x 3 uint8. maps: the code maps of the coarser strides, of the whole image (at least
        around the box). box: pixels, from multiples of the coarsest stride; it ends at one or with the image.
        """
        rows = []
        for row in self._rows(self._grown(box, 0)):
            parts = []
            for window in row:
                outer = self._grown(window, self._autoencoder.encoder_reach)
                features = self._analysis(pixels, outer)[self._autoencoder.config.strides.index(stride)]
                z = ops.autoencoder_latents(
                    self._autoencoder, stride, features, self._codes(maps, outer), backend=self._backend
                )
                parts.append(z[_inside(window, outer, stride)])
            rows.append(np.concatenate(parts, 1))
        return np.concatenate(rows)

    def pixels(self, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
        """The image in a box, h x w x 3 uint8, from the code maps of the whole image.

        Only codes in the box and up to ``decoder_reach`` pixels around it are looked at. Fewer maps than the
        model has give the coarser image.
        """
        found = np.empty((box.height, box.width, 3), np.uint8)
        for row in self._rows(box):
            for window in row:
                outer = self.around(window)
                part = ops.autoencoder_pixels(
                    self._autoencoder,
                    self._codes(maps, outer),
                    outer.height,
                    outer.width,
                    window.seen_from(outer),
                    backend=self._backend,
                )
                found[window.y0 - box.y0 : window.y1 - box.y0, window.x0 - box.x0 : window.x1 - box.x0] = part
        return found

    def around(self, box: Box) -> Box:
        """The pixels whose codes the pixels of a box depend on."""
        return self._grown(box, self._autoencoder.decoder_reach)

    def _rows(self, box: Box) -> Iterator[list[Box]]:
        """The windows of a box, row by row."""
        for y in range(box.y0, box.y1, self.side):
            y1 = min(y + self.side, box.y1)
            yield [Box(x, y, min(x + self.side, box.x1), y1) for x in range(box.x0, box.x1, self.side)]

    def _grown(self, box: Box, reach: int) -> Box:
        """A box with a margin of at least ``reach`` where the image goes on, in whole units."""
        unit = self._unit
        low = (max(0, (v - reach) // unit * unit) for v in (box.x0, box.y0))
        high = (min(end, -(-(v + reach) // unit) * unit) for v, end in ((box.x1, self._width), (box.y1, self._height)))
        return Box(*low, *high)

    def _analysis(self, pixels: np.ndarray, outer: Box) -> list[np.ndarray]:
        if self._features is None or self._features[0] != outer:
            part = pixels[outer.y0 : outer.y1, outer.x0 : outer.x1]
            padded = np.pad(
                part, ((0, outer.height - part.shape[0]), (0, outer.width - part.shape[1]), (0, 0)), mode="edge"
            )
            self._features = outer, ops.autoencoder_features(self._autoencoder, padded, backend=self._backend)
        return self._features[1]

    def _codes(self, maps: Sequence[np.ndarray], box: Box) -> list[np.ndarray]:
        """The part of every map that belongs to a box."""
        return [
            codes[_inside(box, Box(0, 0, self._width, self._height), m.stride)]
            for codes, m in zip(maps, self._autoencoder.config.maps)
        ]


def _inside(box: Box, outer: Box, stride: int) -> tuple[slice, slice]:
    """Where a box lies in an array that holds ``outer`` at a stride: rows and columns."""
    return (
        slice((box.y0 - outer.y0) // stride, -(-(box.y1 - outer.y0) // stride)),
        slice((box.x0 - outer.x0) // stride, -(-(box.x1 - outer.x0) // stride)),
    )
