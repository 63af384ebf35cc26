#include "cuda/window_pass.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "base/check.h"
#include "cuda/grid.cuh"
#include "cuda/memory.h"
#include "cuda/network_kernels.h"

namespace vqcodec::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;  // of planes, in bytes
constexpr std::int64_t kMostBytes = std::numeric_limits<std::int32_t>::max();

std::int64_t divide_down(std::int64_t a, std::int64_t b) {
  return a >= 0 ? a / b : -divide_up(-a, b);
}

// Rows, or columns: first, ..., end - 1.
struct Range {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  std::int64_t end = std::numeric_limits<std::int64_t>::min();

  bool empty() const { return first >= end; }
  std::int64_t size() const { return empty() ? 0 : end - first; }
  void extend(const Range& other) {
    first = std::min(first, other.first);
    end = std::max(end, other.end);
  }
};

constexpr std::int64_t kBoundless = 0;

// Which rows (or columns) of every plane the outputs depend on that lie in a range of pixels. Sides
// of planes end at `side` pixels, or are boundless.
std::vector<Range> needed(const IntegerNetwork& network, const Range& pixels, std::int64_t side,
                          bool rows) {
  std::vector<Range> ranges(network.planes.size());
  const auto need = [&](int plane, Range range) {
    if (side != kBoundless) {
      const std::int64_t last = side / network.planes[plane].stride - 1;
      const auto inside = [last](std::int64_t x) { return std::clamp<std::int64_t>(x, 0, last); };
      range = {inside(range.first), inside(range.end - 1) + 1};
    }
    ranges[plane].extend(range);
  };
  for (int output : network.outputs) {
    const std::int64_t stride = network.planes[output].stride;
    need(output, {divide_down(pixels.first, stride), divide_up(pixels.end, stride)});
  }
  for (auto step = network.steps.rbegin(); step != network.steps.rend(); ++step) {
    Range& made = ranges[step->plane];
    if (made.empty()) continue;
    const Range units = {divide_down(made.first, step->upscale),
                         divide_up(made.end, step->upscale)};
    made = {units.first * step->upscale, units.end * step->upscale};
    const std::int64_t scale = step->kind == LayerKind::unshuffle ? step->factor : step->stride;
    Range read = {units.first * scale, units.end * scale};
    if (step->kind == LayerKind::convolution) {
      const Offset &low = step->first_tap, &high = step->last_tap;
      read = {read.first + (rows ? low.row : low.column),
              read.end - scale + (rows ? high.row : high.column) + 1};
    }
    for (int source : step->sources) need(source, read);
    if (step->addend >= 0) need(step->addend, made);
  }
  return ranges;
}

// Where blocks of memory lie that come and go.
class Arena {
 public:
  // The lowest place that is free.
  std::int64_t take(std::int64_t size) {
    std::int64_t at = 0;
    auto before = blocks_.begin();
    for (; before != blocks_.end() && before->at - at < size; ++before) {
      at = before->at + before->size;
    }
    blocks_.insert(before, {at, size});
    size_ = std::max(size_, at + size);
    return at;
  }
  void give_back(std::int64_t at) {
    blocks_.erase(std::find_if(blocks_.begin(), blocks_.end(),
                               [at](const Block& block) { return block.at == at; }));
  }
  std::int64_t size() const { return size_; }  // that was ever needed

 private:
  struct Block {
    std::int64_t at, size;
  };
  std::vector<Block> blocks_;  // in order
  std::int64_t size_ = 0;
};

class WindowPass {
 public:
  WindowPass(const IntegerNetwork& network, const ImageSize& size, const Box& box)
      : network_(network), size_(size), box_(box) {
    for (const Plane& plane : network.planes) unit_ = std::lcm(unit_, std::int64_t{plane.stride});
    top_ = divide_down(box.top, unit_) * unit_;
    left_ = divide_down(box.left, unit_) * unit_;
    height_ = divide_up(box.top + box.height - top_, unit_) * unit_;
    width_ = divide_up(box.left + box.width - left_, unit_) * unit_;
  }

  Status run(WindowSource* source, WindowSink* sink, const PassLimits& limits,
             cudaStream_t stream) {
    while (!plan(limits.feature_bytes) && (height_ > unit_ || width_ > unit_)) {
      std::int64_t& longer = height_ > width_ ? height_ : width_;
      longer = divide_up(longer / 2, unit_) * unit_;
    }
    if (bytes_ > kMostBytes) {
      return Status::unsupported("CUDA: the smallest window of this network needs more than " +
                                 std::to_string(kMostBytes) + " bytes");
    }
    const std::int64_t elements = bytes_ / std::int64_t{sizeof(std::int16_t)};
    if (Status status = memory_.allocate(static_cast<std::size_t>(elements), stream);
        !status.ok()) {
      return status;
    }
    const std::int64_t bottom = box_.top + box_.height, right = box_.left + box_.width;
    for (std::int64_t top = box_.top, below; top < bottom; top = below) {
      below = std::min(next_line(top, top_, height_), bottom);
      for (std::int64_t left = box_.left, beyond; left < right; left = beyond) {
        beyond = std::min(next_line(left, left_, width_), right);
        if (limits.interrupted()) return {};
        const Box window = {static_cast<int>(top), static_cast<int>(left),
                            static_cast<int>(below - top), static_cast<int>(beyond - left)};
        if (Status status = run_window(window, source, sink, stream); !status.ok()) return status;
      }
    }
    return {};
  }

