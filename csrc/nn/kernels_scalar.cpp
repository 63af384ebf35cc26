#include "nn/integer_kernels.h"

namespace vqcodec::cpu {
namespace {

struct SimdScalar {
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
  static void store(std::int32_t* to, const Sums& sums) {
    for (int i = 0; i < kPanel; ++i) to[i] = sums.lane[i];
  }
};

}  // namespace

const PriorKernel kPriorScalar = PriorKernels<SimdScalar, 1, 1>::table();

}  // namespace vqcodec::cpu
