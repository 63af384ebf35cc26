#include <immintrin.h>

#include "nn/integer_kernels.h"

namespace vqcodec::cpu {
namespace {

struct SimdAvx512 {
  using Sums = __m512i;
  using Weights = __m512i;

  static Sums zero() { return _mm512_setzero_si512(); }
  static Sums load(const std::int32_t* from) { return _mm512_loadu_si512(from); }
  static Weights load(const std::int8_t* from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m512i broadcast(const std::int16_t* from) {
    std::int32_t pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  // vpdpwssd: without the S that would saturate.
  static void add_products(Sums* sums, Weights weights, __m512i pair) {
    *sums = _mm512_dpwssd_epi32(*sums, weights, pair);
  }
  static Sums shifted(Sums sums, const std::int32_t* shift) {
    return _mm512_srav_epi32(sums, load(shift));
  }
  static void store(std::int32_t* to, Sums sums) { _mm512_storeu_si512(to, sums); }
};

}  // namespace

// 32 registers: 16 sums, 2 of weights, 1 pair.
const PriorKernel kPriorAvx512 = PriorKernels<SimdAvx512, 8, 2>::table();

}  // namespace vqcodec::cpu
