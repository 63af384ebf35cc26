// The kernels of integer networks. Convolutions are products of matrices, positions x (taps x
// inputs) times (taps x inputs) x outputs:
//
// plain    A thread for every output of every position. Neighbouring threads have the same position
//          and neighbouring outputs: features are broadcast, weights and results lie side by side.
// tensor   A warp for 32 positions x 32 outputs, on tensor cores. A feature is 256 times its high
//          byte (signed) plus its low byte (unsigned; taken less 128, it is signed, too), so that
//          a product of int16 by int8 is two products of int8:
//
//              sum = 256 * (w * high) + w * (low - 128) + 128 * w
//
//          Lanes load eight features of a position at once, from the first-level cache, and take
//          them apart in registers. Nothing is shared between warps but the cache.
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

// Where the results of a unit go, and what is added to them. Regions have less than 2^31 elements.
struct UnitPlace {
  std::int32_t to, addend;
};

__device__ UnitPlace place_of(const ConvolveParams& params, const Unit& unit) {
  UnitPlace place = {};
  place.to = params.to.offset(unit.row * params.upscale, unit.column * params.upscale);
  if (params.addend.data != nullptr) place.addend = params.addend.offset(unit.row, unit.column);
  return place;
}

// Where an output of a group goes, seen from the place of the unit: a channel of a phase. Addends
// have one phase.
__device__ std::int32_t output_offset(const ConvolveParams& params, const ConvGroup& group,
                                      std::int32_t output) {
  const PlaneView& to = params.to;
  const std::int32_t phase = output / to.channels, number = group.first + phase;
  const std::int32_t row = number / params.upscale, column = number - row * params.upscale;
  return (row * to.width + column) * to.stride + output - phase * to.channels;
}

__device__ std::int32_t feature(const ConvolveParams& params, std::int32_t x, std::int32_t addend) {
  if (params.addend.data != nullptr) {
    // Within 2^20 the sum with an int16 cannot overflow, and beyond it decides alone.
    constexpr std::int32_t limit = std::int32_t{1} << 20;
    x = clamp(x, -limit, limit) + addend;
  }
  if (params.activation == Activation::relu) x = max(x, 0);
  if (params.activation == Activation::leaky) x = leaky(x);
  return saturate16(x);
}

__device__ void finish(const ConvolveParams& params, const UnitPlace& place, std::int32_t offset,
                       std::int32_t x) {
  std::int32_t addend = 0;
  if (params.addend.data != nullptr) addend = params.addend.data[place.addend + offset];
  params.to.data[place.to + offset] = static_cast<std::int16_t>(feature(params, x, addend));
}

// Two outputs side by side, where channels are even.
__device__ void finish_two(const ConvolveParams& params, const UnitPlace& place,
                           std::int32_t offset, std::int32_t x, std::int32_t y) {
  std::uint32_t addends = 0;
  if (params.addend.data != nullptr) {
    addends = *reinterpret_cast<const std::uint32_t*>(params.addend.data + place.addend + offset);
  }
  const std::int32_t first = feature(params, x, static_cast<std::int16_t>(addends & 0xffffu));
  const std::int32_t second = feature(params, y, static_cast<std::int32_t>(addends) >> 16);
  *reinterpret_cast<std::uint32_t*>(params.to.data + place.to + offset) =
      (static_cast<std::uint32_t>(first) & 0xffffu) | static_cast<std::uint32_t>(second) << 16;
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
  finish(params, place_of(params, unit), output_offset(params, group, output), sum >> rounding.y);
}

constexpr int kTensorWarps = 2;  // of a block
constexpr int kTensorThreads = kTensorWarps * kWarp;
constexpr int kTensorBlocks = 6;  // of a multiprocessor, at least
// Of a warp: kTiles x 16 positions, kPairs x 16 outputs.
constexpr int kTiles = 2;
constexpr int kPairs = 2;
constexpr int kTilePositions = 16 * kTiles;
constexpr int kTileOutputs = 16 * kPairs;

// Four features, two of them in each word: their high bytes, and their low bytes less 128.
__device__ std::uint32_t high_bytes(std::uint32_t a, std::uint32_t b) {
  return __byte_perm(a, b, 0x7531);
}
__device__ std::uint32_t low_bytes(std::uint32_t a, std::uint32_t b) {
  return __byte_perm(a, b, 0x6420) ^ 0x80808080u;
}

// What a lane multiplies at a time: eight inputs of a tap of its positions, weights for all
// outputs.
struct Factors {
  uint4 features[2 * kTiles];
  uint4 weights[kPairs];
};

// Goes through the taps and inputs of a convolution.
struct FactorLoader {
  const ConvolveParams& params;
  const ConvGroup& group;
  const Unit (&units)[2 * kTiles];
  const std::int32_t q;       // of the lane
  const std::int32_t chunks;  // of inputs, for each tap
  const bool second;          // whether there is a second pair of outputs
  const uint4* fragments;
  std::int32_t tap = 0, chunk = 0;
  const uint4* features[2 * kTiles] = {};

  __device__ std::int32_t steps() const { return group.num_taps * chunks; }

  __device__ void next(Factors* factors) {
    if (chunk == 0) {
      const Offset offset = {__ldg(&group.taps[tap].row), __ldg(&group.taps[tap].column)};
#pragma unroll
      for (int i = 0; i < 2 * kTiles; ++i) {
        features[i] = reinterpret_cast<const uint4*>(tap_at(params, units[i], offset)) + q;
      }
    }
    // Weights of inputs that do not exist are zero, so that any features will do.
    const bool there = 4 * chunk + q < params.from.stride / kPiece;
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      factors->features[i] = there ? features[i][4 * chunk] : make_uint4(0, 0, 0, 0);
    }
    factors->weights[0] = __ldg(fragments);
    if (second) factors->weights[1] = __ldg(fragments + steps() * kWarp);
    fragments += kWarp;
    if (++chunk == chunks) chunk = 0, ++tap;
  }
};

