#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "coding/range_decoder.h"
#include "coding/range_encoder.h"

namespace vqcodec {
namespace {

struct Interval {
  std::uint32_t start;
  std::uint32_t frequency;
};

// Decodes symbols with known intervals; the number of those whose interval holds the quantile.
int decode(const std::vector<std::uint8_t>& stream, const std::vector<Interval>& symbols) {
  RangeDecoder decoder(stream.data(), stream.size());
  int found = 0;
  for (const Interval& symbol : symbols) {
    const std::uint64_t quantile = decoder.quantile();
    found += quantile >= symbol.start && quantile - symbol.start < symbol.frequency;
    decoder.consume(symbol.start, symbol.frequency);
  }
  return found;
}

}  // namespace

// Streams that constriction's RangeEncoder wrote (tests/ops/test_prior.py compares many more).
TEST(range_decoder_golden_streams) {
  CHECK_EQ(decode({0x10}, {{0, 4194304}, {4194304, 4194304}}), 2);

  // 40 symbols (start, frequency) = (s, 1) with s = 419430 * i: 24 bits each.
  std::vector<Interval> rare;
  for (std::uint32_t i = 0; i < 40; ++i) rare.push_back({419430 * i, 1});
  const std::vector<std::uint8_t> golden = {
      0x00, 0x00, 0x00, 0x06, 0x66, 0x5f, 0xa6, 0x66, 0xbf, 0x46, 0x67, 0x1e, 0xe6, 0x67, 0x7e,
      0x86, 0x67, 0xde, 0x26, 0x68, 0x3d, 0xc6, 0x68, 0x9d, 0x66, 0x68, 0xfd, 0x06, 0x69, 0x5c,
      0xa6, 0x69, 0xbc, 0x46, 0x6a, 0x1b, 0xe6, 0x6a, 0x7b, 0x86, 0x6a, 0xdb, 0x26, 0x6b, 0x3a,
      0xc6, 0x6b, 0x9a, 0x66, 0x6b, 0xfa, 0x06, 0x6c, 0x59, 0xa6, 0x6c, 0xb9, 0x46, 0x6d, 0x18,
      0xe6, 0x6d, 0x78, 0x86, 0x6d, 0xd8, 0x26, 0x6e, 0x37, 0xc6, 0x6e, 0x97, 0x66, 0x6e, 0xf7,
      0x06, 0x6f, 0x56, 0xa6, 0x6f, 0xb6, 0x46, 0x70, 0x15, 0xe6, 0x70, 0x75, 0x86, 0x70, 0xd5,
      0x26, 0x71, 0x34, 0xc6, 0x71, 0x94, 0x66, 0x71, 0xf4, 0x06, 0x72, 0x53, 0xa6, 0x72, 0xb3,
      0x46, 0x73, 0x12, 0xe6, 0x73, 0x72, 0x86, 0x73, 0xd2, 0x26, 0x74, 0x31, 0xc6, 0x74, 0x91};
  CHECK_EQ(decode(golden, rare), 40);
}

TEST(range_decoder_past_the_end_reads_zeros) {
  RangeDecoder empty(nullptr, 0);
  for (int i = 0; i < 100; ++i) {
    CHECK_EQ(empty.quantile(), 0u);
    empty.consume(0, 1);
  }
}

// Whatever the stream holds, the decoder goes on, and its state stays usable.
TEST(range_decoder_survives_any_stream) {
  std::mt19937 random(1);
  int invalid = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint8_t> stream(random() % 40);
    for (std::uint8_t& byte : stream) {
      byte = static_cast<std::uint8_t>(round % 3 == 0 ? 255 : random());
    }
    RangeDecoder decoder(stream.data(), stream.size());
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t quantile = decoder.quantile();
      if (quantile >= RangeDecoder::total) {
        ++invalid;
        break;
      }
      const auto start = static_cast<std::uint32_t>(quantile);
      const std::uint32_t room = RangeDecoder::total - start;
      decoder.consume(start, 1 + static_cast<std::uint32_t>(random()) % room);
    }
  }
  CHECK(invalid > 0);
}

// What an encoder wrote comes back, carries through runs of 0xff included.
TEST(range_coder_round_trip) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    std::vector<Interval> symbols(random() % 100);
    for (Interval& symbol : symbols) {
      // The last of 2^24 with a small part of it keeps the lower end near a carry.
      const std::uint32_t most = std::uint32_t{1} << (random() % 25);
      symbol.frequency = 1 + static_cast<std::uint32_t>(random()) % most;
      const std::uint32_t room = RangeDecoder::total - symbol.frequency;
      symbol.start = round % 2 == 0 ? room : static_cast<std::uint32_t>(random()) % (room + 1);
    }
    RangeEncoder encoder;
    for (const Interval& symbol : symbols) encoder.encode(symbol.start, symbol.frequency);
    CHECK_EQ(decode(encoder.finish(), symbols), static_cast<int>(symbols.size()));
  }
}

}  // namespace vqcodec
