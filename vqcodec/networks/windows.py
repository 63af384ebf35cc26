"""The autoencoder on a picture of any size, a window at a time.

    .-----------------.    Every window is computed with a margin as wide as the networks look, and the
    |  .-----------.  |    margin is thrown away. So the result is that of the whole picture at once (up
    |  |  window   |  |    to the rounding of floats), there are no seams, and the memory that is needed
    |  '-----------'  |    does not depend on the picture.
    '------ margin ---'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vqcodec.format.header import Box
from vqcodec.networks.autoencoder import Autoencoder

#: Side of a window in pixels. Larger ones waste less on margins: 20 % of the decoder's work at this
#: size, for 0.5 GB of memory.
SIDE = 1536


class Windows:
    """An autoencoder, and the size of one picture.

    height, width: of the picture in pixels; the networks see it padded at the right and the bottom
    to multiples of the coarsest stride. side: of a window, a multiple of that stride.
    """

    def __init__(self, model: Autoencoder, height: int, width: int, *, side: int = SIDE) -> None:
        self.model, self.side = model, side
        self.unit = model.config.strides[0]
        self.height, self.width = (-(-size // self.unit) * self.unit for size in (height, width))
        self._device = model.quantizers[0].codebook.device
        self._dtype = model.quantizers[0].codebook.dtype
        self._features: tuple[Box, dict[int, Tensor]] | None = None  # of the window that was analysed last

    @torch.inference_mode()
    def latents(self, pixels: np.ndarray, stride: int, maps: Sequence[np.ndarray], box: Box) -> Tensor:
        """The latent tensor of a stride in a box, D x h x w.

        pixels: the picture, H x W x 3 uint8. maps: the code maps of the coarser strides, of the whole
        picture (at least around the box). box: pixels, from multiples of the coarsest stride; it ends at
        one or with the picture.
        """
        rows = []
        for row in self._rows(self._grown(box, 0)):
            parts = []
            for window in row:
                outer = self._grown(window, self.model.transform.encoder_reach)
                context = self.model.context(self._codes(maps, outer), self.model.config.strides[: self._coarser(stride)])
                z = self.model.transform.latent(stride, self._analysis(pixels, outer), context).float()
                parts.append(z[0][(slice(None), *_inside(window, outer, stride))])
            rows.append(torch.cat(parts, 2))
        return torch.cat(rows, 1)

    @torch.inference_mode()
    def pixels(self, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
        """The picture in a box, h x w x 3 uint8, from the code maps of the whole picture.

        Only codes in the box and up to ``reach`` pixels around it are looked at. Fewer maps than the
        model has give the coarser picture.
        """
        found = np.empty((box.y1 - box.y0, box.x1 - box.x0, 3), np.uint8)
        for row in self._rows(box):
            for window in row:
                outer = self.around(window)
                x = self.model.decode(self._codes(maps, outer))[0][(slice(None), *_inside(window, outer, 1))]
                part = x.mul_(255).round_().byte().permute(1, 2, 0).cpu().numpy()
                found[window.y0 - box.y0 : window.y1 - box.y0, window.x0 - box.x0 : window.x1 - box.x0] = part
        return found

    def around(self, box: Box) -> Box:
        """The pixels whose codes the pixels of a box depend on."""
        return self._grown(box, self.model.transform.decoder_reach)

    def _rows(self, box: Box) -> Iterator[list[Box]]:
        """The windows of a box, row by row."""
        for y in range(box.y0, box.y1, self.side):
            y1 = min(y + self.side, box.y1)
            yield [Box(x, y, min(x + self.side, box.x1), y1) for x in range(box.x0, box.x1, self.side)]

    def _grown(self, box: Box, reach: int) -> Box:
        """A box with a margin of at least ``reach`` where the picture goes on, in whole units."""
        unit = self.unit
        low = (max(0, (v - reach) // unit * unit) for v in (box.x0, box.y0))
        high = (min(end, -(-(v + reach) // unit) * unit) for v, end in ((box.x1, self.width), (box.y1, self.height)))
        return Box(*low, *high)

    def _analysis(self, pixels: np.ndarray, outer: Box) -> dict[int, Tensor]:
        if self._features is None or self._features[0] != outer:
            part = pixels[outer.y0 : outer.y1, outer.x0 : outer.x1]
            missing = ((0, outer.y1 - outer.y0 - part.shape[0]), (0, outer.x1 - outer.x0 - part.shape[1]), (0, 0))
            padded = np.pad(part, missing, mode="edge")
            x = torch.from_numpy(padded).to(self._device).permute(2, 0, 1)[None].to(self._dtype).div_(255)
            self._features = outer, self.model.transform.analysis(x)
        return self._features[1]

    def _codes(self, maps: Sequence[np.ndarray], box: Box) -> list[Tensor]:
        """The part of every map that belongs to a box: 1 x h x w int64."""
        return [torch.from_numpy(np.asarray(codes[_inside(box, Box(0, 0, self.width, self.height), m.stride)], np.int64))
                .to(self._device)[None] for codes, m in zip(maps, self.model.config.maps)]

    def _coarser(self, stride: int) -> int:
        return self.model.config.strides.index(stride)


def _inside(box: Box, outer: Box, stride: int) -> tuple[slice, slice]:
    """Where a box lies in an array that holds ``outer`` at a stride: rows and columns."""
    return (slice((box.y0 - outer.y0) // stride, -(-(box.y1 - outer.y0) // stride)),
            slice((box.x0 - outer.x0) // stride, -(-(box.x1 - outer.x0) // stride)))
