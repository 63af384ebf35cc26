// The kernels of integer networks.
//
// 1: a thread for every output of every position. Neighbouring threads have the same position and
//    neighbouring outputs: features are broadcast, weights and results lie side by side.
#include "cuda/network_kernels.h"

#include <limits>

#include "base/check.h"
#include "cuda/device.cuh"
#include "cuda/grid.cuh"
#include "nn/fixed_point.h"

namespace vqcodec::cuda {
namespace {

// ---------------------------------------------------------------- convolutions

struct ConvolveParams {
  const ConvGroup* groups;
  std::int32_t blocks;  // for each group
  PlaneView from, addend, to;
  std::int32_t height, width;  // of the whole plane that is read
  std::int32_t stride, upscale;
  Activation activation;
};

// Where a convolution is applied: row and column count in units of `upscale` results.
struct Unit {
  std::int32_t row, column;
};

__device__ Unit unit_at(const ConvolveParams& params, std::int32_t number) {
  const std::int32_t columns = params.to.width / params.upscale;
  const std::int32_t row = number / columns;
  return {params.to.top / params.upscale + row,
          params.to.left / params.upscale + number - row * columns};
}

__device__ std::int32_t units(const ConvolveParams& params) {
  return params.to.height / params.upscale * (params.to.width / params.upscale);
}

// The position that a tap of a unit sees: outside the plane, its edge.
__device__ const std::int16_t* tap_at(const ConvolveParams& params, const Unit& unit,
                                      const Offset& tap) {
  return params.from.at(clamp(unit.row * params.stride + tap.row, 0, params.height - 1),
                        clamp(unit.column * params.stride + tap.column, 0, params.width - 1));
}

// What an output of a group makes: a channel of a phase of the unit.
struct Target {
  std::int32_t row, column;  // of the phase
  std::int32_t channel;
};

__device__ Target target_of(const ConvolveParams& params, const ConvGroup& group,
                            std::int32_t output) {
  const std::int32_t phase = output / params.to.channels;
  const std::int32_t number = group.first + phase;
  return {number / params.upscale, number % params.upscale, output - phase * params.to.channels};
}

__device__ void finish(const ConvolveParams& params, const Unit& unit, const Target& target,
                       std::int32_t sum, int shift) {
  std::int32_t x = sum >> shift;
  if (params.addend.data != nullptr) {
    // Within 2^20 the sum with an int16 cannot overflow, and beyond it decides alone.
    constexpr std::int32_t limit = std::int32_t{1} << 20;
    x = clamp(x, -limit, limit) + params.addend.at(unit.row, unit.column)[target.channel];
  }
  if (params.activation == Activation::relu) x = max(x, 0);
  if (params.activation == Activation::leaky) x = leaky(x);
  params.to.at(unit.row * params.upscale + target.row,
               unit.column * params.upscale + target.column)[target.channel] =
      static_cast<std::int16_t>(saturate16(x));
}

__global__ void __launch_bounds__(kThreads) convolve_plainly(ConvolveParams params) {
  const auto block = static_cast<std::int32_t>(blockIdx.x);
  const ConvGroup group = params.groups[block / params.blocks];
  const std::int32_t thread =
      block % params.blocks * kThreads + static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t number = thread / group.outputs, output = thread - number * group.outputs;
  if (number >= units(params)) return;
  const Unit unit = unit_at(params, number);
  const int2 rounding = group.rounding[output];
  std::int32_t sum = rounding.x;
  const std::int8_t* weight = group.weights + output;
  for (std::int32_t tap = 0; tap < group.num_taps; ++tap) {
    const std::int16_t* const features = tap_at(params, unit, group.taps[tap]);
    for (std::int32_t input = 0; input < group.inputs; ++input) {
      sum += *weight * features[input];
      weight += group.outputs;
    }
  }
  finish(params, unit, target_of(params, group, output), sum, rounding.y);
}

Status convolve(const NetworkStep& step, const StepRegions& regions, cudaStream_t stream) {
  ConvolveParams params = {};
  params.groups = step.groups;
  params.from = regions.sources[0];
  params.addend = regions.addend;
  params.to = regions.made;
  params.height = regions.height;
  params.width = regions.width;
  params.stride = step.stride;
  params.upscale = step.upscale;
  params.activation = step.activation;
  const std::int64_t units =
      std::int64_t{params.to.positions()} / (std::int64_t{step.upscale} * step.upscale);
  const std::int64_t blocks = divide_up(units * step.outputs, kThreads);
  if (blocks * step.num_groups > std::numeric_limits<std::int32_t>::max()) {
    return Status::unsupported("CUDA: a convolution has too many groups of phases");
  }
  params.blocks = static_cast<std::int32_t>(blocks);
  return check(launch(convolve_plainly, static_cast<unsigned>(blocks * step.num_groups), kThreads,
                      0, stream, params),
               "starting a convolution");
}

// ---------------------------------------------------------------- copies and sums

// factor x factor positions become one.
struct CopyParams {
  PlaneView from, to;
  std::int32_t factor;
  std::int32_t first;  // channel of `to`
};

__global__ void __launch_bounds__(kThreads) copy_kernel(CopyParams params) {
  const PlaneView &from = params.from, &to = params.to;
  const std::int32_t channels = params.factor * params.factor * from.channels;
  const std::int64_t thread = global_thread();
  if (thread >= std::int64_t{to.positions()} * channels) return;
  const auto element = static_cast<std::int32_t>(thread);
  const std::int32_t position = element / channels, channel = element - position * channels;
  const std::int32_t row = to.top + position / to.width, column = to.left + position % to.width;
  const std::int32_t part = channel / from.channels;
  to.at(row, column)[params.first + channel] =
      from.at(row * params.factor + part / params.factor,
              column * params.factor + part % params.factor)[channel - part * from.channels];
}

Status copy(const CopyParams& params, cudaStream_t stream) {
  const std::int64_t channels = std::int64_t{params.factor} * params.factor * params.from.channels;
  return check(launch(copy_kernel, blocks_for(params.to.positions() * channels), kThreads, 0,
                      stream, params),
               "starting a copy");
}

// to = a + sign * b
struct CombineParams {
  PlaneView a, b, to;
  std::int32_t sign;
};

__global__ void __launch_bounds__(kThreads) combine_kernel(CombineParams params) {
  const PlaneView& to = params.to;
  const std::int64_t thread = global_thread();
  if (thread >= std::int64_t{to.positions()} * to.channels) return;
  const auto element = static_cast<std::int32_t>(thread);
  const std::int32_t position = element / to.channels, channel = element % to.channels;
  const std::int32_t row = to.top + position / to.width, column = to.left + position % to.width;
  to.at(row, column)[channel] = static_cast<std::int16_t>(saturate16(
      params.a.at(row, column)[channel] + params.sign * params.b.at(row, column)[channel]));
}

}  // namespace

Status run_step(const NetworkStep& step, const StepRegions& regions, cudaStream_t stream) {
  switch (step.kind) {
    case LayerKind::convolution: return convolve(step, regions, stream);
    case LayerKind::unshuffle:
      return copy({regions.sources[0], regions.made, step.factor, 0}, stream);
    case LayerKind::concatenate: {
      std::int32_t channel = 0;
      for (std::size_t i = 0; i < step.sources.size(); ++i) {
        Status status = copy({regions.sources[i], regions.made, 1, channel}, stream);
        if (!status.ok()) return status;
        channel += regions.sources[i].channels;
      }
      return {};
    }
    case LayerKind::add:
    case LayerKind::subtract: {
      const CombineParams params = {regions.sources[0], regions.sources[1], regions.made,
                                    step.kind == LayerKind::add ? 1 : -1};
      const std::int64_t threads = std::int64_t{params.to.positions()} * params.to.channels;
      return check(launch(combine_kernel, blocks_for(threads), kThreads, 0, stream, params),
                   "starting a sum");
    }
    case LayerKind::residual: break;
  }
  VQCODEC_ASSERT(false);  // it is two convolutions
  return {};
}

Status copy_positions(const PlaneView& from, const PlaneView& to, cudaStream_t stream) {
  return copy({from, to, 1, 0}, stream);
}

}  // namespace vqcodec::cuda
