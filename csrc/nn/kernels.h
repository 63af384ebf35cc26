// What every instruction set offers: the inner kernels of integer networks, of nearest_codebook,
// and of an encoder's choice of codes. nn/integer_kernels.h, nn/nearest_codebook_kernel.h and
// nn/code_cost_kernel.h have them once; kernels_<instruction set>.cpp instantiates them.
//
// Convolutions are matrix products: positions x (taps * inputs) times (taps * inputs) x outputs.
// The positions are rows of int16 features that lie somewhere in memory; the weights are packed
// into panels of kPanel outputs:
//
//     panel, tap, pair of inputs (i, i+1):   w0[i] w0[i+1]  w1[i] w1[i+1]  ...  w15[i] w15[i+1]
//
// This header is included by files with different compiler flags: no standard library, and
// functions with internal linkage only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/strided_matrix.h"
#include "nn/index_model.h"
#include "nn/sample_model.h"

namespace vqcodec {

enum class Variant;  // nn/instruction_set.h

inline constexpr int kPanel = 16;

// An integer convolution as the kernels read it. Rows of features are `2 * pairs` long.
struct PackedConv {
  const std::int8_t* weights;  // num_panels x taps x pairs x kPanel x 2
  const std::int32_t* bias;    // num_panels x kPanel, with half of the rounding shift; may be null
  const std::int32_t* shift;   // num_panels x kPanel; null together with bias
  std::ptrdiff_t panel_bytes;  // from one panel to the next
  int num_panels;
  int taps;
  int pairs;  // per tap
};

// Rows i = 0..count-1 of features: base + rows[i] * stride.
template <class T>
struct FeatureRows {
  T* base;
  const std::int32_t* rows;
  std::ptrdiff_t stride;
  int count;
};

// What follows the rounding of a sum (nn/fixed_point.h): nothing, max(x, 0), or a slope of 1/8
// below zero.
enum class Activation { none, relu, leaky };

template <class T>
static inline T* row_of(const FeatureRows<T>& features, int i) {
  return features.base + features.rows[i] * features.stride;
}

// The kernels of integer networks. Rows of `sums` are `sums_stride` apart.
struct IntegerKernels {
  // sums[i * sums_stride + o] = (sum over taps and inputs + bias[o]) >> shift[o], for every
  // output of every panel. Tap j of row i is at inputs[i] + taps[j]. Sums wrap around: whoever
  // made the convolution has shown that none leaves int32.
  void (*product)(const PackedConv& conv, const FeatureRows<const std::int16_t>& inputs,
                  const std::ptrdiff_t* taps, std::int32_t* sums, std::ptrdiff_t sums_stride);

  // The sums of `product` as features: outputs[i][o] = saturate16(activation(residual[i][o] +
  // sum)), for the first `channels` outputs. Where residual.base is null it counts as zero; `conv`
  // has a bias and shifts.
  void (*convolve)(const PackedConv& conv, const FeatureRows<const std::int16_t>& inputs,
                   const std::ptrdiff_t* taps, const FeatureRows<const std::int16_t>& residual,
                   Activation activation, int channels, const FeatureRows<std::int16_t>& outputs);

  // pixels[i] = clamp(((a[i] + b[i] + 32) >> 6) + 128, 0, 255); a null `b` counts as zeros.
  void (*pixels)(const std::int16_t* a, const std::int16_t* b, std::ptrdiff_t size,
                 std::uint8_t* pixels);

  // stream = base + sums, saturated; next = activation(stream). `base`, `stream`: channels apart.
  void (*begin_stream)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                       const std::int32_t* base, std::int16_t* stream,
                       const FeatureRows<std::int16_t>& next);

  // stream += sums, saturated; next = activation(stream). Rows of `stream`: channels apart.
  void (*add_to_stream)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                        std::int16_t* stream, const FeatureRows<std::int16_t>& next);

  // next = tanh(first half of sums) * sigmoid(second half), by tables of 256 entries.
  void (*gate)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
               const std::int8_t* tanh, const std::int8_t* sigmoid,
               const FeatureRows<std::int16_t>& next);

  // next = sums, clamped to low..127.
  void (*clamp)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels, int low,
                const FeatureRows<std::int16_t>& next);

  // The largest of size > 0 values.
  std::int32_t (*maximum)(const std::int32_t* x, std::ptrdiff_t size);

  // weights[i] = table[min((top - x[i]) >> shift, last)], top being the maximum of x.
  void (*weigh)(const std::int32_t* x, std::ptrdiff_t size, std::int32_t top, int shift,
                const std::uint16_t* table, std::uint32_t last, std::uint16_t* weights);

  std::uint64_t (*sum)(const std::uint16_t* x, std::ptrdiff_t size);
};

// The kernel of nearest_codebook (quantizer/nearest_codebook_definition.h).
struct NearestKernel {
  int tile_rows;

  // Writes a tile: the rows first, ..., first + tile_rows - 1 of z, as many as there are, times
  // -2 and transposed to dims x tile_rows. What stands past the last row does not matter.
  void (*pack)(const StridedMatrix& z, std::int64_t first, float* tile);

  // Compares the rows of a tile with the codes first <= k < last.
  //   offsets  offset_k for every code of the codebook
  //   best     tile_rows lowest scores so far, +infinity at first
  //   where    tile_rows codes that had them
  void (*compare)(const float* tile, const StridedMatrix& codebook, const float* offsets,
                  std::int32_t first, std::int32_t last, float* best, std::int32_t* where);
};

// Rows that one thread packs for NearestKernel at a time: whole tiles in every variant.
inline constexpr int kMaxBlockRows = 192;

// The kernels of nearest_codes and code_candidates. A codebook is packed into panels of kPanel
// codes: num_panels x channels x kPanel.
struct CodeCostKernels {
  // distance[k] = squared distance of z and code k, modulo 2^32.
  void (*narrow_distances)(const std::int16_t* z, int channels, const std::int16_t* codebook,
                           int num_panels, std::uint32_t* distance);
  // The same exactly.
  void (*wide_distances)(const std::int16_t* z, int channels, const std::int16_t* codebook,
                         int num_panels, std::uint64_t* distance);

  // costs[k] = min((distance[k] * mantissa) >> shift, 2^30); mantissas lie below 2^16, distances
  // below 2^48.
  void (*narrow_costs)(const std::uint32_t* distance, int num_panels, std::uint32_t mantissa,
                       int shift, std::int32_t* costs);
  void (*wide_costs)(const std::uint64_t* distance, int num_panels, std::uint32_t mantissa,
                     int shift, std::int32_t* costs);

  // The `count` codes with the lowest scores costs[k] + lengths[k], best first, the lower code
  // first where they are equal. Returns how many there are: fewer than `count` if there are fewer
  // codes.
  int (*select)(const std::int32_t* costs, const std::int32_t* lengths, int num_panels, int count,
                std::int32_t* codes, std::int32_t* scores);
};

// All kernels of one instruction set.
struct Kernels {
  IntegerKernels integer;
  NearestKernel nearest;
  CodeCostKernels code_costs;
  SampleKernels samples;
  IndexKernels indices;
};

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kNeonKernels;

// Those of a variant that is_supported here.
const Kernels& kernels_of(Variant variant);

}  // namespace vqcodec
