// The inner kernels of nearest_codes and code_candidates, written once for every instruction set:
// plain loops over kPanel codes, which the compiler vectorises for the instruction set of the file.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/kernels.h"

namespace vqcodec {
namespace {

struct CodeCosts {
  static constexpr std::int64_t kLimit = std::int64_t{1} << 30;

  // Sum is unsigned. Squares of differences of int16 lie below 2^32.
  template <class Sum>
  static void distances(const std::int16_t* z, int channels, const std::int16_t* codebook,
                        int num_panels, Sum* __restrict distance) {
    for (int panel = 0; panel < num_panels; ++panel) {
      Sum sum[kPanel] = {};
      for (int c = 0; c < channels; ++c) {
        const std::int32_t value = z[c];
        for (int i = 0; i < kPanel; ++i) {
          const std::int32_t difference = value - codebook[i];
          const auto size = static_cast<std::uint32_t>(difference);
          sum[i] += size * size;  // modulo 2^32, which keeps the square
        }
        codebook += kPanel;
      }
      for (int i = 0; i < kPanel; ++i) distance[i] = sum[i];
      distance += kPanel;
    }
  }

  template <class Sum>
  static void costs(const Sum* __restrict distance, int num_panels, std::uint32_t mantissa,
                    int shift, std::int32_t* __restrict costs) {
    for (int k = 0; k < num_panels * kPanel; ++k) {
      const std::uint64_t cost = (static_cast<std::uint64_t>(distance[k]) * mantissa) >> shift;
      costs[k] = static_cast<std::int32_t>(cost < kLimit ? cost : kLimit);
    }
  }

  static std::int32_t least(const std::int32_t* x) {
    std::int32_t least = x[0];
    for (int i = 1; i < kPanel; ++i) least = x[i] < least ? x[i] : least;
    return least;
  }

  // See CodeCostKernels.
  static int select(const std::int32_t* costs, const std::int32_t* lengths, int num_panels,
                    int count, std::int32_t* codes, std::int32_t* scores) {
    int found = 0;
    for (int panel = 0; panel < num_panels; ++panel) {
      std::int32_t score[kPanel];
      const int first = panel * kPanel;
      for (int i = 0; i < kPanel; ++i) score[i] = costs[first + i] + lengths[first + i];
      if (found == count && least(score) >= scores[count - 1]) continue;
      for (int i = 0; i < kPanel; ++i) {
        if (found == count && score[i] >= scores[count - 1]) continue;
        int at = found < count ? found++ : count - 1;
        for (; at > 0 && scores[at - 1] > score[i]; --at) {
          scores[at] = scores[at - 1];
          codes[at] = codes[at - 1];
        }
        scores[at] = score[i];
        codes[at] = first + i;
      }
    }
    return found;
  }

  static constexpr CodeCostKernels table() {
    return {distances<std::uint32_t>, distances<std::uint64_t>, costs<std::uint32_t>,
            costs<std::uint64_t>, select};
  }
};

}  // namespace
}  // namespace vqcodec
