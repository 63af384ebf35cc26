"""vqcodec/format/reader.py: parts of a file, and files that arrive piece by piece, are what ``container.read`` reads."""

from __future__ import annotations

import contextlib
import io
import itertools
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.format.test_container import (
    BROKEN,
    END,
    HEADER,
    MAP,
    chunk,
    containers,
    damage,
    equal,
    example,
    file_of,
    header,
)
from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument, LimitExceeded, NotVqcodec, TruncatedFile
from vqcodec.format import container, framing
from vqcodec.format.chunks import OF_TAG
from vqcodec.format.container import Container, Limits
from vqcodec.format.parser import Parser
from vqcodec.format.reader import Reader


def tiled() -> Container:
    """A small file with two tiles and a chunk of most kinds."""
    plane = np.full((3, 100), 9, np.uint8)
    return Container(header(width=100, tile=64, maps=2), {"exif": b"E"}, [[b"a", b"bcd"], [b"", b"e"]], plane)


def content(reader: Reader) -> Container:
    return Container(reader.header, reader.metadata(), reader.streams(), reader.alpha(), reader.error)


def parsed(parser: Parser) -> Container:
    assert parser.header is not None
    return Container(parser.header, parser.metadata, parser.maps, parser.alpha)


def failure(function: Callable[..., object], *arguments: object, **options: object) -> tuple[type, str] | None:
    """Type and message of the error that a call raises, which must be a ``FormatError``."""
    try:
        function(*arguments, **options)
    except FormatError as error:
        return type(error), str(error)
    return None


def verify(data: bytes, **options) -> None:
    Reader(io.BytesIO(data), **options).verify()


def parse(data: bytes, **options) -> None:
    parser = Parser(**options)
    parser.feed(data)
    parser.close()


# -- reading parts -----------------------------------------------------------------------


@pytest.mark.slow
@given(containers())
def test_reader_reads_what_was_written(written):
    data = container.write(written)
    for source in (data, io.BytesIO(data), memoryview(data)):
        for partial in (False, True):
            reader = Reader(source, partial=partial)
            assert equal(content(reader), written)
            reader.verify()
            assert equal(content(reader), written) and reader.error is None
            assert reader.chunks == list(container.chunks(data))
            assert [bytes(c.payload) for c in reader.chunks] == [bytes(c.payload) for c in container.chunks(data)]


@pytest.mark.slow
@given(containers(), st.data())
def test_streams_of_some_tiles(written, data):
    tiles = data.draw(st.lists(st.integers(0, written.header.tiling.count - 1), max_size=5))
    maps = data.draw(st.integers(0, written.header.maps))
    reader = Reader(io.BytesIO(container.write(written)))
    assert reader.streams(iter(tiles), maps) == [[streams[t] for t in tiles] for streams in written.maps[:maps]]
    assert reader.streams(maps=maps) == written.maps[:maps]
    assert reader.streams(tiles) == [[streams[t] for t in tiles] for streams in written.maps]


