// The range encoder: the inverse of RangeDecoder (coding/range_decoder.h).
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "coding/range_decoder.h"

namespace vqcodec {

// Keeps the lower end of the interval; a stream is the number in it with the most zeros at its end,
// less these zeros, which the decoder reads past the end anyway.
class RangeEncoder {
 public:
  // Adds a symbol that owns [start, start + frequency) of 2^24.
  void encode(std::uint32_t start, std::uint32_t frequency) {
    VQCODEC_ASSERT(frequency > 0 && std::uint64_t{start} + frequency <= RangeDecoder::total);
    const std::uint64_t scale = range_ >> RangeDecoder::frequency_bits;
    const std::uint64_t moved = lower_ + scale * start;
    if (moved < lower_) carry();
    lower_ = moved;
    range_ = scale * frequency;
    if (range_ >> 32 == 0) {
      put(static_cast<std::uint32_t>(lower_ >> 32));
      lower_ <<= 32;
      range_ <<= 32;
    }
  }

  // The stream. Nothing can be added after it.
  std::vector<std::uint8_t> finish() {
    for (int zeros = 64; zeros >= 0; zeros -= 8) {
      const std::uint64_t mask = zeros == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << zeros) - 1;
      const std::uint64_t up = (0 - lower_) & mask;  // to the next multiple of 2^zeros
      if (up >= range_) continue;
      if (lower_ + up < lower_) carry();
      lower_ += up;
      break;
    }
    put(static_cast<std::uint32_t>(lower_ >> 32));
    put(static_cast<std::uint32_t>(lower_));
    while (!bytes_.empty() && bytes_.back() == 0) bytes_.pop_back();
    return bytes_;
  }

 private:
  void put(std::uint32_t word) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes_.push_back(static_cast<std::uint8_t>(word >> shift));
    }
  }
  // Adds one to what has been written. It never overflows: all intervals lie within the first.
  void carry() {
    auto byte = bytes_.rbegin();
    while (++*byte == 0) ++byte;
  }

  std::vector<std::uint8_t> bytes_;
  std::uint64_t lower_ = 0;
  std::uint64_t range_ = ~std::uint64_t{0};
};

}  // namespace vqcodec
