// Streams of yes-or-no decisions as files hold them (nn/decisions.h reads and asks).
#pragma once

#include <cstddef>
#include <cstdint>

#include "coding/range_encoder.h"
#include "nn/sample_model.h"

namespace vqcodec {

inline void add_decision(Decision decision, RangeEncoder* encoder) {
  const std::uint32_t split = decision >> 1 << 8;
  if (decision & 1) {
    encoder->encode(0, split);
  } else {
    encoder->encode(split, RangeDecoder::total - split);
  }
}

// The bytes must outlive the reader.
inline DecisionReader read_decisions(const std::uint8_t* data, std::size_t size) {
  DecisionReader reader = {data, data + size, 0, ~std::uint64_t{0}, false};
  for (int byte = 0; byte < 8; ++byte) {
    reader.offset = reader.offset << 8 | (reader.next != reader.end ? *reader.next++ : 0);
  }
  return reader;
}

}  // namespace vqcodec
