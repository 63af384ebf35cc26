// A matrix of floats somewhere in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"

namespace vqcodec {

// Strides are in elements, and of any sign.
struct StridedMatrix {
  const float* data;
  std::int64_t rows;
  std::int64_t columns;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t column_stride;

  VQCODEC_HOST_DEVICE const float& operator()(std::int64_t row, std::int64_t column) const {
    return data[row * row_stride + column * column_stride];
  }
};

}  // namespace vqcodec
