"""vqcodec/format/container.py, header.py, wire.py and alpha.py: what is written is read, and damage is detected."""

from __future__ import annotations

import itertools
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.reference_decoder import container as reference_container
from vqcodec.errors import (
    CorruptChunk,
    FormatError,
    InvalidArgument,
    LimitExceeded,
    NotVqcodec,
    TruncatedFile,
    UnsupportedVersion,
)
from vqcodec.format import alpha, container
from vqcodec.format.container import Container, Header, Limits
from vqcodec.format.wire import Cursor, encode_varint
from vqcodec.tiling import Tiling

FINGERPRINT = bytes(range(16))


def header(**changes) -> Header:
    return Header(**{"fingerprint": FINGERPRINT, "width": 5, "height": 3, "maps": 3} | changes)


def example(**changes) -> Container:
    """A small file with a chunk of every kind."""
    return Container(
        header(**changes),
        {"icc": b"profile" * 9, "exif": b"Exif\0\0MM", "xmp": b"<x/>"},
        [[b"first"], [b""], [b"\0third"]],
        np.arange(15, dtype=np.uint8).reshape(3, 5) ** 2,
    )


def equal(a: Container, b: Container) -> bool:
    same_alpha = a.alpha is b.alpha is None or np.array_equal(a.alpha, b.alpha)
    return (a.header, a.metadata, a.maps) == (b.header, b.metadata, b.maps) and same_alpha


def chunk(tag: str, payload: bytes) -> bytes:
    body = tag.encode() + encode_varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def file_of(*parts: bytes) -> bytes:
    return b"\x8fVQC\x01" + b"".join(parts)


HEADER = chunk("H", header(maps=1).to_bytes())
MAP = chunk("M", b"stream")
END = chunk("Z", b"")

# -- round trips -------------------------------------------------------------------------


@st.composite
def containers(draw) -> Container:
    tile = draw(st.sampled_from([0, 64, 128]))
    head = Header(
        fingerprint=draw(st.binary(min_size=16, max_size=16)),
        width=draw(st.integers(1, 200)),
        height=draw(st.integers(1, 200)),
        tile=tile,
        class_id=draw(st.integers(0, 65535)),
        level=draw(st.integers(0, 255)),
        quality=draw(st.integers(0, 100)),
        maps=draw(st.integers(0, 4)),
        grey=draw(st.booleans()),
    )
    streams = st.lists(st.binary(max_size=40), min_size=head.tiling.count, max_size=head.tiling.count)
    planes = hnp.arrays(np.uint8, (head.height, head.width), elements=st.integers(0, 255), fill=st.just(7))
    return Container(
        head,
        draw(st.dictionaries(st.sampled_from(["icc", "exif", "xmp"]), st.binary(max_size=60))),
        draw(st.lists(streams, min_size=head.maps, max_size=head.maps)),
        draw(st.none() | planes),
    )


@pytest.mark.slow
@given(containers())
def test_what_is_written_is_read(content):
    data = container.write(content)
    assert equal(container.read(data), content)
    assert equal(container.read(data, partial=True), content)
    assert container.read(data, partial=True).error is None
    assert container.read_header(data) == content.header


@pytest.mark.slow
@given(containers())
def test_independent_reader_agrees(content):
    found = reference_container.read(container.write(content))
    head = content.header
    assert found["fingerprint"] == head.fingerprint
    for name in ("width", "height", "tile", "level", "quality", "maps"):
        assert found[name] == getattr(head, name)
    assert (found["class"], found["flags"]) == (head.class_id, head.grey)
    assert found["streams"] == content.maps
    assert found["metadata"] == {{"icc": "i", "exif": "e", "xmp": "x"}[k]: v for k, v in content.metadata.items()}
    assert found["alpha"] == (None if content.alpha is None else content.alpha.tolist())


def test_accepts_any_buffer():
    data = container.write(example())
    for view in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert equal(container.read(view), example())
    with pytest.raises(InvalidArgument, match="bytes-like, got str"):
        container.read("file.vqc")


