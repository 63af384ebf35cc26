#include "nn/convolution.h"

#include <cstddef>
#include <utility>

#include "base/check.h"
#include "nn/fixed_point.h"

namespace vqcodec {

Conv::Conv(const ConvTensors& tensors, std::vector<Offset> taps)
    : taps_(std::move(taps)),
      outputs_(static_cast<int>(tensors.outputs)),
      inputs_(static_cast<int>(tensors.inputs)),
      pairs_((inputs_ + 1) / 2),
      num_panels_((outputs_ + kPanel - 1) / kPanel) {
  const std::size_t num_taps = taps_.size();
  VQCODEC_ASSERT(num_taps == static_cast<std::size_t>(tensors.taps));
  const std::size_t padded = static_cast<std::size_t>(num_panels_) * kPanel;
  weights_ = AlignedArray<std::int8_t>(padded * num_taps * pairs_ * 2);
  bias_ = AlignedArray<std::int32_t>(padded);
  shift_ = AlignedArray<std::int32_t>(padded);
  const std::int8_t* weight = tensors.weight;
  for (int output = 0; output < outputs_; ++output) {
    bias_[output] = tensors.bias[output] + rounding_half(tensors.shift[output]);
    shift_[output] = tensors.shift[output];
    for (int tap = 0; tap < static_cast<int>(num_taps); ++tap) {
      for (int input = 0; input < inputs_; ++input) {
        weights_[place(output, tap, input)] = *weight++;
      }
    }
  }
}

std::size_t Conv::place(int output, int tap, int input) const {
  const std::size_t panel = output / kPanel, lane = output % kPanel;
  const std::size_t pair = (panel * taps_.size() + tap) * pairs_ + input / 2;
  return (pair * kPanel + lane) * 2 + input % 2;
}

int Conv::weight(int output, int tap, int input) const {
  return weights_[place(output, tap, input)];
}

PackedConv Conv::packed(int first, int count) const {
  VQCODEC_ASSERT(0 <= first && 0 <= count && first + count <= num_panels_);
  const std::ptrdiff_t panel_bytes =
      static_cast<std::ptrdiff_t>(taps_.size()) * pairs_ * kPanel * 2;
  return {weights_.data() + first * panel_bytes,
          bias_.data() + first * kPanel,
          shift_.data() + first * kPanel,
          panel_bytes,
          count,
          static_cast<int>(taps_.size()),
          pairs_};
}

std::int64_t Conv::macs() const {
  return std::int64_t{outputs_} * inputs_ * static_cast<std::int64_t>(taps_.size());
}

}  // namespace vqcodec
