// The inner kernels of the integer prior, written once for every instruction set.
//
// Convolutions are matrix products: positions x (taps * inputs) times (taps * inputs) x outputs.
// The positions of a step are rows of int16 features that lie somewhere in memory; the weights
// are packed into panels of kPanel outputs:
//
//     panel, tap, pair of inputs (i, i+1):   w0[i] w0[i+1]  w1[i] w1[i+1]  ...  w15[i] w15[i+1]
//
// so that a vector of widened weights times a broadcast pair of inputs (pmaddwd) gives one term
// of kPanel sums. A tile of kTileRows positions x kTilePanels panels lives in registers:
//
//                    panel(s)
//     position 0     sum ...              per pair of inputs: load and widen the weights once,
//     position 1     sum ...              broadcast kTileRows pairs, kTileRows * kTilePanels
//     ...                                 multiply-adds per vector
//
// A panel's weights stay in the first-level cache while all positions of a step go past it.
// Everything between the products is element by element: plain loops, which the compiler
// vectorises for the instruction set of the file.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/fixed_point.h"

namespace vqcodec::cpu {

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

struct PriorKernel {
  // sums[i * sums_stride + o] = (sum over taps and inputs + bias[o]) >> shift[o], for every
  // output of every panel. Tap j of row i is at inputs[i] + taps[j].
  void (*product)(const PackedConv& conv, const FeatureRows<const std::int16_t>& inputs,
                  const std::ptrdiff_t* taps, std::int32_t* sums, std::ptrdiff_t sums_stride);

  // stream = base + sums, saturated; next = activation(stream). `base`, `stream`: channels apart.
  void (*begin_stream)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                       const std::int32_t* base, std::int16_t* stream,
                       const FeatureRows<std::int16_t>& next);

  // stream += sums, saturated; next = activation(stream). Rows of `stream`: channels apart.
  void (*add_to_stream)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                        std::int16_t* stream, const FeatureRows<std::int16_t>& next);

  // next = tanh(first half of sums) * sigmoid(second half), by table.
  void (*gate)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
               const PriorTables& tables, const FeatureRows<std::int16_t>& next);

  // next = sums, clamped to low..127.
  void (*clamp)(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels, int low,
                const FeatureRows<std::int16_t>& next);

  std::int32_t (*maximum)(const std::int32_t* x, std::ptrdiff_t size);

  // weights[i] = table[min((top - x[i]) >> shift, last)], top being the maximum of x.
  void (*weigh)(const std::int32_t* x, std::ptrdiff_t size, std::int32_t top, int shift,
                const std::uint16_t* table, std::uint32_t last, std::uint16_t* weights);

  std::uint64_t (*sum)(const std::uint16_t* x, std::ptrdiff_t size);
};

extern const PriorKernel kPriorScalar;
extern const PriorKernel kPriorAvx2;
extern const PriorKernel kPriorAvx512;

namespace {

template <class T>
T* row_of(const FeatureRows<T>& features, int i) {
  return features.base + features.rows[i] * features.stride;
}

// Simd: Sums (kPanel int32), Weights (kPanel pairs of int16), Pair (a broadcast pair);
// zero(), load(int32*), load(int8*), broadcast(int16*), add_products(&sums, weights, pair),
// shifted(sums, int32*), store(int32*, sums).
template <class Simd, int kTileRows, int kTilePanels>
struct PriorKernels {
  using Sums = typename Simd::Sums;
  using Inputs = FeatureRows<const std::int16_t>;
  static constexpr int kLookups = 64;

