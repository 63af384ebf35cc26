// Integer convolutions of any network: int8 weights, a bias and a rounding shift per output.
//
// A convolution sees a position's neighbours at its taps. What a neighbour is, the schedule
// decides: it hands rows of features to the product of nn/kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_array.h"
#include "nn/kernels.h"

namespace vqcodec {

// Where a neighbour lies.
struct Offset {
  int row;
  int column;
};

// A convolution as it lies in a model file: `weight` is outputs x taps x inputs.
struct ConvTensors {
  const std::int8_t* weight = nullptr;
  const std::int32_t* bias = nullptr;   // outputs
  const std::uint8_t* shift = nullptr;  // outputs
  std::int64_t outputs = 0;
  std::int64_t taps = 0;
  std::int64_t inputs = 0;
};

// Elements from one row of features to the next, at least: rows have whole pairs of channels.
inline int channel_stride(int channels) { return (channels + 1) / 2 * 2; }

// A convolution, packed for the kernels. That no sum leaves int32 has been checked
// (Checks::require_convolution in model/checks.h).
class Conv {
 public:
  Conv() = default;
  // One tap for every tap of the tensors.
  Conv(const ConvTensors& tensors, std::vector<Offset> taps);

  const std::vector<Offset>& taps() const { return taps_; }
  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  // All panels, or `count` of them.
  PackedConv packed() const { return packed(0, num_panels_); }
  PackedConv packed(int first, int count) const;
  int num_panels() const { return num_panels_; }
  std::int64_t macs() const;

  // Single numbers, for those who pack them in another way. The bias has half of the shift in it.
  int weight(int output, int tap, int input) const;
  std::int32_t bias(int output) const { return bias_[static_cast<std::size_t>(output)]; }
  int shift(int output) const { return shift_[static_cast<std::size_t>(output)]; }

 private:
  // Where it lies among the weights.
  std::size_t place(int output, int tap, int input) const;

  std::vector<Offset> taps_;
  int outputs_ = 0;
  int inputs_ = 0;
  int pairs_ = 0;
  int num_panels_ = 0;
  AlignedArray<std::int8_t> weights_;
  AlignedArray<std::int32_t> bias_;
  AlignedArray<std::int32_t> shift_;
};

}  // namespace vqcodec
