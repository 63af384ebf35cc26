"""The Python fuzz targets: everything that reads untrusted bytes.

A target takes any bytes. It returns, or raises ``Violation`` (or whatever error escaped the library) if a
property does not hold: only ``VqcodecError`` may be raised, and what is read completely and
written again must read the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from safetensors.numpy import save

from tests.reference_decoder import container as reference_container
from vqcodec import ops
from vqcodec.errors import CorruptChunk, FormatError, LimitExceeded, ModelError, VqcodecError
from vqcodec.format import alpha as alpha_plane
from vqcodec.format import container as file_format
from vqcodec.format import framing
from vqcodec.format.chunk import encoded
from vqcodec.format.container import Container, Limits
from vqcodec.format.header import Header
from vqcodec.format.wire import Cursor, encode_varint, inflate
from vqcodec.model import file, fixed_point
from vqcodec.model.config import AutoencoderConfig, CodeMap, ModelConfig, PriorConfig

if TYPE_CHECKING:
    from vqcodec.codec.codec import Codec

LIMITS = Limits(pixels=1 << 14, metadata=1 << 12, chunks=32, map_bytes=1 << 12)


class Violation(Exception):
    """A property does not hold."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise Violation(what)


# -- the container -----------------------------------------------------------------------


def header(data: bytes) -> None:
    """The header chunk: every number has only one form, so what is read is written to the same bytes."""
    try:
        found = Header.from_bytes(memoryview(data))
    except CorruptChunk:
        return
    require(found.to_bytes() == data, "a header must be written as it was read")
    require(found.tiling.count >= 1, "there must be a tile")


def container(data: bytes) -> None:
    """A whole file, as it is and with corrected checksums, complete and truncated."""
    for file_bytes in {data, repaired(data)}:
        _container(file_bytes)


def _container(data: bytes) -> None:
    try:
        head = file_format.read_header(data, limits=LIMITS)
    except FormatError:
        head = None
    try:
        whole: Container | None = file_format.read(data, limits=LIMITS)
        refused: FormatError | None = None
    except FormatError as error:
        whole, refused = None, error
    try:
        part: Container | None = file_format.read(data, partial=True, limits=LIMITS)
    except FormatError:
        part = None
    require((part is None) == (head is None), "partial reading must work if the header is whole, and only then")
    if part is not None:
        require(part.header == head, "the header alone must be that of the file")
        require((part.error is None) == (whole is not None), "what is missing must be said")
        require(len(part.maps) <= part.header.maps, "there must be no more maps than promised")
    _differential(data, whole, refused)
    _description(data, whole)
    if whole is None:
        return
    require(part is not None and same(part, whole), "a whole file must read the same with partial")
    require(sum(map(len, whole.metadata.values())) <= 3 * LIMITS.metadata, "metadata must keep its limit")
    again = file_format.read(file_format.write(whole), limits=LIMITS)
    require(same(again, whole), "a file that is written again must read the same")
    cut = framing.MAGIC + data[4 : 5 + zlib.crc32(data) % len(data)]
    with contextlib.suppress(FormatError):
        part = file_format.read(cut, partial=True, limits=LIMITS)
        require(part.maps == whole.maps[: len(part.maps)], "a file that is cut off must have the first maps")


def same(a: Container, b: Container) -> bool:
    equal = (a.header, a.metadata, a.maps, a.digest) == (b.header, b.metadata, b.maps, b.digest)
    equal = equal and (a.alpha is None) == (b.alpha is None)
    return equal and (a.alpha is None or np.array_equal(a.alpha, b.alpha))


def _differential(data: bytes, whole: Container | None, refused: FormatError | None) -> None:
    """The reader that was written from the specification accepts the same files, with the same content."""
    if isinstance(refused, LimitExceeded):
        return
    try:
        with mock.patch.object(reference_container, "crc", _crc):  # its own takes most of the time
            found = reference_container.read(data)
    except reference_container.Invalid:
        require(whole is None, "what the specification refuses must be refused")
        return
    require(whole is not None, f"what the specification allows must be read: {refused}")
    assert whole is not None
    names = {"i": "icc", "e": "exif", "x": "xmp"}
    require(
        {names[tag]: content for tag, content in found["metadata"].items()} == whole.metadata, "the metadata must agree"
    )
    require(found["streams"] == whole.maps, "the streams must agree")
    require(found["alpha"] == (None if whole.alpha is None else whole.alpha.tolist()), "the alpha planes must agree")
    require(found["digest"] == whole.digest, "the digests must agree")
    require((found["width"], found["height"]) == (whole.header.width, whole.header.height), "the sizes must agree")


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _description(data: bytes, whole: Container | None) -> None:
    try:
        json.dumps(file_format.describe(data, limits=LIMITS), allow_nan=False)
    except FormatError:
        require(whole is None, "a file that can be read must be described")


