// The range decoder: the inverse of constriction's queue `RangeEncoder` with 32-bit words,
// a 64-bit state and 24-bit frequencies, so that streams are interchangeable.
//
// A stream is a sequence of 32-bit words, most significant byte first; bytes past its end
// are zero. The encoder's interval is [lower, lower + range); a symbol that owns [F, F + f)
// of 2^24 narrows it:
//
//     scale   = range >> 24
//     lower  += scale * F
//     range   = scale * f                         then, if range < 2^32, a word is shifted in
//
// The decoder needs only how far the stream's point lies above `lower`:
//
//     // stream 40 00 00 00: offset = 0x4000000000000000, range = 0xffffffffffffffff
//     // scale = 0xffffffffff, quantile = offset / scale = 0x400000
//     // the symbol with F = 0x400000, f = 0x800000 leaves
//     // offset = 0x400000, range = 0x7fffffffff800000
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace vqcodec {

class RangeDecoder {
 public:
  static constexpr int frequency_bits = 24;
  static constexpr std::uint32_t total = std::uint32_t{1} << frequency_bits;

  RangeDecoder() = default;

  // Reads from the `size` bytes at `data`, which must outlive the decoder.
  RangeDecoder(const std::uint8_t* data, std::size_t size) : next_(data), end_(data + size) {
    offset_ = std::uint64_t{word()} << 32;
    offset_ |= word();
  }

  // Where in [0, total) the next symbol's interval lies. `total` or more: no encoder wrote this.
  std::uint64_t quantile() const { return offset_ / (range_ >> frequency_bits); }

  // Removes the symbol whose interval [start, start + frequency) holds the quantile.
  void consume(std::uint32_t start, std::uint32_t frequency) {
    const std::uint64_t scale = range_ >> frequency_bits;
    VQCODEC_ASSERT(frequency > 0 && std::uint64_t{start} + frequency <= total);
    VQCODEC_ASSERT(scale * start <= offset_ &&
                   offset_ < scale * (std::uint64_t{start} + frequency));
    offset_ -= scale * start;
    range_ = scale * frequency;
    if (range_ >> 32 == 0) {
      range_ <<= 32;
      offset_ = offset_ << 32 | word();
    }
  }

 private:
  std::uint32_t word() {
    std::uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | (next_ != end_ ? *next_++ : 0);
    return word;
  }

  const std::uint8_t* next_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  std::uint64_t offset_ = 0;                 // the point, less the lower end of the interval
  std::uint64_t range_ = ~std::uint64_t{0};  // never below 2^32
};

}  // namespace vqcodec
