// Frequency tables.
//
// A position's logits become weights w_k = exp[max - logit_k] by table, and with
// C_k = w_0 + ... + w_(k-1) the cumulative frequencies are
//
//     F_k = k + floor(C_k (2^24 - K) / C_K),        k = 0..K
//
// The table is never written out: all that coding needs is one code's interval, or the code
// whose interval holds a quantile. Running sums are kept at every kFrequencyBlock-th code.
//
//     // K = 3, weights 65535, 24109, 0, C_K = 89644: F = 0, 12265123, 16777215, 16777216
#pragma once

#include <cstdint>

#include "base/check.h"
#include "base/host_device.h"

namespace vqcodec {

inline constexpr std::uint32_t kFrequencyTotal = std::uint32_t{1} << 24;
inline constexpr int kFrequencyBlock = 32;
inline constexpr int kMaxCodes = 65536;

// A code and its part of 2^24.
struct CodeInterval {
  std::int32_t code;
  std::uint32_t start;
  std::uint32_t frequency;
};

// The weights of one position. Sums fit: 65535 * 65536 < 2^32; products fit: 2^32 * 2^24.
struct FrequencyTable {
  const std::uint16_t* weights;
  const std::uint32_t* before;  // [b]: sum of the weights before code b * kFrequencyBlock
  std::uint32_t sum;            // of all weights, not zero
  std::int32_t codes;

  // F_k, given C_k.
  VQCODEC_HOST_DEVICE std::uint32_t cumulative(std::int32_t k, std::uint32_t running) const {
    return k + static_cast<std::uint32_t>(std::uint64_t{running} * (kFrequencyTotal - codes) / sum);
  }

  // F_k <= quantile, given C_k, without a division.
  VQCODEC_HOST_DEVICE bool reaches(std::int32_t k, std::uint32_t running,
                                   std::uint32_t quantile) const {
    const auto code = static_cast<std::uint32_t>(k);
    return code <= quantile && std::uint64_t{running} * (kFrequencyTotal - codes) <
                                   std::uint64_t{quantile - code + 1} * sum;
  }

  VQCODEC_HOST_DEVICE CodeInterval interval(std::int32_t code, std::uint32_t running) const {
    const std::uint32_t start = cumulative(code, running);
    return {code, start, cumulative(code + 1, running + weights[code]) - start};
  }

  // The interval of a known code.
  VQCODEC_HOST_DEVICE CodeInterval of(std::int32_t code) const {
    VQCODEC_ASSERT(sum > 0 && 0 <= code && code < codes);
    std::uint32_t running = before[code / kFrequencyBlock];
    for (std::int32_t k = code / kFrequencyBlock * kFrequencyBlock; k < code; ++k) {
      running += weights[k];
    }
    return interval(code, running);
  }

  // The code whose interval holds `quantile`, which must be less than 2^24.
  VQCODEC_HOST_DEVICE CodeInterval find(std::uint32_t quantile) const {
    VQCODEC_ASSERT(sum > 0 && codes > 0 && quantile < kFrequencyTotal);
    std::int32_t low = 0, high = (codes - 1) / kFrequencyBlock;  // the block is in low..high
    while (low < high) {
      const std::int32_t middle = (low + high + 1) / 2;
      if (reaches(middle * kFrequencyBlock, before[middle], quantile)) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    std::int32_t code = low * kFrequencyBlock;
    std::uint32_t running = before[low];
    while (code + 1 < codes && reaches(code + 1, running + weights[code], quantile)) {
      running += weights[code++];
    }
    return interval(code, running);
  }
};

}  // namespace vqcodec