  template <int kRows, int kPanels>
  static void tile(const PackedConv& conv, int panel, const Inputs& inputs, int first,
                   const std::ptrdiff_t* taps, std::int32_t* sums, std::ptrdiff_t sums_stride) {
    Sums sum[kRows][kPanels];
    for (int p = 0; p < kPanels; ++p) {
      const Sums start =
          conv.bias == nullptr ? Simd::zero() : Simd::load(conv.bias + (panel + p) * kPanel);
      for (int r = 0; r < kRows; ++r) sum[r][p] = start;
    }
    const std::int16_t* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = row_of(inputs, first + r);

    const std::int8_t* weights = conv.weights + panel * conv.panel_bytes;
    for (int t = 0; t < conv.taps; ++t) {
      const std::ptrdiff_t tap = taps[t];
      for (int i = 0; i < conv.pairs; ++i) {
        typename Simd::Weights w[kPanels];
        for (int p = 0; p < kPanels; ++p) w[p] = Simd::load(weights + p * conv.panel_bytes);
        for (int r = 0; r < kRows; ++r) {
          const auto pair = Simd::broadcast(row[r] + tap + 2 * i);
          for (int p = 0; p < kPanels; ++p) Simd::add_products(&sum[r][p], w[p], pair);
        }
        weights += 2 * kPanel;
      }
    }

    for (int p = 0; p < kPanels; ++p) {
      const int output = (panel + p) * kPanel;
      for (int r = 0; r < kRows; ++r) {
        const Sums result = conv.shift == nullptr
                                ? sum[r][p]
                                : Simd::shifted(sum[r][p], conv.shift + output);
        Simd::store(sums + (first + r) * sums_stride + output, result);
      }
    }
  }

  // The last rows of a panel, fewer than kTileRows.
  template <int kRows, int kPanels>
  static void last_rows(const PackedConv& conv, int panel, const Inputs& inputs, int first,
                        const std::ptrdiff_t* taps, std::int32_t* sums,
                        std::ptrdiff_t sums_stride) {
    if constexpr (kRows > 0) {
      if (inputs.count - first == kRows) {
        tile<kRows, kPanels>(conv, panel, inputs, first, taps, sums, sums_stride);
      } else {
        last_rows<kRows - 1, kPanels>(conv, panel, inputs, first, taps, sums, sums_stride);
      }
    }
  }

  template <int kPanels>
  static void panels(const PackedConv& conv, int panel, const Inputs& inputs,
                     const std::ptrdiff_t* taps, std::int32_t* sums, std::ptrdiff_t sums_stride) {
    int first = 0;
    for (; first + kTileRows <= inputs.count; first += kTileRows) {
      tile<kTileRows, kPanels>(conv, panel, inputs, first, taps, sums, sums_stride);
    }
    last_rows<kTileRows - 1, kPanels>(conv, panel, inputs, first, taps, sums, sums_stride);
  }

  static void product(const PackedConv& conv, const Inputs& inputs, const std::ptrdiff_t* taps,
                      std::int32_t* sums, std::ptrdiff_t sums_stride) {
    int panel = 0;
    for (; panel + kTilePanels <= conv.num_panels; panel += kTilePanels) {
      panels<kTilePanels>(conv, panel, inputs, taps, sums, sums_stride);
    }
    for (; panel < conv.num_panels; ++panel) {
      panels<1>(conv, panel, inputs, taps, sums, sums_stride);
    }
  }

  static void begin_stream(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                           const std::int32_t* base, std::int16_t* stream,
                           const FeatureRows<std::int16_t>& next) {
    for (int i = 0; i < next.count; ++i) {
      add_row(sums + i * sums_stride, base + std::ptrdiff_t{i} * channels, channels,
              stream + std::ptrdiff_t{i} * channels, row_of(next, i));
    }
  }

  static void add_to_stream(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                            std::int16_t* stream, const FeatureRows<std::int16_t>& next) {
    for (int i = 0; i < next.count; ++i) {
      std::int16_t* row = stream + std::ptrdiff_t{i} * channels;
      add_row(sums + i * sums_stride, row, channels, row, row_of(next, i));
    }
  }

