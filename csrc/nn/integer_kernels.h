// The kernels of integer networks, written once for every instruction set.
//
// Weights lie in panels of kPanel outputs, pairs of inputs side by side (nn/kernels.h), so that a
// vector of widened weights times a broadcast pair of inputs (pmaddwd) gives one term of kPanel
// sums. A tile of kTileRows positions x kTilePanels panels lives in registers:
//
//                    panel(s)
//     position 0     sum ...              per pair of inputs: load and widen the weights once,
//     position 1     sum ...              broadcast kTileRows pairs, kTileRows * kTilePanels
//     ...                                 multiply-adds per vector
//
// A panel's weights stay in the first-level cache while all positions go past it. Everything
// between the products is element by element: plain loops, which the compiler vectorises for the
// instruction set of the file.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/fixed_point.h"
#include "nn/kernels.h"

namespace vqcodec {
namespace {

// Simd: Sums (kPanel int32), Weights (kPanel pairs of int16), Pair (a broadcast pair);
// zero(), load(int32*), load(int8*), load(int16*) as Sums, broadcast(int16*),
// add_products(&sums, weights, pair), shifted(sums, int32*), add(sums, sums),
// limited(sums) to -2^20..2^20, relu(sums), leaky(sums), store(int32*, sums) and
// store(int16*, sums), which saturates.
template <class Simd, int kTileRows, int kTilePanels>
struct IntegerTile {
  using Sums = typename Simd::Sums;
  using Inputs = FeatureRows<const std::int16_t>;
  static constexpr int kLookups = 64;

  // What becomes of the sums of output `output`, ..., `output + kPanel - 1` at row i: the product.
  struct StoreSums {
    const PackedConv& conv;
    std::int32_t* sums;
    std::ptrdiff_t stride;

    void operator()(int i, int output, const Sums& sum) const {
      Simd::store(sums + i * stride + output,
                  conv.shift == nullptr ? sum : Simd::shifted(sum, conv.shift + output));
    }
  };

  // Likewise: features.
  struct StoreFeatures {
    const PackedConv& conv;
    Inputs residual;
    Activation activation;
    int channels;
    FeatureRows<std::int16_t> outputs;

    void operator()(int i, int output, const Sums& sum) const {
      Sums x = Simd::shifted(sum, conv.shift + output);
      const int count = channels - output;
      if (residual.base != nullptr) {
        // Within 2^20 the sum with an int16 cannot overflow, and beyond it decides alone.
        x = Simd::add(Simd::limited(x), part(row_of(residual, i) + output, count));
      }
      if (activation == Activation::relu) x = Simd::relu(x);
      if (activation == Activation::leaky) x = Simd::leaky(x);
      std::int16_t* const to = row_of(outputs, i) + output;
      if (count >= kPanel) {
        Simd::store(to, x);
      } else {
        std::int16_t features[kPanel];
        Simd::store(features, x);
        for (int o = 0; o < count; ++o) to[o] = features[o];
      }
    }

    static Sums part(const std::int16_t* from, int count) {
      if (count >= kPanel) return Simd::load(from);
      std::int16_t features[kPanel] = {};
      for (int o = 0; o < count; ++o) features[o] = from[o];
      return Simd::load(features);
    }
  };

  template <int kRows, int kPanels, class Store>
  static void tile(const PackedConv& conv, int panel, const Inputs& inputs, int first,
                   const std::ptrdiff_t* taps, const Store& store) {
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

    // Unrolled, or the sums would not be in registers.
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) store(first + r, (panel + p) * kPanel, sum[r][p]);
    }
  }

  // The last rows of a panel, fewer than kTileRows.
  template <int kRows, int kPanels, class Store>
  static void last_rows(const PackedConv& conv, int panel, const Inputs& inputs, int first,
                        const std::ptrdiff_t* taps, const Store& store) {
    if constexpr (kRows > 0) {
      if (inputs.count - first == kRows) {
        tile<kRows, kPanels>(conv, panel, inputs, first, taps, store);
      } else {
        last_rows<kRows - 1, kPanels>(conv, panel, inputs, first, taps, store);
      }
    }
  }