def test_overhead_of_a_small_file():
    """Everything but the streams stays under 1 % + 64 bytes at 10 kB, including the coder's 2 bytes per map."""
    head = Header(FINGERPRINT, width=768, height=512, maps=11, class_id=16, level=3, quality=50)
    streams = [[bytes(10_000 // 11)] for _ in range(11)]
    data = container.write(Container(head, maps=streams))
    overhead = len(data) - sum(len(s) for (s,) in streams)
    assert overhead + 2 * 11 <= 0.01 * len(data) + 64


# -- writing nonsense --------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0}, {"height": 0}, {"width": 2**30 + 1}, {"width": 2.0}, {"width": True}, {"tile": 63}, {"tile": -64},
        {"class_id": -1}, {"class_id": 65536}, {"level": 256}, {"quality": 101}, {"maps": 256}, {"grey": 2},
        {"fingerprint": b"short"}, {"fingerprint": "0123456789abcdef"},
    ],
)  # fmt: skip
def test_header_refuses(changes):
    with pytest.raises(InvalidArgument, match=next(iter(changes))):
        header(**changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": [[b""]]}, "promises 3 maps, got 1"),
        ({"maps": [[b""], [b"", b""], [b""]]}, "map 1 must have 1 streams, got 2"),
        ({"metadata": {"icc": bytes(2**24 + 1)}}, "icc must be at most 16777216 bytes, got 16777217"),
        ({"metadata": {"iptc": b""}}, "icc, exif, xmp, got .'iptc'"),
        ({"alpha": np.zeros((5, 3), np.uint8)}, "alpha must be 3 x 5, got"),
        ({"alpha": np.zeros((3, 5), np.int32)}, "alpha must be uint8, got int32"),
    ],
)
def test_write_refuses(change, message):
    content = example()
    for name, value in change.items():
        setattr(content, name, value)
    with pytest.raises(InvalidArgument, match=message):
        container.write(content)


# -- damage ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 64])
def test_every_changed_byte_is_noticed(tile):
    content = example()
    if tile:
        content = Container(header(width=100, tile=64, maps=2), {}, [[b"a", b""], [b"bc", b"d"]])
    data = container.write(content)
    for at in range(len(data)):
        for value in range(256):
            if value == data[at]:
                continue
            damaged = data[:at] + bytes([value]) + data[at + 1 :]
            with pytest.raises(FormatError):
                container.read(damaged)
            with pytest.raises(FormatError):
                list(container.chunks(damaged))
            check_partial(damaged, content)


def test_every_truncation_is_noticed():
    content = example()
    data = container.write(content)
    for size in range(len(data)):
        with pytest.raises(NotVqcodec if size == 0 else TruncatedFile):
            container.read(data[:size])
        check_partial(data[:size], content)


def check_partial(damaged: bytes, content: Container) -> None:
    """With ``partial``, a damaged file gives an error or a true part of the content, and says why."""
    try:
        found = container.read(damaged, partial=True)
    except FormatError:
        with pytest.raises(FormatError):
            container.read_header(damaged)
        return
    assert found.header == content.header
    assert isinstance(found.error, FormatError)
    assert found.maps == content.maps[: len(found.maps)]
    assert found.metadata.items() <= content.metadata.items()
    assert found.alpha is None or np.array_equal(found.alpha, content.alpha)


def test_partial_returns_all_that_is_whole():
    content = example()
    data = container.write(content)
    whole = {c.name: c for c in container.chunks(data)}
    for number in range(3):
        found = container.read(data[: whole[f"map {number}"].offset], partial=True)
        assert found.maps == content.maps[:number]
        assert found.metadata == content.metadata
        assert isinstance(found.error, TruncatedFile)
        assert found.error.chunk == f"map {number}"
    assert np.array_equal(container.read(data[:-1], partial=True).alpha, content.alpha)
    assert np.array_equal(container.read(data + b"!", partial=True).alpha, content.alpha)


