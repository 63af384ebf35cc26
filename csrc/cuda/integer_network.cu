#include "cuda/integer_network.h"

#include <algorithm>
#include <cstddef>

namespace vqcodec::cuda {
namespace {

bool same_taps(const vqcodec::Conv& a, const vqcodec::Conv& b) {
  return std::equal(
      a.taps().begin(), a.taps().end(), b.taps().begin(), b.taps().end(),
      [](const Offset& x, const Offset& y) { return x.row == y.row && x.column == y.column; });
}

// Convolutions side by side that see the same taps.
class Joined {
 public:
  explicit Joined(const vqcodec::Conv& first) : first_(first) { add(first); }

  void add(const vqcodec::Conv& conv) {
    for (int o = 0; o < conv.outputs(); ++o) places_.push_back({&conv, o});
  }

  const std::vector<Offset>& taps() const { return first_.taps(); }
  int inputs() const { return first_.inputs(); }
  int outputs() const { return static_cast<int>(places_.size()); }
  // Zero for inputs and outputs that do not exist.
  int weight(int output, int tap, int input) const {
    if (output >= outputs() || input >= inputs()) return 0;
    const Place& place = places_[output];
    return place.conv->weight(place.output, tap, input);
  }
  int2 rounding(int output) const {
    const Place& place = places_[output];
    return make_int2(place.conv->bias(place.output), place.conv->shift(place.output));
  }

 private:
  struct Place {
    const vqcodec::Conv* conv;
    int output;
  };
  const vqcodec::Conv& first_;
  std::vector<Place> places_;
};

// Collects convolutions, so that all of them lie in a few arrays.
class Packer {
 public:
  // `first`: the phase of the first output.
  void add(const Joined& joined, Product product, int first) {
    ConvGroup group;
    group.num_taps = static_cast<std::int32_t>(joined.taps().size());
    group.inputs = joined.inputs();
    group.outputs = joined.outputs();
    group.first = first;
    groups.push_back(group);
    places_.push_back({weights.size(), fragments.size(), rounding.size(), taps.size()});
    for (int o = 0; o < group.outputs; ++o) rounding.push_back(joined.rounding(o));
    if (product == Product::plain) {
      add_weights(joined, group);
    } else {
      add_fragments(joined, group);
    }
    taps.insert(taps.end(), joined.taps().begin(), joined.taps().end());
  }

  // Makes the groups point into copies of the arrays.
  void resolve(const std::int8_t* weights_at, const uint4* fragments_at, const int2* rounding_at,
               const Offset* taps_at) {
    for (std::size_t i = 0; i < groups.size(); ++i) {
      groups[i].weights = weights_at + places_[i].weights;
      groups[i].fragments = fragments_at + places_[i].fragments;
      groups[i].rounding = rounding_at + places_[i].rounding;
      groups[i].taps = taps_at + places_[i].taps;
    }
  }

  std::vector<std::int8_t> weights;
  std::vector<uint4> fragments;
  std::vector<int2> rounding;
  std::vector<Offset> taps;
  std::vector<ConvGroup> groups;

 private:
  struct Place {
    std::size_t weights, fragments, rounding, taps;
  };

  void add_weights(const Joined& joined, const ConvGroup& group) {
    for (int tap = 0; tap < group.num_taps; ++tap) {
      for (int input = 0; input < group.inputs; ++input) {
        for (int o = 0; o < group.outputs; ++o) {
          weights.push_back(static_cast<std::int8_t>(joined.weight(o, tap, input)));
        }
      }
    }
  }

  // Lane 4 g + q has the inputs 8 q .. 8 q + 7 of a chunk for the output g of a tile: the order of
  // inputs within a product does not matter, and so a lane loads its features at once.
  void add_fragments(const Joined& joined, const ConvGroup& group) {
    for (int pair = 0; pair < group.outputs; pair += 16) {
      for (int tap = 0; tap < group.num_taps; ++tap) {
        for (int chunk = 0; chunk < group.inputs; chunk += kChunk) {
          for (int lane = 0; lane < 32; ++lane) {
            const int output = pair + lane / 4, input = chunk + lane % 4 * kPiece;
            const auto four = [&](int o, int i) {
              unsigned word = 0;
              for (int k = 0; k < 4; ++k) {
                const auto weight = static_cast<std::uint8_t>(joined.weight(o, tap, i + k));
                word |= unsigned{weight} << 8 * k;
              }
              return word;
            };
            fragments.push_back(make_uint4(four(output, input), four(output, input + 4),
                                           four(output + 8, input), four(output + 8, input + 4)));
          }
        }
      }
    }
    // Sums wrap around: only the last one, of all terms, is known to fit.
    for (int o = 0; o < group.outputs; ++o) {
      std::uint32_t sum = 0;
      for (int tap = 0; tap < group.num_taps; ++tap) {
        for (int input = 0; input < group.inputs; ++input) {
          sum += static_cast<std::uint32_t>(joined.weight(o, tap, input));
        }
      }
      int& bias = rounding[places_.back().rounding + static_cast<std::size_t>(o)].x;
      bias = static_cast<int>(static_cast<std::uint32_t>(bias) + 128 * sum);
    }
  }