class Recording(io.BytesIO):
    """Records which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.touched: set[int] = set()

    def read(self, size=-1):
        start = self.tell()
        found = super().read(size)
        self.touched |= set(range(start, start + len(found)))
        return found


def spread(*ranges: tuple[int, int]) -> set[int]:
    return {at for start, size in ranges for at in range(start, start + size)}


def many_tiles() -> Container:
    rng = np.random.default_rng(0)
    streams = [[rng.bytes(int(size)) for size in rng.integers(0, 300, 16 * 16)] for _ in range(3)]
    plane = rng.integers(0, 256, (1000, 1000), dtype=np.uint8)
    return Container(header(width=1000, height=1000, tile=64), {"icc": rng.bytes(9000)}, streams, plane)


@pytest.mark.slow
def test_one_tile_touches_only_heads_indexes_and_its_streams():
    written = many_tiles()
    data = container.write(written)
    found = {c.name: c for c in container.chunks(data)}
    file = Recording(data)
    reader = Reader(file)
    heads = spread((0, 5), (5, found["header"].size), *((c.offset, 6) for c in found.values()))
    assert file.touched == heads

    file.touched.clear()
    assert reader.streams([17], 2) == [[written.maps[0][17]], [written.maps[1][17]]]
    where = []
    for number in (0, 1):
        payload, sizes = found[f"map {number}"], [len(s) for s in written.maps[number]]
        index = payload.end - payload.start - sum(sizes)
        where += [(payload.start, index), (payload.start + index + sum(sizes[:17]), sizes[17])]
    assert file.touched == spread(*where)

    file.touched.clear()
    assert reader.streams([17], 2) == [[written.maps[0][17]], [written.maps[1][17]]]
    assert file.touched == spread(where[1], where[3])  # the indexes are kept

    file.touched.clear()
    assert reader.metadata() == written.metadata
    assert file.touched == spread((found["ICC profile"].offset, found["ICC profile"].size))

    reader.verify()
    assert file.touched == set(range(len(data)))


def test_coarser_maps_of_one_tile_touch_no_finer_map():
    written = example()
    file = Recording(container.write(written))
    found = {c.name: c for c in container.chunks(file.getvalue())}
    reader = Reader(file)
    file.touched.clear()
    assert reader.streams(maps=2) == written.maps[:2]
    assert file.touched == spread(*((c.offset, c.size) for c in (found["map 0"], found["map 1"])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2],), "tile must be an integer from 0 to 1, got 2"),
        (([-1],), "tile must be .* got -1"),
        ((["0"],), "tile must be .* got '0'"),
        ((None, 3), "maps must be an integer from 0 to 2, got 3"),
        ((None, -1), "maps must be"),
    ],
)
def test_streams_refuses(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Reader(container.write(tiled()), partial=True).streams(*arguments)


def test_sources(tmp_path):
    path = tmp_path / "x.vqc"
    path.write_bytes(container.write(tiled()))
    with path.open("rb") as file:
        file.seek(7)
        assert equal(content(Reader(file)), tiled())
    with path.open("rb", buffering=0) as raw:
        assert equal(content(Reader(raw)), tiled())
    with path.open(encoding="latin-1") as text, pytest.raises(InvalidArgument, match="binary file, got one of text"):
        Reader(text)
    for nothing in ("x.vqc", None, 7):
        with pytest.raises(InvalidArgument, match="bytes-like or a binary file that can seek, got"):
            Reader(nothing)


def test_files_that_give_little_at_a_time():
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3) if size > 0 else size)

    assert equal(content(Reader(Slow(container.write(example())))), example())


@pytest.mark.parametrize("partial", [False, True])
def test_a_file_that_shrinks(partial):
    file = io.BytesIO(container.write(many_tiles()))
    reader = Reader(file, partial=partial)
    file.truncate(next(c for c in reader.chunks if c.name == "map 1").offset + 5000)
    if partial:
        assert len(reader.streams()) == 1 and isinstance(reader.error, TruncatedFile)
    else:
        with pytest.raises(TruncatedFile, match="^file: .* bytes expected at byte"):
            reader.streams()


# -- damage ------------------------------------------------------------------------------


def check_reader(damaged: bytes, written: Container, choices: tuple = (None, [0])) -> None:
    """What is read from these tiles is correct or a typed error; with ``partial`` a correct part, without an error."""
    source = io.BytesIO(damaged)
    for tiles in choices:
        wanted = [streams if tiles is None else [streams[t] for t in tiles] for streams in written.maps]
        with contextlib.suppress(FormatError):
            assert Reader(source).streams(tiles) == wanted
        try:
            reader = Reader(source, partial=True)
        except FormatError:
            with pytest.raises(FormatError):
                container.read_header(damaged)
            continue
        streams = reader.streams(tiles)
        assert streams == wanted[: len(streams)]
        assert reader.metadata().items() <= written.metadata.items()
        assert reader.alpha() is None or np.array_equal(reader.alpha(), written.alpha)
        assert reader.streams(tiles) in (streams, [])


def check_equals_read(damaged: bytes) -> None:
    """``verify`` raises what ``container.read`` raises, and with ``partial`` leaves the same."""
    assert failure(verify, damaged) == failure(container.read, damaged)
    try:
        found = container.read(damaged, partial=True)
    except FormatError:
        assert failure(Reader, damaged, partial=True) == failure(container.read, damaged, partial=True)
        return
    reader = Reader(damaged, partial=True)
    reader.verify()
    assert equal(content(reader), found)
    assert (type(reader.error), str(reader.error)) == (type(found.error), str(found.error))


@pytest.mark.slow
@pytest.mark.parametrize("written", [example(), tiled()], ids=["one tile", "two tiles"])
def test_every_truncation(written):
    data = container.write(written)
    for size in range(len(data)):
        check_reader(data[:size], written)
        check_equals_read(data[:size])
        assert failure(Reader, data[:size]) == failure(container.read, data[:size])
        assert failure(parse, data[:size]) == failure(container.read, data[:size])


@pytest.mark.slow
def test_every_changed_byte():
    written = tiled()
    data = container.write(written)
    for at, value in itertools.product(range(len(data)), range(256)):
        if value != data[at]:
            check_reader(data[:at] + bytes([value]) + data[at + 1 :], written, ([1],))


@pytest.mark.slow
@pytest.mark.parametrize("written", [example(), tiled()], ids=["one tile", "two tiles"])
def test_every_changed_bit(written):
    data = container.write(written)
    for at, bit in itertools.product(range(len(data)), range(8)):
        damaged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        check_reader(damaged, written)
        check_equals_read(damaged)
        parser_finds(damaged)
        if failure(Reader, damaged):
            assert failure(Reader, damaged) == failure(container.read, damaged)


def parser_finds(damaged: bytes) -> None:
    """The error of ``container.read``, or, for a length beyond the end of the file, that of the limits."""
    expected, found = failure(container.read, damaged), failure(parse, damaged)
    assert found == expected or (found[0], expected[0]) == (LimitExceeded, TruncatedFile)


@st.composite
def damages(draw) -> bytes:
    """A file with a few bytes changed, added or taken away, or whole chunks moved."""
    data = container.write(draw(containers()))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["change", "tag", "add", "cut", "end", "swap"]))
        ends = (
            [0, *(c.offset for c in Reader(data).chunks), len(data)]
            if failure(Reader, data) is None
            else [0, len(data)]
        )
        at = draw(st.sampled_from(ends[:-1]) if kind == "tag" else st.integers(0, len(data)))
        if kind == "swap":
            a, b = sorted(draw(st.tuples(st.sampled_from(ends), st.sampled_from(ends))))
            data = data[:a] + data[b:] + data[a:b]
        elif kind == "tag":
            data = data[:at] + draw(st.sampled_from([b"H", b"i", b"e", b"x", b"M", b"A", b"Z", b"n"])) + data[at + 1 :]
        elif kind == "end":
            data = data[:at]
        else:
            data = (
                data[:at]
                + (b"" if kind == "cut" else draw(st.binary(min_size=1, max_size=3)))
                + data[at + (kind != "add") :]
            )
    return data


@pytest.mark.slow
@given(damages())
def test_any_damage(damaged):
    check_equals_read(damaged)
    parser_finds(damaged)
    for source in (damaged, io.BytesIO(damaged)):
        try:
            reader = Reader(source, partial=True)
        except FormatError:
            continue
        assert len(reader.streams()) == reader.header.maps or reader.error
        reader.metadata(), reader.alpha(), reader.streams([0])


@given(st.binary(max_size=100))
def test_any_bytes(tail):
    for data in (tail, file_of(tail), file_of(HEADER, tail), file_of(HEADER, chunk("M", tail), chunk("A", tail), END)):
        check_equals_read(data)
        parser_finds(data)


@pytest.mark.parametrize(("data", "error", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_same_errors(data, error, message):
    check_equals_read(data)
    parser_finds(data)


def test_partial_keeps_maps_before_the_damage():
    data = damage(container.write(many_tiles()), "map 1")  # in the last tile
    reader = Reader(data, partial=True)
    assert len(reader.streams([0])) == 3 and reader.error is None  # as far as this tile tells
    assert len(reader.streams([255])) == 1
    assert isinstance(reader.error, CorruptChunk) and reader.error.chunk == "map 1"
    assert [c.tag for c in reader.chunks] == list("HiM") and reader.alpha() is None
    assert reader.streams() == many_tiles().maps[:1]
    with pytest.raises(CorruptChunk, match="map 1: tile 255: CRC-32 must be"):
        Reader(data).streams([255])


def test_partial_drops_damaged_metadata_alone():
    reader = Reader(damage(container.write(example()), "EXIF"), partial=True)
    assert reader.metadata() == {k: v for k, v in example().metadata.items() if k != "exif"}
    assert reader.streams() == example().maps and np.array_equal(reader.alpha(), example().alpha)
    assert reader.error.chunk == "EXIF"


@pytest.mark.parametrize("tag", [b"i", b"e", b"x", b"n"])
def test_partial_takes_no_map_for_its_predecessor(tag):
    """Map 0 looks like something else, and the count that would show it is cut off."""
    data = damage(container.write(example()), "map 0", tag)
    for part in (data, data[:-1], data[:-8]):
        assert Reader(part, partial=True).streams() == []


def test_verify_checks_what_lazy_reading_does_not():
    files = [
        damage(container.write(many_tiles()), "alpha"),
        damage(container.write(many_tiles()), "map 2"),
        file_of(HEADER, damage_note := chunk("n", b"a")[:-1] + b"!", MAP, END),
        file_of(HEADER, MAP, chunk("A", b"\1" + zlib.compress(bytes(14))), END),
        file_of(HEADER, MAP, chunk("A", b"\1" + zlib.compress(bytes(16))), END),
        file_of(HEADER, MAP, chunk("A", b"\7"), END),
        file_of(HEADER, chunk("i", zlib.compress(b"x") + b"x"), MAP, END),
        file_of(chunk("H", header(width=65, tile=64, maps=1).to_bytes()), chunk("M", bytes(5) + b"\1abcde"), END),
    ]
    assert len(damage_note) == 7
    for data in files:
        reader = Reader(data)
        reader.streams([0])
        assert failure(reader.verify) == failure(container.read, data) is not None


def test_opening_checks_header_and_end():
    data = container.write(many_tiles())
    for damaged in (damage(data, "header"), data[:-1] + b"!", data + b"!"):
        assert failure(Reader, damaged) == failure(container.read, damaged) is not None


# -- limits and memory -------------------------------------------------------------------


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
    verify(data, limits=exact)
    parse(data, limits=exact)
    for read in (verify, parse):
        with pytest.raises(LimitExceeded, match=message):
            read(data, limits=limits)


@pytest.mark.parametrize("tag", list("iexAMZn"))
def test_chunks_that_are_too_long(tag):
    """Compared with their limits; the parser need not see their bytes for that."""
    data = file_of(HEADER, *[MAP] * (tag in "AZ"), chunk(tag, bytes(1200)), END)
    limits = Limits(metadata=60, map_bytes=1100)
    for read in (container.read, verify, parse):
        with pytest.raises(LimitExceeded, match="at most 1[0-9]{3} bytes are allowed, found 1200"):
            read(data, limits=limits)
    parser = Parser(limits=limits)
    with pytest.raises(LimitExceeded, match="found 1200"):
        parser.feed(data[: data.index(tag.encode() + b"\xb0\x09") + 3])


def peak(function: Callable[[], object]) -> int:
    tracemalloc.start()
    function()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.slow
def test_verify_needs_little_memory(tmp_path):
    """A plane of 16 MB, a stream of 16 MB, one of zeros that inflates to more than it may."""
    sides = dict(width=4096, height=4096, tile=2048, maps=1)
    streams = [bytes(4), bytes(16 << 20), b"", b""]
    path = tmp_path / "x.vqc"
    path.write_bytes(container.write(Container(header(**sides), {}, [streams], np.eye(4096, dtype=np.uint8))))
    with path.open("rb") as file:
        Reader(file).alpha()  # loads NumPy
        assert peak(lambda: Reader(file).verify()) < 4 << 20
    bomb = chunk("A", b"\1" + zlib.compress(bytes(100_000_000)))
    data = file_of(chunk("H", header(**sides | {"maps": 0}).to_bytes()), bomb, END)
    assert peak(lambda: failure(Reader(data).verify)) < 4 << 20
    assert failure(Reader(data).verify) == (CorruptChunk, f"alpha: must hold {4096 * 4096} bytes, found more")


def test_lengths_alone_cost_nothing():
    head = chunk("H", header(width=2**30, height=2, tile=64, maps=1).to_bytes())
    for data in (file_of(b"H\xff\xff\xff\xff\x7f"), file_of(head, b"M\xff\xff\xff\x7f"), file_of(head, MAP, END)):
        for read in (verify, parse, lambda data: Reader(data).streams([5])):
            assert peak(lambda: failure(read, data)) < 1 << 18
            assert failure(read, data)


# -- files that arrive -------------------------------------------------------------------


@given(containers(), st.data())
def test_parser_reads_what_was_written(written, data):
    file = container.write(written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(file)), max_size=9)))
    parser = Parser()
    for start, end in zip([0, *cuts], [*cuts, len(file)], strict=True):
        assert not parser.finished or start == end
        parser.feed(memoryview(file)[start:end])
    parser.close()
    assert parser.finished and equal(parsed(parser), written)


@pytest.mark.parametrize("written", [example(), tiled()], ids=["one tile", "two tiles"])
def test_parser_has_every_chunk_with_its_last_byte(written):
    data = container.write(written)
    ends = {c.offset + c.size: c for c in container.chunks(data)}
    parser, whole = Parser(), []
    for at in range(len(data)):
        parser.feed(bytearray(data[at : at + 1]))
        if at + 1 in ends:
            whole.append(ends[at + 1].tag)
        assert (parser.header is not None) == ("H" in whole)
        assert list(parser.metadata) == [OF_TAG[t].key for t in whole if t in "iex"]
        assert parser.maps == written.maps[: whole.count("M")]
        assert (parser.alpha is not None) == ("A" in whole)
        assert parser.finished == ("Z" in whole)
    assert equal(parsed(parser), written)


@pytest.mark.slow
@given(damages(), st.data())
def test_parser_finds_the_same_damage_however_it_is_fed(damaged, data):
    """And keeps the same; only the byte counts in the message may differ (missing, surplus)."""

    def run(pieces: list[bytes]) -> tuple:
        parser = Parser()
        error: FormatError | None = None
        try:
            for piece in pieces:
                parser.feed(piece)
            parser.close()
        except FormatError as raised:
            error = raised
            with pytest.raises(type(error)):
                parser.feed(b"more")
            assert not parser.finished
        alpha = None if parser.alpha is None else parser.alpha.tolist()
        return type(error), getattr(error, "chunk", None), parser.header, parser.metadata, parser.maps, alpha

    cuts = sorted(data.draw(st.lists(st.integers(0, len(damaged)), max_size=9)))
    whole = run([damaged])
    assert run([damaged[a:b] for a, b in zip([0, *cuts], [*cuts, len(damaged)], strict=True)]) == whole
    assert run([damaged[at : at + 1] for at in range(min(len(damaged), 300))] + [damaged[300:]]) == whole


def test_parser_of_a_truncated_file():
    written = example()
    data = container.write(written)
    end_of_map_1 = next(c for c in container.chunks(data) if c.name == "map 2").offset
    parser = Parser()
    parser.feed(data[: end_of_map_1 + 3])
    assert parser.maps == written.maps[:2] and parser.metadata == written.metadata and not parser.finished
    with pytest.raises(TruncatedFile, match="^map 2: 6 bytes expected, 1 found"):
        parser.close()
    with pytest.raises(TruncatedFile):
        parser.feed(data[end_of_map_1 + 3 :])
    with pytest.raises(NotVqcodec, match="found nothing"):
        Parser().close()


def test_parser_refuses_what_follows_the_end():
    parser = Parser()
    parser.feed(container.write(example()))
    parser.feed(b"")
    assert parser.finished
    with pytest.raises(CorruptChunk, match="end: must end here, found 1 more bytes"):
        parser.feed(b"!")
    assert not parser.finished and parser.maps == example().maps
    with pytest.raises(InvalidArgument, match="bytes-like, got str"):
        Parser().feed("x")


def test_parser_holds_one_chunk_and_looks_at_it_once(monkeypatch):
    notes = [chunk("n", bytes(1 << 18))] * 30
    data = file_of(HEADER, *notes, MAP, END)
    assert (
        peak(lambda: [parser := Parser(), *(parser.feed(data[at : at + 1000]) for at in range(0, len(data), 1000))])
        < 2 << 20
    )

    looks = []
    for name in ("head", "judge"):
        method = getattr(framing.Order, name)
        monkeypatch.setattr(
            framing.Order, name, lambda *a, method=method, name=name: (looks.append(name), method(*a))[1]
        )
    parser = Parser()
    for at in range((1 << 18) + 300):
        parser.feed(data[at : at + 1])
    assert looks.count("judge") == 2 and looks.count("head") <= 3 * 7