def damage(data: bytes, name: str, tag: bytes = b"") -> bytes:
    """``data`` with the last byte of a chunk's payload changed, or with another tag."""
    found = next(c for c in container.chunks(data) if c.name == name)
    at = found.offset if tag else found.offset + found.size - 5
    return data[:at] + (tag or bytes([data[at] ^ 1])) + data[at + 1 :]


def test_partial_drops_damaged_metadata_alone():
    content = example()
    found = container.read(damage(container.write(content), "EXIF"), partial=True)
    assert found.metadata == {k: v for k, v in content.metadata.items() if k != "exif"}
    assert found.maps == content.maps and np.array_equal(found.alpha, content.alpha)
    assert found.error.chunk == "EXIF"


@pytest.mark.parametrize("tag", [b"i", b"e", b"x"])
def test_partial_does_not_mistake_a_map_for_metadata(tag):
    """If map 0 looks like a damaged profile, map 1 must not become map 0."""
    data = damage(container.write(example()), "map 0", tag)
    for part in (data, data[:-1], data[:-8]):
        found = container.read(part, partial=True)
        assert found.maps == [] and found.alpha is None


def test_errors_name_the_chunk():
    data = container.write(example())
    for name in ("header", "ICC profile", "EXIF", "XMP", "map 0", "map 2", "alpha"):
        with pytest.raises(CorruptChunk, match=f"^{name}: CRC-32 must be [0-9a-f]{{8}}, computed") as caught:
            container.read(damage(data, name))
        assert caught.value.chunk == name


# -- rules of the format -----------------------------------------------------------------

ICC = chunk("i", zlib.compress(b"profile"))
ALPHA = chunk("A", b"\0\xff")


