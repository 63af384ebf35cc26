// The kernels in portable C++.
#include <cmath>

#include "nn/code_cost_kernel.h"
#include "nn/index_kernel.h"
#include "nn/integer_kernels.h"
#include "nn/nearest_codebook_kernel.h"
#include "nn/sample_kernel.h"

namespace vqcodec {
namespace {

struct Integers {
  struct Sums {
    std::int32_t lane[kPanel];
  };
  using Weights = const std::int8_t*;
  struct Pair {
    std::int32_t first, second;
  };

  static Sums zero() { return {}; }
  static Sums load(const std::int32_t* from) {
    Sums sums;
    for (int i = 0; i < kPanel; ++i) sums.lane[i] = from[i];
    return sums;
  }
  static Weights load(const std::int8_t* from) { return from; }
  static Pair broadcast(const std::int16_t* from) { return {from[0], from[1]}; }
  static void add_products(Sums* sums, Weights weights, Pair pair) {
    for (int i = 0; i < kPanel; ++i) {
      sums->lane[i] += weights[2 * i] * pair.first + weights[2 * i + 1] * pair.second;
    }
  }
  static Sums shifted(const Sums& sums, const std::int32_t* shift) {
    Sums result;
    for (int i = 0; i < kPanel; ++i) result.lane[i] = sums.lane[i] >> shift[i];
    return result;
  }
  static Sums load(const std::int16_t* from) {
    Sums sums;
    for (int i = 0; i < kPanel; ++i) sums.lane[i] = from[i];
    return sums;
  }
  static Sums add(Sums a, const Sums& b) {
    for (int i = 0; i < kPanel; ++i) a.lane[i] += b.lane[i];
    return a;
  }
  static Sums limited(Sums x) {
    for (std::int32_t& lane : x.lane) lane = vqcodec::clamp(lane, -(1 << 20), 1 << 20);
    return x;
  }
  static Sums relu(Sums x) {
    for (std::int32_t& lane : x.lane) lane = lane < 0 ? 0 : lane;
    return x;
  }
  static Sums leaky(Sums x) {
    for (std::int32_t& lane : x.lane) lane = vqcodec::leaky(lane);
    return x;
  }
  static void store(std::int32_t* to, const Sums& sums) {
    for (int i = 0; i < kPanel; ++i) to[i] = sums.lane[i];
  }
  static void store(std::int16_t* to, const Sums& sums) {
    for (int i = 0; i < kPanel; ++i) {
      to[i] = static_cast<std::int16_t>(saturate16(sums.lane[i]));
    }
  }
};

using Integer = IntegerTile<Integers, 1, 1>;

// Four lanes in portable C++. Compilers turn them into vectors where the target has an FMA.
struct Floats {
  static constexpr int lanes = 4;
  struct Float {
    float lane[lanes];
  };
  struct Int {
    std::int32_t lane[lanes];
  };

  static Float load(const float* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static Int load(const std::int32_t* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static Float broadcast(float x) { return {{x, x, x, x}}; }
  static Int broadcast(std::int32_t x) { return {{x, x, x, x}}; }
  static void store(float* to, Float x) {
    for (int i = 0; i < lanes; ++i) to[i] = x.lane[i];
  }
  static void store(std::int32_t* to, Int x) {
    for (int i = 0; i < lanes; ++i) to[i] = x.lane[i];
  }
  static Float fma(Float a, Float b, Float c) {
    for (int i = 0; i < lanes; ++i) c.lane[i] = std::fma(a.lane[i], b.lane[i], c.lane[i]);
    return c;
  }
  static void keep_lower(Float score, Int code, Float* best, Int* where) {
    for (int i = 0; i < lanes; ++i) {
      const bool lower = score.lane[i] < best->lane[i];
      best->lane[i] = lower ? score.lane[i] : best->lane[i];
      where->lane[i] = lower ? code.lane[i] : where->lane[i];
    }
  }
};

using Nearest = NearestTile<Floats, 2, 2>;

}  // namespace

const Kernels kScalarKernels = {Integer::table(), Nearest::table(), CodeCosts::table(),
                                Samples::table(), Indices::table()};

}  // namespace vqcodec
