// An encoder's choice of codes by distortion and rate, in integers: nearest_codes and
// code_candidates (vqcodec/ops/reference/rate.py defines them).
#pragma once

#include <cstdint>
#include <functional>

#include "nn/instruction_set.h"

namespace vqcodec {

// What is to be quantised, and what an error and a code cost. All costs are in 1/256 bit.
struct CodeChoice {
  const std::int16_t* z = nullptr;  // positions x channels
  std::int64_t positions = 0;
  int channels = 0;                        // 1..2^15
  const std::int16_t* codebook = nullptr;  // codes x channels
  int codes = 0;
  const std::uint8_t* lengths = nullptr;  // codes, in eighths of a bit
  // An error at a position costs 2^(exponent / 256 + 15 - base) times its squared distance.
  const std::int32_t* exponents = nullptr;  // positions
  int base = 0;
};

// codes[i]: the code of the lowest cost at position i, the lowest of equals. False if `interrupted`
// said true.
bool nearest_codes(const CodeChoice& choice, Variant variant, std::int32_t* codes,
                   const std::function<bool()>& interrupted);

// The `count` codes (1..choice.codes) of the lowest cost at every position, best first, and twice
// the cost of their error plus that of their length, at most 2^30: positions x count.
bool code_candidates(const CodeChoice& choice, int count, Variant variant, std::int32_t* codes,
                     std::int32_t* costs, const std::function<bool()>& interrupted);

}  // namespace vqcodec
