#include "network/plane_rows.h"

#include <algorithm>
#include <cstddef>
#include <string>

namespace vqcodec {
namespace {

class PlaneSource final : public RowSource {
 public:
  explicit PlaneSource(const std::vector<InputPlane>& planes) : planes_(planes) {}

  void read(int input, int row, std::int16_t* to, std::ptrdiff_t stride) const override {
    const InputPlane& plane = planes_[static_cast<std::size_t>(input)];
    copy_positions(plane.data + row * plane.width * plane.channels, plane.channels, to, stride,
                   plane.width, plane.channels);
  }

 private:
  const std::vector<InputPlane>& planes_;
};

}  // namespace

void copy_positions(const std::int16_t* from, std::ptrdiff_t from_stride, std::int16_t* to,
                    std::ptrdiff_t to_stride, std::int64_t count, std::int64_t channels) {
  if (from_stride == channels && to_stride == channels) {
    std::copy_n(from, count * channels, to);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::copy_n(from + i * from_stride, channels, to + i * to_stride);
  }
}

void PlaneSink::write(const int* numbers, int count, int row, const std::int16_t* const* rows,
                      const std::ptrdiff_t* strides) {
  for (int i = 0; i < count; ++i) {
    const auto output = static_cast<std::size_t>(numbers[i]);
    const Plane& plane = network_.planes[network_.outputs[output]];
    const std::int64_t width = width_ / plane.stride;
    copy_positions(rows[i], strides[i], outputs_[output] + row * width * plane.channels,
                   plane.channels, width, plane.channels);
  }
}

Status check_size(const IntegerNetwork& network, std::int64_t height, std::int64_t width) {
  for (std::int64_t side : {height, width}) {
    if (side < 1 || side > kMaxSide) {
      return Status::invalid_argument("sides of an image must be in 1.." +
                                      std::to_string(kMaxSide) + ", got " + std::to_string(side));
    }
    for (const Plane& plane : network.planes) {
      if (side % plane.stride == 0) continue;
      return Status::invalid_argument("sides of an image must be multiples of " +
                                      std::to_string(plane.stride) + ", got " +
                                      std::to_string(side));
    }
  }
  return {};
}

Status image_size(const IntegerNetwork& network, const std::vector<InputPlane>& planes,
                  ImageSize* size) {
  if (planes.size() != static_cast<std::size_t>(network.num_inputs)) {
    return Status::invalid_argument("the network has " + std::to_string(network.num_inputs) +
                                    " inputs, got " + std::to_string(planes.size()));
  }
  const std::int64_t stride = network.planes[0].stride;
  if (planes[0].height > kMaxSide || planes[0].width > kMaxSide) {
    return Status::invalid_argument("input 0 is too large");
  }
  const std::int64_t height = planes[0].height * stride, width = planes[0].width * stride;
  if (Status status = check_size(network, height, width); !status.ok()) return status;
  for (std::size_t i = 0; i < planes.size(); ++i) {
    const Plane& plane = network.planes[i];
    const InputPlane expected = {nullptr, height / plane.stride, width / plane.stride,
                                 plane.channels};
    const auto text = [](const InputPlane& p) {
      return std::to_string(p.height) + " x " + std::to_string(p.width) + " x " +
             std::to_string(p.channels);
    };
    if (text(planes[i]) != text(expected)) {
      return Status::invalid_argument("input " + std::to_string(i) + " must be " + text(expected) +
                                      ", got " + text(planes[i]));
    }
  }
  *size = {static_cast<int>(height), static_cast<int>(width)};
  return {};
}

bool run_network(const IntegerNetwork& network, Variant variant, const ImageSize& size,
                 const std::vector<InputPlane>& planes, const std::vector<std::int16_t*>& outputs,
                 const std::function<bool()>& interrupted) {
  const PlaneSource source(planes);
  PlaneSink sink(network, size.width, outputs);
  return RowPass(network, variant, size.height, size.width, source, sink).run(interrupted);
}

}  // namespace vqcodec
