// The kernels for AVX-512 F, BW, VL and VNNI.
#include <immintrin.h>

#include "nn/code_cost_kernel.h"
#include "nn/index_kernel.h"
#include "nn/integer_kernels.h"
#include "nn/nearest_codebook_kernel.h"
#include "nn/sample_kernel.h"

namespace vqcodec {
namespace {

struct Integers {
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
  static Sums load(const std::int16_t* from) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Sums add(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
  static Sums limited(Sums x) {
    return _mm512_max_epi32(_mm512_min_epi32(x, _mm512_set1_epi32(1 << 20)),
                            _mm512_set1_epi32(-(1 << 20)));
  }
  static Sums relu(Sums x) { return _mm512_max_epi32(x, zero()); }
  static Sums leaky(Sums x) {
    return _mm512_max_epi32(x, _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(4)), 3));
  }
  static void store(std::int32_t* to, Sums sums) { _mm512_storeu_si512(to, sums); }
  static void store(std::int16_t* to, Sums sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtsepi32_epi16(sums));
  }
};

// 32 registers: 16 sums, 2 of weights, 1 pair.
using Integer = IntegerTile<Integers, 8, 2>;

struct Floats {
  static constexpr int lanes = 16;
  using Float = __m512;
  using Int = __m512i;

  static Float load(const float* from) { return _mm512_loadu_ps(from); }
  static Int load(const std::int32_t* from) { return _mm512_loadu_si512(from); }
  static Float broadcast(float x) { return _mm512_set1_ps(x); }
  static Int broadcast(std::int32_t x) { return _mm512_set1_epi32(x); }
  static void store(float* to, Float x) { _mm512_storeu_ps(to, x); }
  static void store(std::int32_t* to, Int x) { _mm512_storeu_si512(to, x); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static void keep_lower(Float score, Int code, Float* best, Int* where) {
    const __mmask16 lower = _mm512_cmp_ps_mask(score, *best, _CMP_LT_OQ);
    *where = _mm512_mask_mov_epi32(*where, lower, code);
    *best = _mm512_min_ps(score, *best);  // the second operand where one is NaN
  }
};

// 32 registers: 16 scores, 8 for the lowest and their codes, 4 vectors of z, 1 value of a code.
using Nearest = NearestTile<Floats, 4, 4>;

}  // namespace

const Kernels kAvx512Kernels = {Integer::table(), Nearest::table(), CodeCosts::table(),
                                Samples::table(), Indices::table()};

}  // namespace vqcodec