BROKEN = [
    (b"", NotVqcodec, "found nothing"),
    (b"\x89PNG\r\n\x1a\n", NotVqcodec, "8f 56 51 43, found 89 50 4e 47"),
    (b"\x8fVQC", TruncatedFile, "version"),
    (b"\x8fVQC\x02", UnsupportedVersion, "version 1 is supported, found 2"),
    (file_of(MAP, HEADER, END), CorruptChunk, "first chunk must be the header"),
    (file_of(HEADER, HEADER, MAP, END), CorruptChunk, "header: must appear once"),
    (file_of(HEADER, ICC, ICC, MAP, END), CorruptChunk, "ICC profile: must appear once"),
    (file_of(HEADER, MAP, ICC, END), CorruptChunk, "ICC profile: comes too late"),
    (file_of(HEADER, ALPHA, MAP, END), CorruptChunk, "promises 1 maps, found 0"),
    (file_of(HEADER, MAP, ALPHA, ALPHA, END), CorruptChunk, "alpha: must appear once"),
    (file_of(HEADER, END), CorruptChunk, "end: the header promises 1 maps, found 0"),
    (file_of(HEADER, MAP, MAP, END), CorruptChunk, "map 1: the header promises 1 maps, found 2"),
    (file_of(HEADER, MAP), TruncatedFile, "^end"),
    (file_of(HEADER, MAP, END, b"\0"), CorruptChunk, "end: must end here, found 1 more bytes"),
    (file_of(HEADER, MAP, chunk("Z", b"x")), CorruptChunk, "end: must be empty, found 1"),
    (file_of(HEADER, chunk("Q", b""), MAP, END), UnsupportedVersion, "'Q' at byte .* critical and unknown"),
    (file_of(HEADER, chunk("7", b""), MAP, END), CorruptChunk, "must be an ASCII letter, found '7'"),
    (file_of(HEADER, chunk("i", b"no zlib"), MAP, END), CorruptChunk, "ICC profile: must be a zlib stream"),
    (file_of(HEADER, chunk("x", zlib.compress(b"x") + b"x"), MAP, END), CorruptChunk, "XMP: .* 1 more bytes"),
    (file_of(HEADER, chunk("x", zlib.compress(b"x" * 9)[:-2]), MAP, END), CorruptChunk, "only its beginning"),
    (file_of(HEADER, chunk("i", b""), MAP, END), CorruptChunk, "only its beginning"),
    (file_of(b"H\x80\x80\x80\x80\x80\x01"), CorruptChunk, "at most 5 bytes"),
    (file_of(b"H\x98\x00"), CorruptChunk, "shortest form"),
    (file_of(HEADER, b"M\xff\xff\xff\xff\x7f"), TruncatedFile, "map 0: 34359738367 bytes expected, 0 found"),
    (file_of(HEADER, MAP, chunk("A", b""), END), CorruptChunk, "method from 0 to 4, found nothing"),
    (file_of(HEADER, MAP, chunk("A", b"\x05"), END), CorruptChunk, "method from 0 to 4, found 05"),
    (file_of(HEADER, MAP, chunk("A", b"\0\1\2"), END), CorruptChunk, "method from 0 to 4, found 00 01"),
    (file_of(HEADER, MAP, chunk("A", b"\1" + zlib.compress(bytes(14))), END), CorruptChunk, "15 bytes, found 14"),
    (file_of(HEADER, MAP, chunk("A", b"\1" + zlib.compress(bytes(16))), END), CorruptChunk, "15 bytes, found more"),
    (file_of(HEADER, MAP, chunk("A", b"\1xx"), END), CorruptChunk, "alpha: must be a zlib stream"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_refuses(data, error, message):
    with pytest.raises(error, match=message):
        container.read(data)
    with pytest.raises((reference_container.Invalid, IndexError)):
        reference_container.read(data)


GOOD = {"width": 5, "height": 3, "tile": 0, "class": 0, "level": 0, "quality": 50, "maps": 0, "flags": 0}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (FINGERPRINT[:9], "16 bytes expected, 9 found"),
        (FINGERPRINT + b"\5\3\0", "1 bytes expected, 0 found"),
        (FINGERPRINT + bytes(GOOD.values()) + b"\0", "must end here, found 1 more"),
        *(
            (FINGERPRINT + b"".join(encode_varint(v) for v in (GOOD | change).values()), message)
            for change, message in [
                ({"width": 0}, "width must be an integer from 1 to 1073741824, found 0"),
                ({"height": 2**31}, "height must be an integer"),
                ({"tile": 100}, "tile must be a multiple of 64, found 100"),
                ({"class": 65536}, "class_id must"),
                ({"quality": 101}, "quality must"),
                ({"flags": 8}, "flags above 7 are reserved, found 8"),
                ({"flags": 4}, "deep and bound are for images coded as samples"),
                ({"flags": 2}, "1 bytes expected, 0 found"),
            ]
        ),
    ],
)
def test_refuses_header(payload, message):
    data = file_of(chunk("H", payload), END)
    for read in (container.read, container.read_header, lambda d: container.read(d, partial=True)):
        with pytest.raises(CorruptChunk, match=f"^header: {message}"):
            read(data)
    with pytest.raises(reference_container.Invalid):
        reference_container.read(data)


def test_unknown_ancillary_chunks_are_skipped():
    note = chunk("n", b"a note from the future")
    data = file_of(HEADER, note, ICC, note, MAP, note, END)
    assert equal(container.read(data), container.read(file_of(HEADER, ICC, MAP, END)))
    assert [c.tag for c in container.chunks(data)] == list("HninMnZ")
    assert reference_container.read(data)["streams"] == [[b"stream"]]


TILED = chunk("H", header(width=130, height=64, tile=64, maps=1).to_bytes())


