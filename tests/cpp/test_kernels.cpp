// The kernels of integer networks, of every instruction set, against plain loops.

#include "nn/kernels.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "nn/convolution.h"
#include "nn/fixed_point.h"
#include "random_values.h"

namespace vqcodec {

using testing::random_values;
using testing::uniform;
using testing::variants;

TEST(kernels_product_equals_plain_loops) {
  for (Variant variant : variants()) {
    for (int outputs : {1, 15, 16, 17, 48, 100}) {
      for (int inputs : {1, 2, 7, 48}) {
        for (int count : {1, 2, 4, 5, 6, 8, 13, 17}) {
          const int num_taps = uniform(1, 4), stride = (inputs + 1) / 2 * 2;
          const std::size_t size = static_cast<std::size_t>(outputs) * num_taps * inputs;
          const auto weight = random_values<std::int8_t>(size, -127, 127);
          const auto bias = random_values<std::int32_t>(outputs, -100000, 100000);
          const auto shift = random_values<std::uint8_t>(outputs, 0, 12);
          const Conv conv({weight.data(), bias.data(), shift.data(), outputs, num_taps, inputs},
                          std::vector<Offset>(num_taps));
          const auto reached = static_cast<std::size_t>(2 * count + 8) * stride;
          const int most = count % 2 == 0 ? 127 : 32767;  // int8 features, and all of int16
          const auto features = random_values<std::int16_t>(reached, -most - 1, most);
          std::vector<std::int32_t> rows, found(count * conv.num_panels() * kPanel);
          for (int i = 0; i < count; ++i) rows.push_back(uniform(0, 2 * count));
          std::vector<std::ptrdiff_t> taps;
          for (int i = 0; i < num_taps; ++i) taps.push_back(std::ptrdiff_t{stride} * uniform(0, 7));
          const FeatureRows<const std::int16_t> from = {features.data(), rows.data(), stride,
                                                        count};
          kernels_of(variant).integer.product(conv.packed(), from, taps.data(), found.data(),
                                              conv.num_panels() * kPanel);
          for (int i = 0; i < count; ++i) {
            for (int o = 0; o < outputs; ++o) {
              std::int32_t sum = bias[o] + rounding_half(shift[o]);
              for (int t = 0; t < num_taps; ++t) {
                for (int c = 0; c < inputs; ++c) {
                  sum += weight[(o * num_taps + t) * inputs + c] *
                         features[rows[i] * stride + taps[t] + c];
                }
              }
              CHECK_EQ(found[i * conv.num_panels() * kPanel + o], sum >> shift[o]);
            }
          }
        }
      }
    }
  }
}

TEST(kernels_convolve_finishes_the_sums_of_product) {
  for (Variant variant : variants()) {
    const IntegerKernels& kernel = kernels_of(variant).integer;
    for (int outputs : {1, 3, 15, 16, 17, 40}) {
      for (int count : {1, 5, 6, 7, 8, 16}) {
        for (Activation activation : {Activation::none, Activation::relu, Activation::leaky}) {
          for (bool residual : {false, true}) {
            const int inputs = uniform(1, 20), stride = (inputs + 1) / 2 * 2;
            const auto weight = random_values<std::int8_t>(outputs * inputs, -127, 127);
            const auto bias = random_values<std::int32_t>(outputs, -100000, 100000);
            const auto shift = random_values<std::uint8_t>(outputs, 0, 14);
            const Conv conv({weight.data(), bias.data(), shift.data(), outputs, 1, inputs},
                            {{0, 0}});
            const auto features = random_values<std::int16_t>(count * stride, -32768, 32767);
            const auto added = random_values<std::int16_t>(count * outputs, -32768, 32767);
            std::vector<std::int32_t> rows, sums(count * conv.num_panels() * kPanel);
            for (int i = 0; i < count; ++i) rows.push_back(count - 1 - i);
            const std::ptrdiff_t tap = 0;
            const FeatureRows<const std::int16_t> from = {features.data(), rows.data(), stride,
                                                          count};
            kernel.product(conv.packed(), from, &tap, sums.data(), conv.num_panels() * kPanel);
            // One more at the end of every row, which must stay as it is.
            std::vector<std::int16_t> found(count * (outputs + 1), 77);
            kernel.convolve(conv.packed(), from, &tap,
                            {residual ? added.data() : nullptr, rows.data(), outputs, count},
                            activation, outputs, {found.data(), rows.data(), outputs + 1, count});
            for (int i = 0; i < count; ++i) {
              for (int o = 0; o < outputs; ++o) {
                std::int64_t x = sums[i * conv.num_panels() * kPanel + o];
                if (residual) x += added[rows[i] * outputs + o];
                if (x < 0 && activation == Activation::relu) x = 0;
                if (x < 0 && activation == Activation::leaky) x = (x + 4) >> 3;
                CHECK_EQ(found[rows[i] * (outputs + 1) + o],
                         std::clamp<std::int64_t>(x, -32768, 32767));
              }
              CHECK_EQ(found[rows[i] * (outputs + 1) + outputs], 77);
            }
          }
        }
      }
    }
  }
}

TEST(kernels_pixels_round_and_saturate) {
  const int size = 1001;
  auto a = random_values<std::int16_t>(size, -9000, 9000);
  auto b = random_values<std::int16_t>(size, -32768, 32767);
  a[0] = b[0] = 32767;
  a[1] = b[1] = -32768;
  a[2] = 31, a[3] = 32, a[4] = -32, a[5] = -33;  // 128, 129, 128, 127
  for (Variant variant : variants()) {
    for (bool both : {false, true}) {
      std::vector<std::uint8_t> found(size);
      kernels_of(variant).integer.pixels(a.data(), both ? b.data() : nullptr, size, found.data());
      for (int i = 0; i < size; ++i) {
        const int sum = a[i] + (both ? b[i] : 0);
        CHECK_EQ(int{found[i]}, std::clamp(((sum + 32) >> 6) + 128, 0, 255));
      }
    }
  }
}

// The largest sums that a network may have, at both ends.
TEST(kernels_product_uses_all_of_int32) {
  const int inputs = 500;
  std::vector<std::int8_t> weight(inputs, 127);
  const std::uint8_t shift = 0;
  for (int sign : {-1, 1}) {
    const std::int32_t room = std::numeric_limits<std::int32_t>::max() - inputs * 127 * 128;
    const std::int32_t bias = sign * room;
    const Conv conv({weight.data(), &bias, &shift, 1, 1, inputs}, {{0, 0}});
    const std::vector<std::int16_t> features(inputs, sign < 0 ? -128 : 127);
    const std::int32_t row = 0;
    const std::ptrdiff_t tap = 0;
    std::vector<std::int32_t> sums(kPanel);
    for (Variant variant : variants()) {
      kernels_of(variant).integer.product(conv.packed(), {features.data(), &row, inputs, 1}, &tap,
                                          sums.data(), kPanel);
      CHECK_EQ(sums[0], bias + inputs * 127 * features[0]);
    }
  }
}

TEST(kernels_elementwise_are_the_same_in_every_variant) {
  const auto extremes = [](std::size_t size) {
    auto values = random_values<std::int32_t>(size, -70000, 70000);
    values[0] = std::numeric_limits<std::int32_t>::max();
    values[1] = std::numeric_limits<std::int32_t>::min();
    return values;
  };
  const auto tanh = random_values<std::int8_t>(256, -127, 127);
  const auto sigmoid = random_values<std::int8_t>(256, 0, 127);
  constexpr std::uint32_t last = 512;
  auto exp = random_values<std::uint16_t>(last, 0, 65535);
  exp.push_back(0);
  for (int channels : {2, 16, 67}) {
    const int count = 3;
    const std::ptrdiff_t stride = 2 * channels + 5;
    const auto sums = extremes(static_cast<std::size_t>(stride) * count);
    const auto base = random_values<std::int32_t>(channels * count, -98304, 98301);
    const auto stream = random_values<std::int16_t>(channels * count, -32768, 32767);
    const std::int32_t rows[count] = {2, 0, 1};
    std::vector<std::vector<std::int16_t>> expected;
    for (Variant variant : variants()) {
      const IntegerKernels& kernel = kernels_of(variant).integer;
      std::vector<std::vector<std::int16_t>> found;
      const auto next = [&] {
        found.emplace_back(channels * count);
        return FeatureRows<std::int16_t>{found.back().data(), rows, channels, count};
      };
      std::vector<std::int16_t> begun(stream.size()), added = stream;
      kernel.begin_stream(sums.data(), stride, channels, base.data(), begun.data(), next());
      kernel.add_to_stream(sums.data(), stride, channels, added.data(), next());
      kernel.gate(sums.data(), stride, channels, tanh.data(), sigmoid.data(), next());
      kernel.clamp(sums.data(), stride, channels, -128, next());
      found.push_back(begun);
      found.push_back(added);
      if (expected.empty()) expected = found;
      CHECK(found == expected);
      for (int i = 0; i < channels * count; ++i) {
        const std::int64_t sum = sums[i / channels * stride + i % channels];
        CHECK_EQ(begun[i], std::clamp<std::int64_t>(base[i] + sum, -32768, 32767));
        CHECK_EQ(added[i], std::clamp<std::int64_t>(stream[i] + sum, -32768, 32767));
      }

      const std::int32_t top = kernel.maximum(sums.data(), stride * count);
      CHECK_EQ(top, *std::max_element(sums.begin(), sums.end()));
      std::vector<std::uint16_t> weights(sums.size());
      kernel.weigh(sums.data(), stride * count, top, 3, exp.data(), last, weights.data());
      std::uint64_t total = 0;
      for (std::size_t i = 0; i < sums.size(); ++i) {
        const std::int64_t distance = (std::int64_t{top} - sums[i]) >> 3;
        CHECK_EQ(weights[i], distance < last ? exp[distance] : 0);
        total += weights[i];
      }
      CHECK_EQ(kernel.sum(weights.data(), stride * count), total);
    }
  }
}

}  // namespace vqcodec