def repaired(data: bytes) -> bytes:
    """The file with the CRCs of its chunks and tiles corrected, as far as it has chunks."""
    start = framing.MAGIC + bytes([file_format.VERSION])
    cursor = Cursor(memoryview(data), "", CorruptChunk)
    parts, tiles = [start], 1
    with contextlib.suppress(FormatError):
        cursor.take(len(start))
        while cursor.left:
            tag = bytes(cursor.take(1))
            payload = bytes(cursor.take(cursor.varint()))
            if tag == b"H":
                with contextlib.suppress(FormatError):
                    found = Header.from_bytes(memoryview(payload))
                    tiles = found.tiling.count * found.streams
            if tag == b"M" and 1 < tiles <= 64:
                payload = _repaired_tiles(payload, tiles)
            body = tag + encode_varint(len(payload)) + payload
            parts.append(body + zlib.crc32(body).to_bytes(4, "little"))
            cursor.take(4)
    return b"".join(parts)


def _repaired_tiles(payload: bytes, count: int) -> bytes:
    cursor = Cursor(memoryview(payload), "")
    try:
        sizes = [(cursor.varint(), cursor.uint32())[0] for _ in range(count)]
        streams = [bytes(cursor.take(size)) for size in sizes]
    except CorruptChunk:
        return payload
    index = [encode_varint(len(s)) + zlib.crc32(s).to_bytes(4, "little") for s in streams]
    return b"".join([*index, *streams, cursor.take(cursor.left)])


def alpha(data: bytes) -> None:
    """The alpha chunk of a plane whose sides are the first two bytes."""
    if len(data) < 2:
        return
    width, height = data[0] + 1, data[1] + 1
    try:
        plane = alpha_plane.decode(data[2:], width, height)
    except CorruptChunk:
        return
    require(plane.shape == (height, width) and plane.dtype == np.uint8, "a plane must have the size of the image")
    again = alpha_plane.decode(alpha_plane.encode(plane), width, height)
    require(np.array_equal(again, plane), "a plane that is written again must read the same")


def metadata(data: bytes) -> None:
    """A zlib stream, alone and in each of the metadata chunks."""
    most = 512
    try:
        content = inflate(data, "stream", most)
    except CorruptChunk:
        content = None
    if content is not None:
        require(len(content) <= most, "no more may be inflated than is allowed")
        require(
            inflate(zlib.compress(content), "stream", most) == content,
            "what is deflated again must inflate to the same",
        )
    head = encoded("H", Header(bytes(16), 1, 1).to_bytes())
    limits = dataclasses.replace(LIMITS, metadata=most)
    for tag, name in (("i", "icc"), ("e", "exif"), ("x", "xmp")):
        parts = [framing.MAGIC, bytes([1]), head, encoded(tag, data), encoded("Z", b"")]
        found = file_format.read(b"".join(parts), partial=True, limits=limits)
        require(
            found.metadata == ({} if content is None else {name: content}), "a chunk must hold its stream's content"
        )
        require((found.error is None) == (content is not None), "a chunk that is dropped must be named")


# -- models ------------------------------------------------------------------------------


def model(data: bytes) -> None:
    """A model file. The first byte says what the others are:

    0: the file. 1: JSON of changes to a valid model, {"config": {"path.to.entry": value}, "tensors":
    {name: [dtype, shape, seed] or null}}. 2: pairs of an offset (2 bytes) and a byte, changes to a
    valid file.
    """
    if not data:
        return
    kind, rest = data[0] % 3, data[1:]
    content = rest if kind == 0 else _edited(rest) if kind == 1 else _patched(rest)
    if content is not None:
        _model(content)