def entry(stream: bytes) -> bytes:
    return encode_varint(len(stream)) + zlib.crc32(stream).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (bytes(14), "index of 3 tiles does not fit into 14 bytes"),
        (entry(b"a") + entry(b"b") + entry(b"c") + b"abcd", "must end here, found 1 more"),
        (entry(b"a") + entry(b"b") + entry(b"c") + b"ab", "1 bytes expected, 0 found"),
        (entry(b"a") + entry(b"b") + entry(b"c") + b"axc", "tile 1: CRC-32 must be"),
    ],
)
def test_refuses_tiles(payload, message):
    data = file_of(TILED, chunk("M", payload), END)
    with pytest.raises(CorruptChunk, match=f"^map 0: .*{message}"):
        container.read(data)
    with pytest.raises(reference_container.Invalid):
        reference_container.read(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_typed_error(tail):
    for data in (tail, file_of(tail), file_of(HEADER, tail), file_of(HEADER, chunk("A", tail), END)):
        for partial in (False, True):
            try:
                found = container.read(data, partial=partial)
            except FormatError:
                continue
            assert len(found.maps) == found.header.maps or (partial and found.error)


# -- limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(pixels=14), "at most 14 pixels are allowed, found 5 x 3"),
        (Limits(metadata=62), "ICC profile: at most 62 bytes"),
        (Limits(chunks=7), "at most 7 chunks"),
        (Limits(map_bytes=5), "map 2: at most 5 bytes are allowed, found 6"),
    ],
)
def test_limits(limits, message):
    data = container.write(example())
    exact = Limits(pixels=15, metadata=63, chunks=9, map_bytes=6)
    assert equal(container.read(data, limits=exact), example())
    with pytest.raises(LimitExceeded, match=message):
        container.read(data, limits=limits)


@pytest.mark.slow
def test_bombs_are_not_inflated():
    """A small chunk that would inflate to 100 MB costs no more than its limit."""
    import tracemalloc

    bomb = zlib.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    for data in (
        file_of(HEADER, chunk("i", bomb), MAP, END),
        file_of(HEADER, MAP, chunk("A", b"\1" + bomb), END),
    ):
        with pytest.raises(FormatError):
            container.read(data, limits=Limits(metadata=1 << 16))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_huge_grids_cost_nothing():
    """A hostile header promises 2**24 tiles without any data."""
    head = chunk("H", header(width=2**30, height=2, tile=64, maps=1).to_bytes())
    with pytest.raises(CorruptChunk, match="index of 16777216 tiles does not fit"):
        container.read(file_of(head, MAP, END), limits=Limits(pixels=1 << 31))
    assert len(list(itertools.islice(Tiling(2, 2**30, 64), 5))) == 5


# -- parts -------------------------------------------------------------------------------


@given(st.integers(0, 2**35 - 1))
def test_numbers(value):
    coded = encode_varint(value)
    assert Cursor(memoryview(coded), "test").varint() == value
    assert reference_container.number(coded, 0) == (value, len(coded))


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.integers(0, 255) | st.sampled_from([0, 255]),
    ),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_alpha_round_trip(plane, across, down):
    height, width = plane.shape
    ramp = np.add.outer(down * np.arange(height), across * np.arange(width)).astype(np.uint8)
    for each in (plane, ramp, ramp + plane % 2, np.full_like(plane, plane[0, 0])):
        payload = alpha.encode(each)
        assert np.array_equal(alpha.decode(payload, width, height), each)
        assert reference_container.alpha(payload, width, height) == each.tolist()


def test_alpha_uses_every_method():
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    planes = {0: x * 0 + 9, 1: noise % 2 * 255, 2: noise[:, :1] + 3 * x, 3: noise[:1] + 3 * y, 4: 5 * x + 3 * y}
    assert {m: alpha.encode(p.astype(np.uint8))[0] for m, p in planes.items()} == {m: m for m in planes}


def test_describe():
    content = example()
    data = container.write(content)
    found = container.describe(data)
    assert json.loads(json.dumps(found)) == found
    assert found["fingerprint"] == FINGERPRINT.hex()
    assert (found["width"], found["height"], found["maps"], found["bytes"]) == (5, 3, 3, len(data))
    assert found["metadata"] == ["icc", "exif", "xmp"] and found["alpha"] is True
    assert sum(c["bytes"] for c in found["chunks"]) + 5 == len(data)
    with pytest.raises(TruncatedFile):
        container.describe(data[:-1])
