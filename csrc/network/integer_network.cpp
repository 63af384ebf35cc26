#include "network/integer_network.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "base/check.h"
#include "model/checks.h"

namespace vqcodec {
namespace {

// Larger than any network has, so that no size computed from them leaves its type.
constexpr std::int64_t kMaxPlanes = 1024;
constexpr std::int64_t kMaxStride = 1024;
constexpr std::int64_t kMaxTaps = 1024;
constexpr std::int64_t kMaxOffset = 64;
constexpr std::int64_t kLargestFeature = 32768;  // of int16, without its sign

bool same_taps(const KernelTensors& kernel, std::int64_t a, std::int64_t b) {
  const auto taps = [&](std::int64_t phase) {
    return kernel.offsets.begin() + phase * kernel.taps;
  };
  return std::equal(taps(a), taps(a + 1), taps(b), [](const Offset& x, const Offset& y) {
    return x.row == y.row && x.column == y.column;
  });
}

// Phases first, ..., first + count - 1, packed as one convolution.
Conv packed(const KernelTensors& kernel, std::int64_t first, std::int64_t count) {
  const std::int64_t output = first * kernel.outputs;
  const auto taps = kernel.offsets.begin() + first * kernel.taps;
  return Conv({kernel.weight + output * kernel.taps * kernel.inputs, kernel.bias + output,
               kernel.shift + output, count * kernel.outputs, kernel.taps, kernel.inputs},
              std::vector<Offset>(taps, taps + kernel.taps));
}

std::vector<PhaseGroup> phase_groups(const KernelTensors& kernel) {
  // Together they fill panels that each on its own would leave empty in part.
  const bool join = kernel.outputs % kPanel != 0;
  std::vector<PhaseGroup> groups;
  for (std::int64_t first = 0, last; first < kernel.phases; first = last) {
    last = first + 1;
    while (join && last < kernel.phases && same_taps(kernel, first, last)) ++last;
    groups.push_back({packed(kernel, first, last - first), static_cast<int>(first),
                      static_cast<int>(last - first)});
  }
  return groups;
}

bool is_point(const KernelTensors& kernel) {
  return kernel.taps == 1 && kernel.offsets[0].row == 0 && kernel.offsets[0].column == 0;
}

// Checks and packs one network.
class Loader {
 public:
  explicit Loader(const NetworkTensors& tensors) : tensors_(tensors) {}

  Status load(IntegerNetwork* network) {
    load_inputs(network);
    for (std::size_t i = 0; i < tensors_.layers.size() && checks_.ok(); ++i) {
      name_ = "layer " + std::to_string(i);
      load_layer(tensors_.layers[i], network);
    }
    if (checks_.ok()) load_outputs(network);
    return checks_.status();
  }

 private:
  void load_inputs(IntegerNetwork* network) {
    const auto inputs = static_cast<std::int64_t>(tensors_.inputs.size());
    const auto layers = static_cast<std::int64_t>(tensors_.layers.size());
    checks_.require_range("number of inputs", inputs, 1, kMaxPlanes);
    checks_.require_range("number of layers", layers, 0, kMaxPlanes);
    if (!checks_.ok()) return;
    network->num_inputs = static_cast<int>(inputs);
    for (const PlaneShape& input : tensors_.inputs) {
      numbers_.push_back(static_cast<int>(network->planes.size()));
      if (!add_plane("input", input.channels, input.stride, network)) return;
    }
  }

