// An integer network on planes that lie in memory as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "network/integer_network.h"
#include "network/row_pass.h"
#include "nn/instruction_set.h"

namespace vqcodec {

// A dense height x width x channels plane.
struct InputPlane {
  const std::int16_t* data = nullptr;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
};

// In pixels.
struct ImageSize {
  int height = 0;
  int width = 0;
};

inline constexpr std::int64_t kMaxSide = std::int64_t{1} << 24;  // of an image, in pixels

// Whether an image may be so large; invalid_argument: it is empty, or too large, or no multiple of
// all strides.
Status check_size(const IntegerNetwork& network, std::int64_t height, std::int64_t width);

// The size of the image that the planes belong to. invalid_argument: there is none.
Status image_size(const IntegerNetwork& network, const std::vector<InputPlane>& planes,
                  ImageSize* size);

// Copies positions that are `from_stride` and `to_stride` apart.
void copy_positions(const std::int16_t* from, std::ptrdiff_t from_stride, std::int16_t* to,
                    std::ptrdiff_t to_stride, std::int64_t count, std::int64_t channels);

// Writes the outputs of a network, dense, for an image of `width` pixels.
class PlaneSink final : public RowSink {
 public:
  PlaneSink(const IntegerNetwork& network, int width, const std::vector<std::int16_t*>& outputs)
      : network_(network), width_(width), outputs_(outputs) {}

  void write(const int* numbers, int count, int row, const std::int16_t* const* rows,
             const std::ptrdiff_t* strides) override;

 private:
  const IntegerNetwork& network_;
  const int width_;
  const std::vector<std::int16_t*>& outputs_;
};

// Writes all outputs, dense; false if `interrupted` said true. The planes pass image_size.
bool run_network(const IntegerNetwork& network, Variant variant, const ImageSize& size,
                 const std::vector<InputPlane>& planes, const std::vector<std::int16_t*>& outputs,
                 const std::function<bool()>& interrupted);

}  // namespace vqcodec
