#include "model/checks.h"

#include <cstdlib>
#include <limits>

#include "nn/fixed_point.h"

namespace vqcodec {

void Checks::fail(const std::string& message) {
  if (status_.ok()) status_ = Status::invalid_argument(subject_ + ": " + message);
}

bool Checks::require(bool condition, const std::string& what) {
  if (!condition) fail(what);
  return ok();
}

bool Checks::require_equal(const std::string& what, std::int64_t found, std::int64_t expected) {
  if (found != expected) {
    fail(what + " must be " + std::to_string(expected) + ", got " + std::to_string(found));
  }
  return ok();
}

bool Checks::require_range(const std::string& what, std::int64_t found, std::int64_t low,
                           std::int64_t high) {
  if (found < low || found > high) {
    fail(what + " must be in " + std::to_string(low) + ".." + std::to_string(high) + ", got " +
         std::to_string(found));
  }
  return ok();
}

bool Checks::require_convolution(const std::string& name, const ConvTensors& tensors,
                                 std::int64_t inputs, std::int64_t outputs, std::int64_t taps,
                                 std::int64_t largest_feature) {
  require_equal(name + ": inputs", tensors.inputs, inputs);
  require_equal(name + ": outputs", tensors.outputs, outputs);
  require_equal(name + ": taps", tensors.taps, taps);
  require_range(name + ": inputs", tensors.inputs, 1, kMaxChannels);
  require_range(name + ": outputs", tensors.outputs, 1, kMaxOutputs);
  if (!ok()) return false;
  const std::int8_t* weight = tensors.weight;
  for (std::int64_t o = 0; o < outputs; ++o) {
    if (!require_range(name + ": shift", tensors.shift[o], 0, kMaxShift)) return false;
    std::int64_t largest = 0;
    for (std::int64_t i = 0; i < tensors.taps * inputs; ++i) largest += std::abs(*weight++);
    largest = largest * largest_feature + std::abs(std::int64_t{tensors.bias[o]}) +
              rounding_half(tensors.shift[o]);
    if (!require_range(name + ": largest sum", largest, 0,
                       std::numeric_limits<std::int32_t>::max())) {
      return false;
    }
  }
  return true;
}

}  // namespace vqcodec