  void load_layer(const LayerTensors& layer, IntegerNetwork* network) {
    const auto sources = static_cast<std::int64_t>(layer.sources.size());
    const bool two = layer.kind == LayerKind::add || layer.kind == LayerKind::subtract;
    const bool many = layer.kind == LayerKind::concatenate;
    const auto planes = static_cast<std::int64_t>(numbers_.size());
    if (!checks_.require_range(name_ + ": number of sources", sources, two ? 2 : 1,
                               two    ? 2
                               : many ? kMaxPlanes
                                      : 1)) {
      return;
    }
    Step step;
    step.kind = layer.kind;
    for (std::int64_t source : layer.sources) {
      if (!checks_.require_range(name_ + ": source", source, 0, planes - 1)) return;
      step.sources.push_back(numbers_[static_cast<std::size_t>(source)]);
    }
    const Plane read = network->planes[step.sources[0]];
    switch (layer.kind) {
      case LayerKind::unshuffle:
        if (!checks_.require_range(name_ + ": factor", layer.factor, 1, kMaxStride)) return;
        step.factor = static_cast<int>(layer.factor);
        finish(std::move(step), read.channels * layer.factor * layer.factor,
               read.stride * layer.factor, network);
        return;
      case LayerKind::convolution: load_convolution(layer, std::move(step), network); return;
      case LayerKind::residual: load_residual(layer, std::move(step), network); return;
      case LayerKind::concatenate:
      case LayerKind::add:
      case LayerKind::subtract: load_combination(std::move(step), network); return;
    }
    checks_.require(false, name_ + ": unknown kind");
  }

  void load_convolution(const LayerTensors& layer, Step step, IntegerNetwork* network) {
    const Plane read = network->planes[step.sources[0]];
    checks_.require_range(name_ + ": stride", layer.stride, 1, kMaxStride);
    checks_.require_range(name_ + ": upscale", layer.upscale, 1, kMaxStride);
    if (!checks_.ok()) return;
    checks_.require(layer.stride == 1 || layer.upscale == 1,
                    name_ + ": stride and upscale exclude each other");
    checks_.require_equal(name_ + ": remainder of the plane's stride by upscale",
                          read.stride % layer.upscale, 0);
    if (!check(name_, layer.first, layer.upscale * layer.upscale, read.channels)) return;
    step.phases = phase_groups(layer.first);
    step.stride = static_cast<int>(layer.stride);
    step.upscale = static_cast<int>(layer.upscale);
    step.activation = layer.activation;
    network->planes[step.sources[0]].convolved = true;
    finish(std::move(step), layer.first.outputs, read.stride * layer.stride / layer.upscale,
           network);
  }

  void load_residual(const LayerTensors& layer, Step step, IntegerNetwork* network) {
    const Plane read = network->planes[step.sources[0]];
    if (!check(name_ + ", first", layer.first, 1, read.channels)) return;
    if (!check(name_ + ", second", layer.second, 1, layer.first.outputs)) return;
    if (!checks_.require_equal(name_ + ": outputs", layer.second.outputs, read.channels)) return;
    network->planes[step.sources[0]].convolved = true;
    if (is_point(layer.second)) {
      step.inner = packed(layer.first, 0, 1);
    } else {
      Step inner;
      inner.kind = LayerKind::convolution;
      inner.sources = step.sources;
      inner.phases = phase_groups(layer.first);
      inner.activation = Activation::leaky;
      inner.plane = static_cast<int>(network->planes.size());
      if (!add_plane(name_, layer.first.outputs, read.stride, network)) return;
      network->planes.back().convolved = true;
      step.kind = LayerKind::convolution;
      step.addend = step.sources[0];
      step.sources[0] = inner.plane;
      network->steps.push_back(std::move(inner));
    }
    step.phases = phase_groups(layer.second);
    step.activation = layer.activation;
    finish(std::move(step), read.channels, read.stride, network);
  }

  void load_combination(Step step, IntegerNetwork* network) {
    const Plane first = network->planes[step.sources[0]];
    std::int64_t channels = 0;
    for (int source : step.sources) {
      const Plane& read = network->planes[source];
      checks_.require_equal(name_ + ": stride of a source", read.stride, first.stride);
      if (step.kind != LayerKind::concatenate) {
        checks_.require_equal(name_ + ": channels of a source", read.channels, first.channels);
      }
      channels += read.channels;
    }
    if (!checks_.ok()) return;
    finish(std::move(step), step.kind == LayerKind::concatenate ? channels : first.channels,
           first.stride, network);
  }