  template <int kPanels, class Store>
  static void panels(const PackedConv& conv, int panel, const Inputs& inputs,
                     const std::ptrdiff_t* taps, const Store& store) {
    int first = 0;
    for (; first + kTileRows <= inputs.count; first += kTileRows) {
      tile<kTileRows, kPanels>(conv, panel, inputs, first, taps, store);
    }
    last_rows<kTileRows - 1, kPanels>(conv, panel, inputs, first, taps, store);
  }

  template <class Store>
  static void all_panels(const PackedConv& conv, const Inputs& inputs, const std::ptrdiff_t* taps,
                         const Store& store) {
    int panel = 0;
    for (; panel + kTilePanels <= conv.num_panels; panel += kTilePanels) {
      panels<kTilePanels>(conv, panel, inputs, taps, store);
    }
    for (; panel < conv.num_panels; ++panel) panels<1>(conv, panel, inputs, taps, store);
  }

  static void product(const PackedConv& conv, const Inputs& inputs, const std::ptrdiff_t* taps,
                      std::int32_t* sums, std::ptrdiff_t sums_stride) {
    all_panels(conv, inputs, taps, StoreSums{conv, sums, sums_stride});
  }

  static void convolve(const PackedConv& conv, const Inputs& inputs, const std::ptrdiff_t* taps,
                       const Inputs& residual, Activation activation, int channels,
                       const FeatureRows<std::int16_t>& outputs) {
    all_panels(conv, inputs, taps, StoreFeatures{conv, residual, activation, channels, outputs});
  }

  static void pixels(const std::int16_t* __restrict a, const std::int16_t* __restrict b,
                     std::ptrdiff_t size, std::uint8_t* __restrict pixels) {
    if (b == nullptr) {
      for (std::ptrdiff_t i = 0; i < size; ++i) {
        pixels[i] = static_cast<std::uint8_t>(pixel(a[i]));
      }
    } else {
      for (std::ptrdiff_t i = 0; i < size; ++i) {
        pixels[i] = static_cast<std::uint8_t>(pixel(a[i] + b[i]));
      }
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
                   const std::int8_t* tanh, const std::int8_t* sigmoid,
                   const FeatureRows<std::int16_t>& next) {
    for (int i = 0; i < next.count; ++i) {
      const std::int32_t* const a = sums + i * sums_stride;
      std::int16_t* const out = row_of(next, i);
      for (int c = 0; c < channels; c += kLookups) {
        const int size = channels - c < kLookups ? channels - c : kLookups;
        gate_block(a + c, a + channels + c, size, tanh, sigmoid, out + c);
      }
    }
  }

  static void gate_block(const std::int32_t* __restrict a, const std::int32_t* __restrict b,
                         int size, const std::int8_t* tanh, const std::int8_t* sigmoid,
                         std::int16_t* __restrict out) {
    std::uint8_t index_a[kLookups], index_b[kLookups];
    for (int i = 0; i < size; ++i) index_a[i] = static_cast<std::uint8_t>(gate_index(a[i]));
    for (int i = 0; i < size; ++i) index_b[i] = static_cast<std::uint8_t>(gate_index(b[i]));
    std::int8_t value_a[kLookups], value_b[kLookups];
#pragma GCC unroll 8
    for (int i = 0; i < size; ++i) {
      value_a[i] = tanh[index_a[i]];
      value_b[i] = sigmoid[index_b[i]];
    }
    for (int i = 0; i < size; ++i) {
      out[i] = static_cast<std::int16_t>(vqcodec::gate(value_a[i], value_b[i]));
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

  static constexpr IntegerKernels table() {
    return {product, convolve, pixels,  begin_stream, add_to_stream,
            gate,    clamp,    maximum, weigh,        sum};
  }
};

}  // namespace
}  // namespace vqcodec
