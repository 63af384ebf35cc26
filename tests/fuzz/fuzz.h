// What the fuzz targets share: taking an input apart, and small priors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "coding/frequency_table.h"
#include "coding/range_decoder.h"
#include "coding/range_encoder.h"
#include "nn/instruction_set.h"
#include "prior/prior_network.h"

// A property that every input must have.
#define REQUIRE(condition)                                                            \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                   \
    }                                                                                 \
  } while (false)

namespace vqcodec::fuzz {

// An input, read from front to back; zeros follow its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : next_(data), end_(data + size) {}

  int byte() { return next_ != end_ ? *next_++ : 0; }
  int below(int count) { return byte() % count; }
  std::uint32_t word() {
    std::uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | static_cast<std::uint32_t>(byte());
    return word;
  }
  // As many bytes as there are, at most `most`. In memory of their own, so that a sanitizer sees
  // a read past their end.
  std::vector<std::uint8_t> bytes(std::size_t most) {
    const std::size_t size = std::min(most, static_cast<std::size_t>(end_ - next_));
    const std::vector<std::uint8_t> found(next_, next_ + size);
    next_ += size;
    return found;
  }

 private:
  const std::uint8_t* next_;
  const std::uint8_t* end_;
};

// What a small prior is to be.
struct PriorShape {
  int codes = 3;
  int hidden = 2;
  int heads = 0;
  int kernel = 3;
  int first_kernel = 3;
  int embedding = 1;
  int residual = 1;
  int blocks = 1;
  int output_blocks = 0;
  int condition_blocks = 0;
  int classes = 2;
  int levels = 2;
  std::vector<int> coarser_codes;
  std::vector<int> factors;
  int coarser_channels = 1;
};

// A number or a size that is not what it should be: of those that a prior has, which, and what.
struct Lie {
  int number;
  int kind;
};

// A value of a tensor that is overwritten.
struct Patch {
  int tensor;
  int element;
  std::int32_t value;
};

// Tensors of a prior, as a model file might hold them: sound but for the lies and patches.
// Sizes are always those of the memory behind them, as the binding guarantees.
class SmallPrior {
 public:
  SmallPrior(const PriorShape& shape, std::uint32_t seed, std::vector<Lie> lies = {},
             std::vector<Patch> patches = {})
      : random_(seed | 1), lies_(std::move(lies)), patches_(std::move(patches)) {
    const int hidden = shape.hidden, half = shape.kernel / 2, first_half = shape.first_kernel / 2;
    const int taps = half * shape.kernel + half + 1;
    const int first_taps = first_half * shape.first_kernel + first_half;
    tensors.kernel = number(shape.kernel);
    tensors.first_kernel = number(shape.first_kernel);
    tensors.heads = number(shape.heads);
    tensors.num_blocks = number(shape.blocks);
    tensors.embedding = table<std::int8_t>(shape.codes, shape.embedding, -128, 127);
    tensors.first = conv(hidden, first_taps, shape.embedding);
    tensors.classes = table<std::int16_t>(shape.classes, hidden, -2000, 2000);
    tensors.levels = table<std::int16_t>(shape.levels, hidden, -32768, 32767);
    for (std::size_t j = 0; j < shape.coarser_codes.size(); ++j) {
      const int factor = shape.factors[j];
      tensors.factors.push_back(number(factor));
      tensors.coarser.push_back(table<std::int8_t>(
          shape.coarser_codes[j], factor * factor * shape.coarser_channels, -128, 127));
    }
    if (!tensors.coarser.empty()) {
      const int channels = static_cast<int>(tensors.coarser.size()) * shape.coarser_channels;
      tensors.condition_in = conv(hidden, 9, channels);
      for (int i = 0; i < shape.condition_blocks; ++i) {
        tensors.condition.push_back(
            {conv(shape.residual, 9, hidden), conv(hidden, 1, shape.residual), false});
      }
    }
    for (int i = 0; i < shape.blocks + shape.output_blocks; ++i) {
      tensors.layers.push_back({conv(2 * shape.residual, i < shape.blocks ? taps : 1, hidden),
                                conv(hidden, 1, shape.residual), false});
      if (i == 0 && shape.heads > 0) {
        tensors.layers.push_back({conv(3 * hidden, 1, hidden), conv(hidden, 1, hidden), true});
      }
    }
    tensors.logits = conv(shape.codes, 1, hidden);
    for (TableView<std::int8_t>* view : {&tensors.tanh, &tensors.sigmoid}) {
      const std::int64_t size = extent(256);
      *view = {stored(bytes_, size, -127, 127), size, 1};
    }
    exp_.resize(static_cast<std::size_t>(extent(kExpSize)));
    int weight = uniform(1, 65535);
    for (std::uint16_t& value : exp_) {
      value = static_cast<std::uint16_t>(weight);
      weight -= uniform(0, weight / 16);
    }
    patch(exp_);
    tensors.exp = {exp_.data(), static_cast<std::int64_t>(exp_.size()), 1};
  }
  SmallPrior(const SmallPrior&) = delete;
  SmallPrior& operator=(const SmallPrior&) = delete;