  void load_outputs(IntegerNetwork* network) {
    const auto outputs = static_cast<std::int64_t>(tensors_.outputs.size());
    if (!checks_.require_range("number of outputs", outputs, 1, kMaxPlanes)) return;
    for (std::int64_t output : tensors_.outputs) {
      if (!checks_.require_range("output", output, 0,
                                 static_cast<std::int64_t>(numbers_.size()) - 1)) {
        return;
      }
      network->outputs.push_back(numbers_[static_cast<std::size_t>(output)]);
    }
  }

  // A convolution of int16 features: its sizes, its shifts, and that its largest sum fits int32.
  bool check(const std::string& name, const KernelTensors& kernel, std::int64_t phases,
             std::int64_t inputs) {
    checks_.require_equal(name + ": phases", kernel.phases, phases);
    checks_.require_range(name + ": outputs", kernel.outputs, 1, kMaxChannels);
    checks_.require_range(name + ": taps", kernel.taps, 1, kMaxTaps);
    if (!checks_.ok()) return false;
    checks_.require_equal(name + ": number of offsets",
                          static_cast<std::int64_t>(kernel.offsets.size()), phases * kernel.taps);
    for (const Offset& offset : kernel.offsets) {
      checks_.require_range(name + ": offset", offset.row, -kMaxOffset, kMaxOffset);
      checks_.require_range(name + ": offset", offset.column, -kMaxOffset, kMaxOffset);
    }
    const std::int64_t outputs = phases * kernel.outputs;
    const ConvTensors flat = {kernel.weight, kernel.bias, kernel.shift,
                              outputs,       kernel.taps, kernel.inputs};
    return checks_.ok() &&
           checks_.require_convolution(name, flat, inputs, outputs, kernel.taps, kLargestFeature);
  }

  bool add_plane(const std::string& name, std::int64_t channels, std::int64_t stride,
                 IntegerNetwork* network) {
    checks_.require_range(name + ": channels", channels, 1, kMaxChannels);
    checks_.require_range(name + ": stride of the plane", stride, 1, kMaxStride);
    if (!checks_.ok()) return false;
    network->planes.push_back({static_cast<int>(channels), static_cast<int>(stride), false});
    return true;
  }

  void finish(Step step, std::int64_t channels, std::int64_t stride, IntegerNetwork* network) {
    step.plane = static_cast<int>(network->planes.size());
    if (!add_plane(name_, channels, stride, network)) return;
    numbers_.push_back(step.plane);
    network->steps.push_back(std::move(step));
  }

  const NetworkTensors& tensors_;
  Checks checks_{"integer network"};
  std::string name_;
  std::vector<int> numbers_;  // of the tensors' planes among those of the network
};

}  // namespace

Status IntegerNetwork::create(const NetworkTensors& tensors,
                              std::shared_ptr<const IntegerNetwork>* network) {
  auto loaded = std::make_shared<IntegerNetwork>();
  if (Status status = Loader(tensors).load(loaded.get()); !status.ok()) return status;
  *network = std::move(loaded);
  return {};
}

int IntegerNetwork::coarsest_stride() const {
  int coarsest = 1;
  for (const Plane& plane : planes) coarsest = std::max(coarsest, plane.stride);
  return coarsest;
}

std::int64_t IntegerNetwork::macs(int height, int width) const {
  std::int64_t total = 0;
  for (const Step& step : steps) {
    const std::int64_t stride = std::int64_t{planes[step.plane].stride} * step.upscale;
    std::int64_t each = step.inner.macs();
    for (const PhaseGroup& group : step.phases) each += group.conv.macs();
    total += each * (height / stride) * (width / stride);
  }
  return total;
}

}  // namespace vqcodec
