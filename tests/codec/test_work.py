"""Few bytes cannot take long: what a header may ask for is bounded before anything is computed."""

from __future__ import annotations

import contextlib
import itertools
import time

import numpy as np
import pytest

import vqcodec
from vqcodec.codec import work
from vqcodec.codec.codec import Codec
from vqcodec.codec.decoder import CodedImage
from vqcodec.codec.options import LIMITS
from vqcodec.errors import InvalidArgument, LimitExceeded, VqcodecError
from vqcodec.format import container
from vqcodec.format.container import Container, Header
from vqcodec.format.header import MOST_TILE

#: Seconds of processor time for the worst file, on a busy machine; alone it takes half.
SECONDS = 20.0


def crafted(fingerprint: bytes, **fields: int) -> bytes:
    """A file with right checksums, all of whose streams are empty."""
    header = Header(fingerprint, **fields)
    return container.write(Container(header, maps=[[b""] * header.streams * header.tiling.count] * header.maps))


def headers(maps: int) -> list[dict]:
    """Of all kinds, from what the limits allow to what they do not."""
    found = []
    sides = [1, 16, 1000, 2048, 2100, 2448, 3000, 4096, 5792, 16384]
    for width, height in itertools.product(sides, repeat=2):
        for tile, count in itertools.product((0, 64, 512, 2048), (0, 1, maps // 2, maps)):
            found.append(dict(width=width, height=height, tile=tile, maps=count))
        found += [dict(width=width, height=height, tile=tile, maps=6, samples=True) for tile in (0, 512, 2048)]
    return found


def accepted(codec: Codec) -> list[tuple[int, bytes]]:
    """The crafted files that may be decoded at the usual limits, with what they ask for; the most first."""
    found = []
    for fields in headers(len(codec.model.priors)):
        fingerprint = bytes(16) if fields.get("samples") else codec.model.fingerprint[:16]
        try:
            data = crafted(fingerprint, **fields)
        except InvalidArgument:  # tiles that are too large
            continue
        if len(data) > 200:  # an index pays for itself
            continue
        image = CodedImage(codec._engine, data)
        tiles = range(len(image._canvas.boxes))
        needed = image._canvas.work(tiles, fields["maps"], fields["width"] * fields["height"])
        try:
            work.check(needed, len(data), LIMITS)
        except LimitExceeded:
            with pytest.raises(LimitExceeded):
                vqcodec.decompress(data)
            with pytest.raises(LimitExceeded):
                vqcodec.Decoder().feed(data)
            continue
        found.append((needed, data))
    return sorted(found, key=lambda pair: -pair[0])


def seconds(call) -> float:
    begun = time.process_time()
    with contextlib.suppress(VqcodecError):  # an index, or empty samples, that no encoder writes
        call()
    return time.process_time() - begun


@pytest.mark.slow
def test_the_worst_small_file():
    codec = Codec()
    found = accepted(codec)
    assert len(found) > 50
    coded = [data for _, data in found if not container.read_header(data).samples]
    worst = [*coded[:2], next(data for _, data in found if container.read_header(data).samples)]
    for data in worst:
        assert seconds(lambda: vqcodec.decompress(data)) < SECONDS
        assert seconds(lambda: vqcodec.decompress(data, region=(0, 0, 1, 1))) < SECONDS
        assert seconds(lambda: codec.open(data).check()) < SECONDS


def test_no_maps_cost_nothing():
    """Away from the edges all pixels are the same square: equal to what the networks make of the whole."""
    codec = Codec()
    for height, width in ((37, 50), (333, 97), (1, 700), (610, 450)):
        data = crafted(codec.model.fingerprint[:16], width=width, height=height, maps=0)
        maps = [np.zeros(shape, np.int32) for shape in codec.model.config.map_shapes(height, width)]
        whole = codec.decode_pixels(maps, height, width)
        assert np.array_equal(vqcodec.decompress(data), whole)
        part = vqcodec.decompress(data, region=(width // 3, 0, width, height // 2 + 1))
        assert np.array_equal(part, whole[: height // 2 + 1, width // 3 :])
    large = crafted(codec.model.fingerprint[:16], width=16384, height=4096, tile=1024, maps=0)
    assert seconds(lambda: vqcodec.decompress(large)) < SECONDS / 2


def test_limits(small_model):
    data = vqcodec.compress(np.zeros((40, 50, 3), np.uint8), model=small_model)
    few = vqcodec.Limits(work=1)
    vqcodec.decompress(data, model=small_model, limits=few)  # its bytes are enough
    header = dict(width=2000, height=2000, maps=len(small_model.priors))
    crafted_file = crafted(small_model.fingerprint[:16], **header)
    codec = Codec(small_model)
    needed = codec.open(crafted_file)._canvas.work([0], header["maps"], 2000 * 2000)
    assert needed > 2000 * 2000
    with pytest.raises(LimitExceeded, match="multiply-adds to decode, this needs about"):
        work.check(needed, len(crafted_file), vqcodec.Limits(work=needed - work.PER_BYTE * len(crafted_file) - 1))
    work.check(needed, len(crafted_file), vqcodec.Limits(work=needed))


def test_large_tiles_are_refused(small_model):
    side = int(MOST_TILE**0.5)
    Header(bytes(16), side, side)
    with pytest.raises(InvalidArgument, match="a tile must have at most 4194304 pixels, not 2112 x 2048"):
        Header(bytes(16), side + 64, side)
    for options in (dict(), dict(lossless=True)):
        with pytest.raises(InvalidArgument, match="a tile must have at most 4194304 pixels, got 3000 x 1500"):
            vqcodec.compress(np.zeros((1500, 3000, 3), np.uint8), tile=0, model=small_model, **options)


def test_legitimate_files_pass():
    """A large image of one colour takes few bytes, but its index pays."""
    picture = np.full((2600, 2600, 3), 77, np.uint8)
    for options in (dict(effort=0), dict(lossless=True)):
        data = vqcodec.compress(picture, **options)
        assert vqcodec.decompress(data).size == (2600, 2600)
