"""Samples and palettes, written from docs/FORMAT.md ("Samples") and nothing else. Lists and plain integers."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from tests.reference_decoder import container
from tests.reference_decoder.container import RangeDecoder, inflate, require

OWN = [
    "-1,-1 -1,1 1,-1 1,1 0,-2 -2,0 -2,-2 -2,2 -1,-3 -1,3 1,-3 1,3 -3,-1 3,-1 -3,1 3,1",
    "0,-1 0,1 -1,0 1,0 0,-2 -2,0 -2,-1 -2,1 2,-1 2,1 -1,-2 -1,2 1,-2 1,2 0,-3 0,3 -3,0 3,0",
    "0,-1 0,1 -1,0 1,0 -1,-1 -1,1 1,-1 1,1 0,-2 -2,0 -1,-2 -1,2 1,-2 1,2 0,-3 0,3 -3,0 3,0",
]
OTHER = [
    "0,0 -1,-1 -1,1 1,-1 1,1 0,-2 -2,0 0,2 2,0",
    "0,0 0,-1 0,1 -1,0 1,0 0,-2 -2,0 0,2 2,0",
    "0,0 0,-1 0,1 -1,0 1,0 -1,-1 -1,1 1,-1 1,1",
]
AROUND = "0,-1 -1,0 -1,-1 -1,1 0,-2 -2,0 -2,1 -1,-2 -1,2 0,-3 -2,-1 -2,-2 -2,2 -3,0 -1,3 -1,-3 0,-4 -3,-1 -3,1"


def taps(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, pair.split(","))) for pair in text.split()]


def wrap(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


# -- tables ------------------------------------------------------------------------------

SURVIVAL, SQUASH = {}, {}
e = f = 2**32
for k in range(1025):
    SURVIVAL[k] = 2**54 // (2**32 + e)
    SURVIVAL[-k] = 2**22 - SURVIVAL[k]
    e = e * 4228378656 >> 32
for k in range(2049):
    SQUASH[k] = min(65535, 2**48 // (2**32 + f))
    SQUASH[-k] = 65536 - 2**48 // (2**32 + f)
    f = f * 4278222763 >> 32
STRETCH, k = [], -2048
for i in range(4096):
    while k < 2047 and SQUASH[k] < 16 * i + 8:
        k += 1
    STRETCH.append(k)
RATE = [131072 // (2 * n + 3) for n in range(256)]
ENDS = [2, 5, 8, 12, 17, 24, 33, 43, 56, 73, 94, 120, 153, 195, 248, 314, 398, 504, 637, 804, 1015]
while len(ENDS) < 40:
    ENDS.append(ENDS[-1] * 3 // 2)


def energy_bin(x: int) -> int:
    return sum(end <= x for end in ENDS[:39])


class Mixture:
    """Decisions from opinions, and what is learned from them."""

    def __init__(self, weight: int) -> None:
        self.sets: dict = defaultdict(lambda: [weight] * 11)
        self.counts: dict = defaultdict(lambda: [2**21, 0])

    def ask(self, decoder: RangeDecoder, first: list[int], places: list, sets: list) -> bool:
        counts = [self.counts[place] for place in places]
        opinions = [*first, *(STRETCH[p >> 10] * min(8, seen + 1) >> 3 for p, seen in counts), 77]
        found = []
        for name in sets:
            found.append(clamp(sum((w >> 2) * o for w, o in zip(self.sets[name], opinions)) >> 14, -2047, 2047))
        p = clamp(SQUASH[sum(found) >> 1], 24, 65512)
        yes = 1 - decoder.symbol([256 * p, 2**24 - 256 * p])
        for name, m in zip(sets, found):
            weights = self.sets[name]
            for i, opinion in enumerate(opinions):
                moved = weights[i] + (((65536 * yes - SQUASH[m]) * opinion + 8192) >> 14)
                weights[i] = clamp(moved, 1 - 2**18, 2**18 - 1)
        for count in counts:
            count[0] += ((2**22 - 1) * yes - count[0]) * RATE[count[1]] >> 16
            count[1] = min(60, count[1] + 1)
        return bool(yes)


class Plain(RangeDecoder):
    """A stream that is the samples: what they are answers the decisions."""

    def __init__(self, stream: bytes, size: int) -> None:
        self.samples = [int.from_bytes(stream[i : i + size], "big") for i in range(0, len(stream), size)]
        self.yes = False

    def symbol(self, frequencies: list[int]) -> int:
        return 0 if self.yes else 1


class Filter:
    def __init__(self, n: int, before: bool, g: int) -> None:
        self.n, self.size, self.g = n, -(-n // 8) * 8, g
        self.r = [[6400 if i == j and i < n else 0 for j in range(40)] for i in range(40)]
        self.b, self.w = [0] * 40, [2048] * 4 + [0] * 36
        if before:
            self.w[n - 9 : n] = [8192] + [-2048] * 4 + [0] * 4

    def raw(self, x: list[int]) -> int:
        return wrap(64 + sum(w * v for w, v in zip(self.w, x))) >> 7

    def learn(self, x: list[int], gain: int, error: int) -> None:
        half = 2 ** (self.g - 1)
        for i in range(self.n):
            weighted, row = (gain * x[i] + 32) >> 6, self.r[i]
            for j in range(self.size):
                row[j] = wrap(row[j] + weighted * x[j] - (wrap(row[j] + half) >> self.g))
        for i in range(self.size):
            taken = wrap(self.b[i] + half) >> self.g
            self.b[i] = wrap(self.b[i] + ((gain * error + 32) >> 6) * x[i] - taken)
        for _ in range(2):
            sizes = [b if b >= 0 else -1 - b for b in self.b[: self.size]]
            k = sizes.index(max(sizes))
            divisor = max(0, self.r[k][k]) + 1
            step = abs(512 * self.b[k]) // divisor * (1 if self.b[k] >= 0 else -1)
            step = clamp(step, -32768 - self.w[k], 32767 - self.w[k])
            self.w[k] += step
            for i in range(self.size):
                self.b[i] = wrap(self.b[i] - ((step * self.r[k][i] + 256) >> 9))


class Pass:
    def __init__(self, channel: int, number: int) -> None:
        n = len(taps(OWN[number])) + 9 * min(channel, 2)
        self.filters = [Filter(n, channel > 0, g) for g in (7, 12)]
        scales = []
        for b in range(40):
            scales.append(256 * (64 + 16 * 2 ** (b // 3) * (3 + b % 3) // 3) if b < 24 else scales[-1] // 2 * 3)
        self.s = [[[s, 0] for s in scales] for _ in range(2)]
        self.bias: list = [defaultdict(int), defaultdict(int)]


class Channel:
    """One channel of a tile."""

    def __init__(self, tile: Tile, c: int) -> None:
        self.tile, self.c = tile, c
        self.passes = [Pass(c, number) for number in range(3)]
        self.mixture = Mixture(16384)
        size = range(tile.height)
        self.values, self.q, self.h = ([[0] * tile.width for _ in size] for _ in range(3))

    def first(self, decoder: RangeDecoder) -> None:
        if isinstance(decoder, Plain):
            self.values[0][0] = decoder.samples.pop(0)
            return
        for _ in range(self.tile.d):
            self.values[0][0] = 2 * self.values[0][0] + 1 - decoder.symbol([2**23, 2**23])

    def sample(self, decoder: RangeDecoder, half: int, number: int, y: int, x: int) -> None:
        tile, c, d = self.tile, self.c, self.tile.d
        model, channels = self.passes[number], tile.channels

        def at(plane: list, tap: tuple, absent: int) -> int:
            row, column = y + tap[0] * half, x + tap[1] * half
            return plane[row][column] if 0 <= row < tile.height and 0 <= column < tile.width else absent

        own = taps(OWN[number])
        certain = at(self.values, own[2 if number == 2 else 0], 0)
        v = [at(self.values, tap, certain) for tap in own[:4]]
        total = sum(v)
        mean = (total + 2) >> 2
        v += [at(self.values, tap, mean) for tap in own[4:]]
        differences, here = [value - mean for value in v], []
        for other in channels[max(0, c - 2) : c]:
            here.append(other.values[y][x])
            near = [at(other.values, tap, here[-1]) for tap in taps(OTHER[number])]
            differences += [value - ((sum(near[1:5]) + 2) >> 2) for value in near]
        largest, r = max(map(abs, differences)), 0
        while largest >> r > 255:
            r += 1
        xs = [difference >> r for difference in differences]
        xs += [0] * (40 - len(xs))
        top = 64 * (2**d - 1)
        raw = [64 * mean + 2**r * each.raw(xs) for each in model.filters]
        mu = [clamp(value, 0, top) for value in raw]

        def q(*tap: int) -> int:
            return at(self.q, tap, 0)

        near = 2 * q(0, -2) + 2 * q(-2, 0) + q(-2, 2) + q(-2, -2)
        errors = (
            4 * near // 6,
            4 * (2 * near + 3 * q(-1, 0) + 3 * q(1, 0)) // 18,
            4 * (2 * near + 3 * (q(-1, 0) + q(1, 0) + q(0, -1) + q(0, 1))) // 24,
        )[number]
        spread = sum(abs(4 * value - total) for value in v[:4])
        before = [4 * other.q[y][x] for other in channels[max(0, c - 2) : c]]
        others = sum(before) // len(before) if before else errors // 2
        expected = (77 * errors + 16 * spread + 64 * others) >> 7
        b = energy_bin(expected)
        scales = [max(each[b][0] >> 8, 46) for each in model.s]
        least = min(scales)
        p = [(1024 * least // scale) ** 2 for scale in scales]
        blend = (p[0] * mu[0] + p[1] * mu[1]) // (p[0] + p[1])
        contexts = [
            16 * b + (clamp((channels[c - 1].h[y][x] + 32) >> 2, 0, 15) if c else mean >> (d - 4)),
            sum((64 * v[i] > blend) * 2**i for i in range(8)),
        ]
        corrected = clamp(blend + ((model.bias[0][contexts[0]] + model.bias[1][contexts[1]]) >> 9), 0, top)
        centre = (corrected + 32) >> 6

        # Decisions.
        told = decoder.samples.pop(0) if isinstance(decoder, Plain) else 0
        t = (tile.bound * {1: 4, 2: 3, 4: 2}.get(half, 1) + 2) // 4
        s, bucket = 2 * t + 1, 0
        while bucket < d - 2 and 7680 * s * 2**bucket < 13 * least:
            bucket += 1
        z, u, zero = min(bucket, 3), s * 2**bucket, centre - t
        inverses = [1613193 * 65536 // scale for scale in (*scales, least)]
        inverses.append(2 * inverses[2] // 3)

        def above(bound: int) -> list[int]:
            if bound <= 0 or bound >= 2**d:
                return [2**22 if bound <= 0 else 0] * 4
            centres = *mu, corrected, blend
            return [SURVIVAL[clamp((m - 64 * bound + 32) * i >> 28, -1023, 1023)] for m, i in zip(centres, inverses)]

        def level(tap: tuple) -> int:
            return min(15, 2 * energy_bin(4 * q(*tap)) // 3)

        exact = number
        for value in v[:4]:
            exact = 271 * exact + value
        for value in here:
            exact = 517 * exact + value
        g, f = (here[-1], here[0] if c > 1 else mean) if c else (v[0], v[1])
        keys = exact * 0x9E3779B1, (number * 65536 + 256 * g + f) * 0x85EBCA6B
        lines = [(key + z * 0x9E3779B1) * 0xC2B2AE35 % 2**32 >> 18 for key in keys]
        tables = (
            16 * level((0, -2)) + level((-2, 0)), contexts[1], 4 * energy_bin(spread) + min(3, b // 6), centre >> (d - 8)
        )  # fmt: skip

        def decide(node: int, low: int, middle: int, high: int) -> bool:
            opinions = []
            if isinstance(decoder, Plain):
                decoder.yes = told >= middle
            for a, m, e in zip(above(low), above(middle), above(high)):
                opinions.append(STRETCH[2048 if a - e < 16 else min(4095, 4096 * (m - e) // (a - e))])
            places = [(number, 16 * z + node, i, table) for i, table in enumerate(tables)]
            places += [(node, "line", i, line) for i, line in enumerate(lines)]
            return self.mixture.ask(decoder, opinions, places, [(number, z, node), (number, z, node, b)])

        i, end = 0, 2**d
        if zero > 0 and not decide(0, 0, zero, end):
            high, search = zero, 11
            while True:
                low = high - u
                if low <= 0:
                    low = high
                    while low > 0:
                        low -= s
                    break
                if decide(7 + min(i, 3), 0, low, high):
                    break
                high, u, i = low, u * (2 if i >= 3 else 1), i + 1
        else:
            low, search = zero, 6
            while True:
                high = low + u
                if high >= end:
                    high = low
                    while high < end:
                        high += s
                    break
                if not decide(1 + min(i, 4), low, high, end):
                    break
                low, u, i = high, u * (2 if i >= 3 else 1), i + 1
        intervals = (high - low) // s
        while intervals > 1:
            middle = low + intervals // 2 * s
            if decide(search, low, middle, high):
                low, intervals = middle, intervals - intervals // 2
            else:
                high, intervals = middle, intervals // 2
        value = clamp(low + t, 0, 2**d - 1)

        # Learning.
        self.values[y][x] = value
        error = 64 * value - corrected
        self.q[y][x] = min(65535, (abs(error) + 8) >> 4)
        self.h[y][x] = clamp((error + 16) >> 5, -127, 127)
        for each, m in zip(model.s, mu):
            off = min(abs(64 * value - m), 2**20) * 1024 - each[b][0]
            each[b] = [each[b][0] + ((off * RATE[each[b][1]] + 32768) >> 16), min(255, each[b][1] + 1)]
        for biases, context in zip(model.bias, contexts):
            biases[context] += ((64 * value - blend) * 256 - biases[context] + 128) >> 8
        size = min(255, max(largest, abs(value - mean)) >> r)
        calm = min(2**14, expected >> r)
        gain = clamp(min(131072 // (64 + (calm**2 >> 4)), 2**26 // max(1, size**2)), 1, 2048)
        for each, prediction in zip(model.filters, raw):
            off = clamp((64 * value - prediction + 2 ** (1 + r)) >> (2 + r), -1023, 1023)
            each.learn(xs, gain, off)


class Tile:
    def __init__(self, height: int, width: int, channels: int, d: int, bound: int) -> None:
        self.height, self.width, self.d, self.bound = height, width, d, bound
        self.channels: list[Channel] = []
        for c in range(channels):
            self.channels.append(Channel(self, c))

    def passes(self) -> list[tuple[int, int, int]]:
        """half, pass and map."""
        half, found = 1, []
        while half < max(self.height, self.width):
            half *= 2
        while half > 1:
            half //= 2
            for number in range(3):
                found.append((half, number, 0 if half >= 8 else {4: 1, 2: 2}.get(half, 3 + number)))
        return found

    def decode(self, maps: list[list[bytes]]) -> None:
        for c, channel in enumerate(self.channels):
            decoders = []
            for m, streams in enumerate(maps):
                size = self.count(m, len(maps)) * self.d // 8
                require(len(streams[c]) <= size, "a stream is no longer than the samples")
                plain = 0 < len(streams[c]) == size
                decoders.append(Plain(streams[c], self.d // 8) if plain else RangeDecoder(streams[c]))
            channel.first(decoders[0])
            for half, number, m in self.passes():
                for y in range(0 if number == 1 else half, self.height, 2 * half):
                    for x in range(0 if number == 2 else half, self.width, 2 * half):
                        channel.sample(decoders[m if len(maps) > 1 else 0], half, number, y, x)

    def count(self, m: int, maps: int) -> int:
        """Samples of a channel in a map."""
        found = m == 0
        for half, number, of in self.passes():
            if maps == 1 or of == m:
                rows = len(range(0 if number == 1 else half, self.height, 2 * half))
                found += rows * len(range(0 if number == 2 else half, self.width, 2 * half))
        return int(found)


def palette(stream: bytes, height: int, width: int, channels: int) -> list[list[list[int]]]:
    """Rows of pixels."""
    count, at = container.number(stream, 0)
    size, at = container.number(stream, at)
    require(1 <= count <= 4096, "a palette has 1 to 4096 colours")
    steps = inflate(stream[at : at + size], count * channels)
    require(len(steps) == count * channels, "a palette has all its colours")
    planes = []
    for c in range(channels):
        value, plane = 0, []
        for step in steps[c * count : (c + 1) * count]:
            value = (value + step) % 256
            plane.append(value)
        planes.append(plane)
    bits = 0
    while 2**bits < count:
        bits += 1
    decoder, mixture = RangeDecoder(stream[at + size :]), Mixture(21845)
    rows = [[0] * width for _ in range(height)]

    def mix(h: int) -> int:
        return (h ^ h >> 15) * 0xC2B2AE35 % 2**32

    def hashed(values: list[int], factor: int) -> int:
        h = 1
        for value in values:
            h = (h + value + 1) * factor % 2**32
        return mix(h)

    for y in range(height):
        for x in range(width):
            u = [rows[y + dy][x + dx] if y + dy >= 0 and 0 <= x + dx < width else 0 for dy, dx in taps(AROUND)]
            lines = [hashed(u[:n], 0x9E3779B1) >> 17 for n in (2, 4, 6, 11, 19)]
            lines.append(hashed([u[i] for i in (1, 2, 3, 5, 8, 13)], 0x85EBCA6B) >> 17)
            pattern = (u[1] == u[0]) + 2 * (u[2] == u[0]) + 4 * (u[3] == u[1]) + 8 * (u[2] == u[1])
            for i in range(4):
                if u[i] in u[:i]:
                    continue
                places = [(c, line, i) for c, line in enumerate(lines)]
                if mixture.ask(decoder, [], places, [(i,), (i, pattern)]):
                    rows[y][x] = u[i]
                    break
            else:
                f = 1
                g = [0, u[0], u[1], u[3], 65536 * u[0] + u[1], hashed(u[:6], 0x9E3779B1)]
                for left in reversed(range(bits)):
                    places = []
                    for c in range(6):
                        key = (g[c] * 0x9E3779B1 + f) * 0x85EBCA6B % 2**32
                        places.append((c, mix(key) >> 17, 4))
                    f = 2 * f + mixture.ask(decoder, [], places, [(4,), (4, left)])
                rows[y][x] = f - 2**bits
                require(rows[y][x] < count, "an index is below the number of colours")
    return [[[planes[c][index] for c in range(channels)] for index in row] for row in rows]


def decode(found: dict) -> list[list[list[int]]]:
    """Rows of pixels of a file that the container's reader has read."""
    require(found["flags"] & 2, "the image must be coded as samples")
    channels, d = 1 if found["flags"] & 1 else 3, 16 if found["flags"] & 4 else 8
    width, height = found["width"], found["height"]
    side = found["tile"] or max(width, height)
    picture: list = [[[0] * channels for _ in range(width)] for _ in range(height)]
    number_of_tile = 0
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = min(side, height - top), min(side, width - left)
            maps = [
                list(streams[number_of_tile * channels : (number_of_tile + 1) * channels])
                for streams in found["streams"]
            ]
            kind, maps[0][0] = maps[0][0][0], maps[0][0][1:]
            if kind == 1:
                pixels = palette(maps[0][0], rows, columns, channels)
            else:
                tile = Tile(rows, columns, channels, d, found["bound"])
                tile.decode(maps)
                order = [0] if channels == 1 else [1, 0, 2]  # green comes first
                pixels = [[[tile.channels[c].values[y][x] for c in order] for x in range(columns)] for y in range(rows)]
            for y in range(rows):
                picture[top + y][left : left + columns] = pixels[y]
            number_of_tile += 1
    flat = [value for row in picture for pixel in row for value in pixel]
    content = b"".join(value.to_bytes(d // 8, "big") for value in flat)
    require(found["digest"] in (None, hashlib.sha256(content).digest()[:16]), "the digest must agree")
    return picture