 private:
  // Windows begin and end at multiples of all strides or with the box.
  static std::int64_t next_line(std::int64_t x, std::int64_t first, std::int64_t side) {
    return first + ((x - first) / side + 1) * side;
  }

  // Finds a place for every plane of a window of height_ x width_; whether all of them take at most
  // so many bytes. Those of a window at the edge are not larger than those of one without edges.
  bool plan(std::int64_t most_bytes) {
    const std::vector<Range> rows = needed(network_, {0, height_}, kBoundless, true);
    const std::vector<Range> columns = needed(network_, {0, width_}, kBoundless, false);
    std::vector<std::int64_t> sizes;
    double total = 0;
    for (std::size_t i = 0; i < network_.planes.size(); ++i) {
      const Plane& plane = network_.planes[i];
      const std::int64_t positions =
          std::min<std::int64_t>(rows[i].size(), size_.height / plane.stride) *
          std::min<std::int64_t>(columns[i].size(), size_.width / plane.stride);
      const auto position_bytes =
          static_cast<std::int64_t>(stride_of(plane) * sizeof(std::int16_t));
      total += static_cast<double>(positions) * static_cast<double>(position_bytes);
      sizes.push_back(divide_up(positions * position_bytes, kAlignment) * kAlignment);
    }
    // Sums of larger ones might leave int64.
    if (total > 1e15) {
      bytes_ = std::numeric_limits<std::int64_t>::max();
      return false;
    }
    place(sizes);
    return bytes_ <= std::min(most_bytes, kMostBytes);
  }

  void place(const std::vector<std::int64_t>& sizes) {
    const auto inputs = static_cast<std::size_t>(network_.host()->num_inputs);
    // The step that reads a plane last; outputs are needed after all steps.
    const std::size_t steps = network_.steps.size();
    std::vector<std::size_t> last(sizes.size(), 0);
    for (std::size_t i = 0; i < steps; ++i) {
      const NetworkStep& step = network_.steps[i];
      for (int source : step.sources) last[source] = i;
      if (step.addend >= 0) last[step.addend] = i;
    }
    for (int output : network_.outputs) last[output] = steps;

    Arena arena;
    places_.assign(sizes.size(), 0);
    const auto take = [&](std::size_t plane) {
      if (sizes[plane] != 0) places_[plane] = arena.take(sizes[plane]);
    };
    std::vector<bool> there(sizes.size(), false);
    for (std::size_t plane = 0; plane < inputs; ++plane) take(plane), there[plane] = true;
    for (std::size_t i = 0; i < steps; ++i) {
      take(network_.steps[i].plane);
      there[network_.steps[i].plane] = true;
      for (std::size_t plane = 0; plane < sizes.size(); ++plane) {
        if (!there[plane] || last[plane] > i) continue;
        there[plane] = false;
        if (sizes[plane] != 0) arena.give_back(places_[plane]);
      }
    }
    bytes_ = arena.size();
  }

  // Convolutions read eight channels at a time.
  static std::int32_t stride_of(const Plane& plane) {
    return plane.convolved ? static_cast<std::int32_t>(divide_up(plane.channels, 8) * 8)
                           : plane.channels;
  }

  Status run_window(const Box& window, WindowSource* source, WindowSink* sink,
                    cudaStream_t stream) {
    const Range rows = {window.top, std::int64_t{window.top} + window.height};
    const Range columns = {window.left, std::int64_t{window.left} + window.width};
    const std::vector<PlaneView> views = regions(needed(network_, rows, size_.height, true),
                                                 needed(network_, columns, size_.width, false));
    for (int input = 0; input < network_.host()->num_inputs; ++input) {
      if (views[input].positions() == 0) continue;
      if (Status status = source->load(input, views[input], stream); !status.ok()) return status;
    }
    for (const NetworkStep& step : network_.steps) {
      if (views[step.plane].positions() == 0) continue;
      std::vector<PlaneView> sources;
      for (int plane : step.sources) sources.push_back(views[plane]);
      StepRegions found;
      found.sources = sources.data();
      if (step.addend >= 0) found.addend = views[step.addend];
      const int stride = network_.planes[step.sources[0]].stride;
      found.height = size_.height / stride;
      found.width = size_.width / stride;
      found.made = views[step.plane];
      if (Status status = run_step(step, found, stream); !status.ok()) return status;
    }
    std::vector<PlaneView> outputs;
    for (int output : network_.outputs) outputs.push_back(views[output]);
    return sink->take(window, outputs, stream);
  }