def _model(content: bytes) -> None:
    with _scratch(content) as path:
        try:
            found = file.load(path)
        except ModelError:
            return
        require(len(found.fingerprint) == 32, "a model must have a fingerprint")
        file.save(path, found.config, found.tensors)
        again = file.load(path)
        require(again.fingerprint == found.fingerprint, "a model that is written again must be the same")
    maps = found.config.autoencoder.maps
    factors = [max(1, maps[0].stride // m.stride) for m in maps]
    if sum(f * f for f in factors) <= 256 and all(m.codes <= 256 for m in maps):
        with contextlib.suppress(VqcodecError):
            ops.wavefront_decode(found.priors, [(f, f) for f in factors], [b"\x51\x33"] * len(maps), (0, 0))


@contextlib.contextmanager
def _scratch(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(content)
        yield path
    file._LOADED.clear()


def _edited(text: bytes) -> bytes | None:
    """The valid model with changes, as a file; None if ``text`` is not a list of changes."""
    config, tensors = micro()
    description = config.to_json()
    tensors = dict(tensors)
    try:
        changes = json.loads(text)
        for path, value in changes.get("config", {}).items():
            *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
            place: Any = description
            for key in parents:
                place = place[key]
            if value == {"delete": True}:
                del place[last]
            else:
                place[last] = value
        for name, change in changes.get("tensors", {}).items():
            if change is None:
                tensors.pop(name, None)
                continue
            dtype, shape, seed = change
            if not all(0 <= side <= 64 for side in shape) or np.prod(shape) > 4096:
                return None
            values = np.random.default_rng(seed).integers(
                0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8
            )
            tensors[name] = np.ascontiguousarray(values.view(dtype).reshape(shape))
        return save(tensors, {"format": file.FORMAT, "config": json.dumps(description)})
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        return None  # not a change, rather than one that the library rejects


def _patched(patches: bytes) -> bytes:
    content = bytearray(_micro_file())
    for at in range(0, len(patches) - 2, 3):
        content[int.from_bytes(patches[at : at + 2], "little") % len(content)] = patches[at + 2]
    return bytes(content)


@functools.cache
def _micro_file() -> bytes:
    found = _edited(b"{}")
    assert found is not None
    return found


@functools.cache
def micro() -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """The smallest model with all features: two strides, a residual map, attention, conditioning, an output stack."""
    import torch

    from tests.support.networks import random_prior
    from training.networks.autoencoder import Autoencoder

    maps = (CodeMap(16, 1, 3), CodeMap(8, 1, 4), CodeMap(8, 1, 3, refines=0))
    top = PriorConfig(
        hidden=2,
        residual=1,
        layers=1,
        first_kernel=3,
        embedding=1,
        attention_layers=1,
        heads=2,
        output_layers=1,
        condition_blocks=0,
    )
    fine = PriorConfig(
        hidden=2, residual=1, layers=1, first_kernel=3, embedding=1, condition_embedding=1, condition_residual=1
    )
    auto = AutoencoderConfig(
        maps=maps, hidden=2, residual=1, encoder_blocks=1, decoder_blocks=1, refine=1, refine_blocks=1, levels=2
    )
    config = ModelConfig("micro", auto, (top, fine, fine), classes=("cat",))
    tensors = {
        "tables/tanh": fixed_point.tanh_table(),
        "tables/sigmoid": fixed_point.sigmoid_table(),
        "tables/exp": fixed_point.exp_table(),
    }
    for m, prior in enumerate(config.priors):
        exported = random_prior(prior, maps[: m + 1], m, classes=1, levels=auto.levels).export()
        tensors |= {f"prior.{m}/{name}": np.ascontiguousarray(array) for name, array in exported.items()}
    torch.manual_seed(0)
    tensors |= {f"autoencoder/{name}": array for name, array in Autoencoder(auto).export().items()}
    return config, tensors


@functools.cache
def _codec() -> Codec:
    from vqcodec.codec.codec import Codec

    return Codec(file.Model(*micro()))


def codec(data: bytes) -> None:
    """The code maps of a file, with its checksums corrected and its model replaced by a small one."""
    coder = _codec()
    data = repaired(data)
    with contextlib.suppress(FormatError):
        named = file_format.read_header(data, limits=LIMITS).fingerprint
        data = repaired(data.replace(named, coder.model.fingerprint[:16], 1))
    maps: dict[bool, list[np.ndarray] | None] = {}
    for partial in (False, True):
        try:
            found, maps[partial] = coder.read(data, partial=partial, limits=LIMITS)
        except (FormatError, ModelError):
            maps[partial] = None
            continue
        decoded = maps[partial] or []
        require(partial or len(decoded) == len(coder.model.priors), "all maps of the model must be there")
        for number, codes in enumerate(decoded):
            limit = coder.model.config.autoencoder.maps[number].codes
            require(codes.dtype == np.int32 and 0 <= codes.min() <= codes.max() < limit, "codes must be in range")
    if maps[False] is not None:
        require(maps[True] is not None, "a whole file must be readable with partial")
        require(all(map(np.array_equal, maps[False], maps[True] or [])), "partial must not change a whole file")


def exact(data: bytes) -> None:
    """An image that is coded as samples or with a palette, with its checksums corrected."""
    from vqcodec.codec.decoder import CodedImage

    data = repaired(data)
    try:
        header = file_format.read_header(data, limits=LIMITS)
    except FormatError:
        return
    if not header.samples:
        return
    whole = None
    for partial in (False, True):
        try:
            found = CodedImage(_codec()._engine, data, partial=partial, limits=LIMITS).decode()
        except FormatError:
            continue
        require(found.pixels.shape == (header.height, header.width, 3), "an image must have the promised size")
        whole = found if not partial else whole
        require(whole is None or np.array_equal(whole.pixels, found.pixels), "partial must not change a whole image")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "container": container,
    "alpha": alpha,
    "metadata": metadata,
    "model": model,
    "codec": codec,
    "exact": exact,
}


def prepare(name: str) -> None:
    """One-time work of a target's first run: imports, and the small model."""
    if name in ("model", "codec", "exact"):
        _micro_file()
        _codec()
