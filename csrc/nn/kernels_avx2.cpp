#include <immintrin.h>

#include "nn/integer_kernels.h"

namespace vqcodec::cpu {
namespace {

struct SimdAvx2 {
  struct Sums {
    __m256i low, high;
  };
  struct Weights {
    __m256i low, high;
  };

  static Sums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Sums load(const std::int32_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 8))};
  }
  static Weights load(const std::int8_t* from) {
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16)))};
  }
  static __m256i broadcast(const std::int16_t* from) {
    std::int32_t pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  static void add_products(Sums* sums, const Weights& weights, __m256i pair) {
    sums->low = _mm256_add_epi32(sums->low, _mm256_madd_epi16(weights.low, pair));
    sums->high = _mm256_add_epi32(sums->high, _mm256_madd_epi16(weights.high, pair));
  }
  static Sums shifted(const Sums& sums, const std::int32_t* shift) {
    const Sums by = load(shift);
    return {_mm256_srav_epi32(sums.low, by.low), _mm256_srav_epi32(sums.high, by.high)};
  }
  static void store(std::int32_t* to, const Sums& sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sums.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), sums.high);
  }
};

}  // namespace

// 16 registers: 10 sums, 2 of weights, 1 pair, 1 product.
const PriorKernel kPriorAvx2 = PriorKernels<SimdAvx2, 5, 1>::table();

}  // namespace vqcodec::cpu