  template <class Base>
  static void add_row(const std::int32_t* __restrict sums, const Base* base, int channels,
                      std::int16_t* stream, std::int16_t* __restrict next) {
    for (int c = 0; c < channels; ++c) {
      const std::int32_t x = vqcodec::add_to_stream(base[c], sums[c]);
      stream[c] = static_cast<std::int16_t>(x);
      next[c] = static_cast<std::int16_t>(activation(x));
    }
  }

  // Look-ups do not vectorise, but what is around them does: hence blocks of indices.
  static void gate(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels,
                   const PriorTables& tables, const FeatureRows<std::int16_t>& next) {
    for (int i = 0; i < next.count; ++i) {
      const std::int32_t* const a = sums + i * sums_stride;
      std::int16_t* const out = row_of(next, i);
      for (int c = 0; c < channels; c += kLookups) {
        const int size = channels - c < kLookups ? channels - c : kLookups;
        gate_block(a + c, a + channels + c, size, tables, out + c);
      }
    }
  }

  static void gate_block(const std::int32_t* __restrict a, const std::int32_t* __restrict b,
                         int size, const PriorTables& tables, std::int16_t* __restrict out) {
    std::uint8_t index_a[kLookups], index_b[kLookups];
    for (int i = 0; i < size; ++i) index_a[i] = static_cast<std::uint8_t>(gate_index(a[i]));
    for (int i = 0; i < size; ++i) index_b[i] = static_cast<std::uint8_t>(gate_index(b[i]));
    std::int8_t tanh[kLookups], sigmoid[kLookups];
#pragma GCC unroll 8
    for (int i = 0; i < size; ++i) {
      tanh[i] = tables.tanh[index_a[i]];
      sigmoid[i] = tables.sigmoid[index_b[i]];
    }
    for (int i = 0; i < size; ++i) {
      out[i] = static_cast<std::int16_t>(vqcodec::gate(tanh[i], sigmoid[i]));
    }
  }

  static void clamp(const std::int32_t* sums, std::ptrdiff_t sums_stride, int channels, int low,
                    const FeatureRows<std::int16_t>& next) {
    for (int i = 0; i < next.count; ++i) {
      const std::int32_t* __restrict x = sums + i * sums_stride;
      std::int16_t* __restrict out = row_of(next, i);
      for (int c = 0; c < channels; ++c) {
        out[c] = static_cast<std::int16_t>(vqcodec::clamp(x[c], low, 127));
      }
    }
  }

  static std::int32_t maximum(const std::int32_t* x, std::ptrdiff_t size) {
    std::int32_t top = x[0];
    for (std::ptrdiff_t i = 1; i < size; ++i) top = x[i] > top ? x[i] : top;
    return top;
  }

  static void weigh(const std::int32_t* __restrict x, std::ptrdiff_t size, std::int32_t top,
                    int shift, const std::uint16_t* __restrict table, std::uint32_t last,
                    std::uint16_t* __restrict weights) {
    std::uint32_t distance[kLookups];
    for (std::ptrdiff_t first = 0; first < size; first += kLookups) {
      const std::ptrdiff_t count = size - first < kLookups ? size - first : kLookups;
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        // Unsigned: distances go up to 2^32 - 1.
        const std::uint32_t exact =
            (static_cast<std::uint32_t>(top) - static_cast<std::uint32_t>(x[first + i])) >> shift;
        distance[i] = exact < last ? exact : last;
      }
#pragma GCC unroll 8
      for (std::ptrdiff_t i = 0; i < count; ++i) weights[first + i] = table[distance[i]];
    }
  }

  static std::uint64_t sum(const std::uint16_t* x, std::ptrdiff_t size) {
    std::uint64_t total = 0;
    for (std::ptrdiff_t i = 0; i < size; ++i) total += x[i];
    return total;
  }

  static constexpr PriorKernel table() {
    return {product, begin_stream, add_to_stream, gate, clamp, maximum, weigh, sum};
  }
};

}  // namespace
}  // namespace vqcodec::cpu