  std::vector<Place> places_;
};

// The phases of a convolution, or all there is of one without.
using Phases = std::vector<std::pair<const vqcodec::Conv*, int>>;

void add_convolution(const Phases& phases, Packer* packer, NetworkStep* step) {
  const std::size_t before = packer->groups.size();
  Offset first = phases[0].first->taps()[0], last = first;
  step->product = phases[0].first->inputs() < kLeastInputs ? Product::plain : Product::tensor;
  for (std::size_t i = 0, end; i < phases.size(); i = end) {
    Joined joined(*phases[i].first);
    for (end = i + 1; end < phases.size(); ++end) {
      if (!same_taps(*phases[i].first, *phases[end].first)) break;
      joined.add(*phases[end].first);
    }
    packer->add(joined, step->product, phases[i].second);
    step->outputs = std::max(step->outputs, packer->groups.back().outputs);
    for (const Offset& tap : phases[i].first->taps()) {
      first = {std::min(first.row, tap.row), std::min(first.column, tap.column)};
      last = {std::max(last.row, tap.row), std::max(last.column, tap.column)};
    }
  }
  step->first_tap = first;
  step->last_tap = last;
  step->num_groups = static_cast<int>(packer->groups.size() - before);
}

}  // namespace

Status IntegerNetwork::create(Host host, std::shared_ptr<const IntegerNetwork>* network) {
  auto loaded = std::make_shared<IntegerNetwork>();
  loaded->host_ = std::move(host);
  if (Status status = loaded->load(); !status.ok()) return status;
  *network = std::move(loaded);
  return {};
}

Status IntegerNetwork::load() {
  planes = host_->planes;
  outputs = host_->outputs;
  Packer packer;
  for (const Step& from : host_->steps) {
    NetworkStep step;
    step.kind = from.kind;
    step.sources = from.sources;
    step.plane = from.plane;
    step.factor = from.factor;
    step.stride = from.stride;
    step.upscale = from.upscale;
    step.addend = from.addend;
    step.activation = from.activation;
    if (from.kind == LayerKind::residual) {
      NetworkStep inner;
      inner.kind = step.kind = LayerKind::convolution;
      inner.sources = from.sources;
      inner.plane = static_cast<int>(planes.size());
      inner.activation = Activation::leaky;
      add_convolution({{&from.inner, 0}}, &packer, &inner);
      planes.push_back({from.inner.outputs(), planes[from.plane].stride, true});
      step.addend = from.sources[0];
      step.sources[0] = inner.plane;
      steps.push_back(std::move(inner));
    }
    if (step.kind == LayerKind::convolution) {
      Phases phases;
      for (const PhaseGroup& group : from.phases) phases.push_back({&group.conv, group.first});
      add_convolution(phases, &packer, &step);
    }
    steps.push_back(std::move(step));
  }

  const cudaStream_t stream = nullptr;
  if (Status status = weights_.upload(packer.weights, stream); !status.ok()) return status;
  if (Status status = fragments_.upload(packer.fragments, stream); !status.ok()) return status;
  if (Status status = rounding_.upload(packer.rounding, stream); !status.ok()) return status;
  if (Status status = taps_.upload(packer.taps, stream); !status.ok()) return status;
  packer.resolve(weights_.data(), fragments_.data(), rounding_.data(), taps_.data());
  if (Status status = groups_.upload(packer.groups, stream); !status.ok()) return status;
  const ConvGroup* groups = groups_.data();
  for (NetworkStep& step : steps) {
    step.groups = groups;
    groups += step.num_groups;
  }
  return wait(stream);
}

}  // namespace vqcodec::cuda
