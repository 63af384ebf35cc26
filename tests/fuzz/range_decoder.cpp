// Fuzz target: frequency tables and the range decoder.
//
// An input is a table's weights, then symbols, then a stream. The table must split 2^24 without a
// gap; symbols that were encoded must come back, also from a stream cut to its trimmed end; and
// the stream, which no encoder need have written, must decode to codes or be found invalid.
#include "fuzz.h"

namespace vqcodec::fuzz {
namespace {

constexpr int kMostCodes = 80;     // some blocks of a table
constexpr int kMostSymbols = 128;  // some words of a stream

// The weights of a table and their running sums.
class Table {
 public:
  explicit Table(Input& input) {
    const int codes = 1 + input.below(kMostCodes);
    const int shift = input.below(17);  // of what magnitude weights are
    for (int k = 0; k < codes; ++k) {
      if (k % kFrequencyBlock == 0) before_.push_back(sum_);
      const int weight = (input.byte() * 257) >> shift;
      weights_.push_back(static_cast<std::uint16_t>(k == 0 ? std::max(weight, 1) : weight));
      sum_ += weights_.back();
    }
  }

  FrequencyTable view() const {
    return {weights_.data(), before_.data(), sum_, static_cast<std::int32_t>(weights_.size())};
  }

 private:
  std::vector<std::uint16_t> weights_;
  std::vector<std::uint32_t> before_;
  std::uint32_t sum_ = 0;
};

void check_table(const FrequencyTable& table) {
  std::uint32_t next = 0;
  for (int k = 0; k < table.codes; ++k) {
    const CodeInterval own = table.of(k);
    REQUIRE(own.start == next && own.frequency >= 1);
    next += own.frequency;
    REQUIRE(table.find(own.start).code == k);
    REQUIRE(table.find(next - 1).code == k);
  }
  REQUIRE(next == kFrequencyTotal);
}

void check_round_trip(const FrequencyTable& table, const std::vector<std::uint8_t>& symbols) {
  RangeEncoder encoder;
  for (std::uint8_t symbol : symbols) {
    const CodeInterval own = table.of(symbol % table.codes);
    encoder.encode(own.start, own.frequency);
  }
  const std::vector<std::uint8_t> stream = encoder.finish();
  RangeDecoder decoder(stream.data(), stream.size());
  for (std::uint8_t symbol : symbols) {
    const std::uint64_t quantile = decoder.quantile();
    REQUIRE(quantile < RangeDecoder::total);
    const CodeInterval found = table.find(static_cast<std::uint32_t>(quantile));
    REQUIRE(found.code == symbol % table.codes);
    decoder.consume(found.start, found.frequency);
  }
}

void decode_anything(const FrequencyTable& table, const std::vector<std::uint8_t>& stream) {
  RangeDecoder decoder(stream.data(), stream.size());
  for (int i = 0; i < kMostSymbols; ++i) {
    const std::uint64_t quantile = decoder.quantile();
    if (quantile >= RangeDecoder::total) return;
    const CodeInterval found = table.find(static_cast<std::uint32_t>(quantile));
    REQUIRE(0 <= found.code && found.code < table.codes);
    REQUIRE(found.start <= quantile && quantile - found.start < found.frequency);
    decoder.consume(found.start, found.frequency);
  }
}

void run(Input input) {
  const Table table(input);
  check_table(table.view());
  const std::size_t count = static_cast<std::size_t>(input.below(kMostSymbols));
  check_round_trip(table.view(), input.bytes(count));
  decode_anything(table.view(), input.bytes(4 * kMostSymbols));
}

}  // namespace
}  // namespace vqcodec::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vqcodec::fuzz::run({data, size});
  return 0;
}
