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

// Collects convolutions, so that all of them lie in a few arrays.
class Packer {
 public:
  // Convolutions side by side that see the same taps become one group; `first` is their first
  // phase.
  void add_group(const std::vector<const vqcodec::Conv*>& convs, int first) {
    const vqcodec::Conv& any = *convs[0];
    ConvGroup group;
    group.num_taps = static_cast<std::int32_t>(any.taps().size());
    group.inputs = any.inputs();
    group.first = first;
    places_.push_back({weights.size(), rounding.size(), taps.size()});
    for (const vqcodec::Conv* conv : convs) {
      group.outputs += conv->outputs();
      for (int o = 0; o < conv->outputs(); ++o) {
        rounding.push_back(make_int2(conv->bias(o), conv->shift(o)));
      }
    }
    for (int tap = 0; tap < group.num_taps; ++tap) {
      for (int input = 0; input < group.inputs; ++input) {
        for (const vqcodec::Conv* conv : convs) {
          for (int o = 0; o < conv->outputs(); ++o) {
            weights.push_back(static_cast<std::int8_t>(conv->weight(o, tap, input)));
          }
        }
      }
    }
    taps.insert(taps.end(), any.taps().begin(), any.taps().end());
    groups.push_back(group);
  }

  // Makes the groups point into copies of the arrays.
  void resolve(const std::int8_t* weights_at, const int2* rounding_at, const Offset* taps_at) {
    for (std::size_t i = 0; i < groups.size(); ++i) {
      groups[i].weights = weights_at + places_[i].weights;
      groups[i].rounding = rounding_at + places_[i].rounding;
      groups[i].taps = taps_at + places_[i].taps;
    }
  }

  std::vector<std::int8_t> weights;
  std::vector<int2> rounding;
  std::vector<Offset> taps;
  std::vector<ConvGroup> groups;

 private:
  struct Place {
    std::size_t weights, rounding, taps;
  };
  std::vector<Place> places_;
};

// The phases of a convolution, or all there is of one without.
using Phases = std::vector<std::pair<const vqcodec::Conv*, int>>;

void add_convolution(const Phases& phases, Packer* packer, NetworkStep* step) {
  const std::size_t before = packer->groups.size();
  Offset first = phases[0].first->taps()[0], last = first;
  for (std::size_t i = 0, end; i < phases.size(); i = end) {
    std::vector<const vqcodec::Conv*> convs;
    for (end = i; end < phases.size() && same_taps(*phases[i].first, *phases[end].first); ++end) {
      convs.push_back(phases[end].first);
    }
    packer->add_group(convs, phases[i].second);
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
  if (Status status = rounding_.upload(packer.rounding, stream); !status.ok()) return status;
  if (Status status = taps_.upload(packer.taps, stream); !status.ok()) return status;
  packer.resolve(weights_.data(), rounding_.data(), taps_.data());
  if (Status status = groups_.upload(packer.groups, stream); !status.ok()) return status;
  const ConvGroup* groups = groups_.data();
  for (NetworkStep& step : steps) {
    step.groups = groups;
    groups += step.num_groups;
  }
  return wait(stream);
}

}  // namespace vqcodec::cuda