// Sums of the products with the high and the low bytes of features.
struct Sums {
  std::int32_t high[kTiles][2 * kPairs][4] = {};
  std::int32_t low[kTiles][2 * kPairs][4] = {};

  __device__ void add(const Factors& factors, bool second) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4 &a = factors.features[2 * t], &b = factors.features[2 * t + 1];
      const std::uint32_t upper[4] = {high_bytes(a.x, a.y), high_bytes(b.x, b.y),
                                      high_bytes(a.z, a.w), high_bytes(b.z, b.w)};
      const std::uint32_t lower[4] = {low_bytes(a.x, a.y), low_bytes(b.x, b.y), low_bytes(a.z, a.w),
                                      low_bytes(b.z, b.w)};
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        if (p > 0 && !second) break;
        const uint4& weights = factors.weights[p];
        const std::uint32_t even[2] = {weights.x, weights.y}, odd[2] = {weights.z, weights.w};
        mma_s8(high[t][2 * p], upper, even);
        mma_s8(low[t][2 * p], lower, even);
        mma_s8(high[t][2 * p + 1], upper, odd);
        mma_s8(low[t][2 * p + 1], lower, odd);
      }
    }
  }

  // Of position i (0, 1, ...) and output j (0, 1) of tile n. Parts may wrap around; the sum does
  // not.
  __device__ std::int32_t sum(int i, int n, int j, std::int32_t bias) const {
    return static_cast<std::int32_t>(
        (static_cast<std::uint32_t>(high[i / 2][n][i % 2 * 2 + j]) << 8) +
        static_cast<std::uint32_t>(low[i / 2][n][i % 2 * 2 + j]) +
        static_cast<std::uint32_t>(bias));
  }
};

// A lane 4 g + q has the positions g, g + 8, g + 16, ... of the warp, and the outputs 2 q, 2 q + 1,
// 2 q + 8, 2 q + 9, ... of them (mma_s8 in device.cuh). Factors are loaded one step ahead.
__global__ void __launch_bounds__(kTensorThreads, kTensorBlocks)
    convolve_by_tensors(ConvolveParams params) {
  const auto block = static_cast<std::int32_t>(blockIdx.x);
  const ConvGroup group = params.groups[block / params.blocks];
  const std::int32_t warp =
      block % params.blocks * kTensorWarps + static_cast<std::int32_t>(threadIdx.x) / kWarp;
  const std::int32_t lane = static_cast<std::int32_t>(threadIdx.x) % kWarp;
  const std::int32_t g = lane / 4, q = lane % 4;
  const std::int32_t output_tiles = (group.outputs + kTileOutputs - 1) / kTileOutputs;
  const std::int32_t first_position = warp / output_tiles * kTilePositions;
  const std::int32_t first_output = warp % output_tiles * kTileOutputs;
  const std::int32_t count = units(params);
  if (first_position >= count) return;  // the whole warp

  Unit unit[2 * kTiles];
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    unit[i] = unit_at(params, min(first_position + 8 * i + g, count - 1));
  }
  const bool second = group.outputs - first_output > 16;
  FactorLoader loader = {params, group,  unit, q, (group.inputs + kChunk - 1) / kChunk,
                         second, nullptr};
  const std::int32_t steps = loader.steps();
  loader.fragments = group.fragments + std::int64_t{first_output / 16} * steps * kWarp + lane;
  Sums sums;
  Factors factors[2] = {};
  loader.next(&factors[0]);
#pragma unroll 1
  for (std::int32_t step = 0; step < steps; step += 2) {
    if (step + 1 < steps) loader.next(&factors[1]);
    sums.add(factors[0], second);
    if (step + 1 == steps) break;
    if (step + 2 < steps) loader.next(&factors[0]);
    sums.add(factors[1], second);
  }

  UnitPlace place[2 * kTiles];
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) place[i] = place_of(params, unit[i]);
  const bool even_channels = params.to.channels % 2 == 0;
#pragma unroll
  for (int n = 0; n < 2 * kPairs; ++n) {
    const std::int32_t output = first_output + 8 * n + 2 * q;
    if (output >= group.outputs) break;
    const bool two = output + 1 < group.outputs;
    const int2 first = group.rounding[output];
    const int2 next = two ? group.rounding[output + 1] : make_int2(0, 0);
    const std::int32_t offset = output_offset(params, group, output);
    const std::int32_t next_offset = two ? output_offset(params, group, output + 1) : 0;
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (first_position + 8 * i + g >= count) break;
      const std::int32_t a = sums.sum(i, n, 0, first.x) >> first.y;
      const std::int32_t b = sums.sum(i, n, 1, next.x) >> next.y;
      if (even_channels) {
        finish_two(params, place[i], offset, a, b);
      } else {
        finish(params, place[i], offset, a);
        if (two) finish(params, place[i], next_offset, b);
      }
    }
  }
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
  const bool tensor = step.product == Product::tensor;
  const std::int64_t blocks =
      tensor ? divide_up(divide_up(units, kTilePositions) * divide_up(step.outputs, kTileOutputs),
                         kTensorWarps)
             : divide_up(units * step.outputs, kThreads);
  if (blocks * step.num_groups > std::numeric_limits<std::int32_t>::max()) {
    return Status::unsupported("CUDA: a convolution has too many groups of phases");
  }
  params.blocks = static_cast<std::int32_t>(blocks);
  return check(launch(tensor ? convolve_by_tensors : convolve_plainly,
                      static_cast<unsigned>(blocks * step.num_groups),
                      tensor ? kTensorThreads : kThreads, 0, stream, params),
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
