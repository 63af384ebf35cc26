// How samplers change the weights of a position before they become frequencies.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "base/status.h"

namespace vqcodec {

struct SamplingRule {
  static constexpr int kNeutralSharpness = 256;
  static constexpr int kWholeNucleus = 65536;

  // 256 / temperature, 1..65536: distances are multiplied by sharpness / 256.
  int sharpness = kNeutralSharpness;
  // 65536 top_p, 1..65536: the heaviest codes that together have at least this share of the weight
  // stay, with all that weigh as much as the lightest of them; the others get weight 0.
  int nucleus = kWholeNucleus;

  // Whether codes that weigh `kept` of `sum` together are enough.
  VQCODEC_HOST_DEVICE bool enough(std::uint32_t kept, std::uint32_t sum) const {
    return std::uint64_t{kept} * kWholeNucleus >=
           static_cast<std::uint64_t>(nucleus) * std::uint64_t{sum};
  }
};

// The least weight that stays: the largest one for which the codes that weigh as much or more are
// enough. `sum_from(least)` is the sum of the weights of at least `least`; the same in all threads
// that search together.
template <class SumFrom>
VQCODEC_HOST_DEVICE std::uint32_t lightest_in_nucleus(const SamplingRule& rule,
                                                      const SumFrom& sum_from) {
  const std::uint32_t sum = sum_from(0);
  std::uint32_t low = 0, high = 65535;  // enough from low on
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    if (rule.enough(sum_from(middle), sum)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// invalid_argument: a number outside 1..65536.
Status check_rule(const SamplingRule& rule);

}  // namespace vqcodec