  std::vector<PlaneView> regions(const std::vector<Range>& rows,
                                 const std::vector<Range>& columns) {
    std::vector<PlaneView> views(network_.planes.size());
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (rows[i].empty()) continue;
      const Plane& plane = network_.planes[i];
      PlaneView& view = views[i];
      view.data = memory_.data() + places_[i] / std::int64_t{sizeof(std::int16_t)};
      view.top = static_cast<std::int32_t>(rows[i].first);
      view.left = static_cast<std::int32_t>(columns[i].first);
      view.height = static_cast<std::int32_t>(rows[i].size());
      view.width = static_cast<std::int32_t>(columns[i].size());
      view.channels = plane.channels;
      view.stride = stride_of(plane);
    }
    return views;
  }

  const IntegerNetwork& network_;
  const ImageSize size_;
  const Box box_;
  std::int64_t unit_ = 1;             // a multiple of all strides
  std::int64_t top_, left_;           // where the first window would begin without the box
  std::int64_t height_, width_;       // of a window
  std::vector<std::int64_t> places_;  // of planes in memory_, in bytes
  std::int64_t bytes_ = 0;
  DeviceArray<std::int16_t> memory_;
};

class PlaneSource final : public WindowSource {
 public:
  explicit PlaneSource(const std::vector<InputPlane>& planes) : planes_(planes) {}

  Status load(int input, const PlaneView& to, cudaStream_t stream) override {
    const InputPlane& plane = planes_[static_cast<std::size_t>(input)];
    return load_region({const_cast<std::int16_t*>(plane.data), plane.width}, to, stream);
  }

 private:
  const std::vector<InputPlane>& planes_;
};

// A dense copy of a part of a region.
Status dense(const PlaneView& part, DeviceArray<std::int16_t>* memory, cudaStream_t stream,
             PlaneView* view) {
  *view = part;
  view->stride = part.channels;
  const std::size_t size = std::size_t{1} * part.positions() * part.channels;
  if (Status status = memory->allocate(size, stream); !status.ok()) return status;
  view->data = memory->data();
  return {};
}

}  // namespace

Status run_windows(const IntegerNetwork& network, const ImageSize& size, const Box& box,
                   WindowSource* source, WindowSink* sink, const PassLimits& limits,
                   cudaStream_t stream) {
  if (box.height == 0 || box.width == 0) return {};
  return WindowPass(network, size, box).run(source, sink, limits, stream);
}

Status load_region(const HostPlane& from, const PlaneView& to, cudaStream_t stream) {
  DeviceArray<std::int16_t> memory;
  PlaneView copied = to;
  if (to.stride != to.channels) {
    if (Status status = dense(to, &memory, stream, &copied); !status.ok()) return status;
  }
  const std::size_t position = to.channels * sizeof(std::int16_t);
  const std::int16_t* const first = from.data + (to.top * from.width + to.left) * to.channels;
  const cudaError_t error = cudaMemcpy2DAsync(
      copied.data, to.width * position, first, static_cast<std::size_t>(from.width) * position,
      to.width * position, static_cast<std::size_t>(to.height), cudaMemcpyHostToDevice, stream);
  if (error != cudaSuccess) return check(error, "copying to the device");
  return copied.data == to.data ? Status() : copy_positions(copied, to, stream);
}

Status store_region(const PlaneView& from, const Box& part, const HostPlane& to,
                    cudaStream_t stream) {
  DeviceArray<std::int16_t> memory;
  PlaneView copied = from;
  if (from.stride != from.channels) {
    PlaneView wanted = from;
    wanted.top = part.top, wanted.left = part.left;
    wanted.height = part.height, wanted.width = part.width;
    if (Status status = dense(wanted, &memory, stream, &copied); !status.ok()) return status;
    if (Status status = copy_positions(from, copied, stream); !status.ok()) return status;
  }
  const std::size_t position = from.channels * sizeof(std::int16_t);
  std::int16_t* const first = to.data + (part.top * to.width + part.left) * from.channels;
  return check(cudaMemcpy2DAsync(first, static_cast<std::size_t>(to.width) * position,
                                 copied.at(part.top, part.left), copied.width * position,
                                 part.width * position, static_cast<std::size_t>(part.height),
                                 cudaMemcpyDeviceToHost, stream),
               "copying from the device");
}

Status PlaneWindows::take(const Box& window, const std::vector<PlaneView>& outputs,
                          cudaStream_t stream) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const int stride = network_.planes[network_.outputs[i]].stride;
    const Box part = {window.top / stride, window.left / stride, window.height / stride,
                      window.width / stride};
    const HostPlane plane = {outputs_[i], size_.width / stride};
    if (Status status = store_region(outputs[i], part, plane, stream); !status.ok()) return status;
  }
  return wait(stream);
}

Status run_network(const IntegerNetwork& network, const ImageSize& size,
                   const std::vector<InputPlane>& planes, const std::vector<std::int16_t*>& outputs,
                   const PassLimits& limits, cudaStream_t stream) {
  PlaneSource source(planes);
  PlaneWindows sink(network, size, outputs);
  return run_windows(network, size, {0, 0, size.height, size.width}, &source, &sink, limits,
                     stream);
}

}  // namespace vqcodec::cuda