  PriorTensors tensors;

 private:
  static constexpr std::int64_t kMostElements = 1 << 16;

  int uniform(int low, int high) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    return low + static_cast<int>(random_ % static_cast<std::uint32_t>(high - low + 1));
  }

  std::int64_t told(std::int64_t truth) {
    static constexpr std::int64_t falsehoods[] = {0,
                                                  1,
                                                  2,
                                                  3,
                                                  4,
                                                  5,
                                                  7,
                                                  8,
                                                  15,
                                                  16,
                                                  17,
                                                  33,
                                                  255,
                                                  256,
                                                  257,
                                                  32768,
                                                  32769,
                                                  65536,
                                                  65537,
                                                  1 << 20,
                                                  (1 << 24) + 1,
                                                  1 << 30,
                                                  std::numeric_limits<std::int32_t>::max(),
                                                  std::int64_t{1} << 32,
                                                  (std::int64_t{1} << 32) + 1,
                                                  std::int64_t{1} << 62,
                                                  std::numeric_limits<std::int32_t>::min(),
                                                  -1};
    constexpr int count = static_cast<int>(std::size(falsehoods));
    ++numbers_;
    for (const Lie& lie : lies_) {
      if (lie.number != numbers_ - 1) continue;
      const int kind = lie.kind % (count + 3);
      if (kind < count) return falsehoods[kind];
      return kind == count ? truth + 1 : kind == count + 1 ? truth - 1 : 2 * truth;
    }
    return truth;
  }
  int number(int truth) { return static_cast<int>(told(truth)); }
  std::int64_t extent(std::int64_t truth) {
    return std::clamp<std::int64_t>(told(truth), 0, kMostElements);
  }

  static std::int64_t elements(const std::vector<std::int64_t>& sizes) {
    std::int64_t product = 1;
    for (std::int64_t size : sizes) {
      if (size == 0) return 0;
      product = product > kMostElements / size ? kMostElements + 1 : product * size;
    }
    return product;
  }

  // Sizes told for a tensor. One that would not fit into memory has to be empty.
  std::vector<std::int64_t> shape(std::vector<std::int64_t> sizes) {
    for (std::int64_t& size : sizes) size = std::max<std::int64_t>(told(size), 0);
    if (elements(sizes) > kMostElements) *std::min_element(sizes.begin(), sizes.end()) = 0;
    return sizes;
  }

  template <class T>
  std::vector<T> values(std::int64_t size, int low, int high) {
    std::vector<T> found(static_cast<std::size_t>(size));
    for (T& value : found) value = static_cast<T>(uniform(low, high));
    return found;
  }

  template <class T>
  void patch(std::vector<T>& values) {
    for (const Patch& patch : patches_) {
      if (patch.tensor != tensors_ || values.empty()) continue;
      values[static_cast<std::size_t>(patch.element) % values.size()] = static_cast<T>(patch.value);
    }
    ++tensors_;
  }

  template <class T>
  const T* stored(std::deque<std::vector<T>>& store, std::int64_t size, int low, int high) {
    store.push_back(values<T>(size, low, high));
    patch(store.back());
    return store.back().data();
  }

  template <class T>
  TableView<T> table(int rows, int columns, int low, int high) {
    const auto sizes = shape({rows, columns});
    if constexpr (sizeof(T) == 1) {
      return {stored(bytes_, elements(sizes), low, high), sizes[0], sizes[1]};
    } else {
      return {stored(shorts_, elements(sizes), low, high), sizes[0], sizes[1]};
    }
  }

  ConvTensors conv(int outputs, int taps, int inputs) {
    const auto sizes = shape({outputs, taps, inputs});
    const std::int64_t bounded = std::min(sizes[0], kMostElements);  // bias and shift have memory
    return {stored(bytes_, elements(sizes), -127, 127),
            stored(words_, bounded, -5000, 5000),
            stored(shifts_, bounded, 4, 9),
            bounded,
            sizes[1],
            sizes[2]};
  }

  std::uint32_t random_;
  std::vector<Lie> lies_;
  std::vector<Patch> patches_;
  int numbers_ = 0;  // told so far
  int tensors_ = 0;  // made so far
  std::deque<std::vector<std::int8_t>> bytes_;
  std::deque<std::vector<std::int16_t>> shorts_;
  std::deque<std::vector<std::int32_t>> words_;
  std::deque<std::vector<std::uint8_t>> shifts_;
  std::vector<std::uint16_t> exp_;
};

// Those that this machine runs, the fastest first.
inline const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = [] {
    std::vector<Variant> found;
    for (Variant variant : kVariants) {
      if (is_supported(variant)) found.insert(found.begin(), variant);
    }
    return found;
  }();
  return all;
}

inline bool never() { return false; }

}  // namespace vqcodec::fuzz
