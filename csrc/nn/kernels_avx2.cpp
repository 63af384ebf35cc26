// The kernels for AVX2 and FMA.
#include <immintrin.h>

#include "nn/code_cost_kernel.h"
#include "nn/index_kernel.h"
#include "nn/integer_kernels.h"
#include "nn/nearest_codebook_kernel.h"
#include "nn/sample_kernel.h"

namespace vqcodec {
namespace {

struct Integers {
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
  static Sums load(const std::int16_t* from) {
    return {_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
            _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8)))};
  }
  static Sums add(const Sums& a, const Sums& b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static Sums larger(const Sums& a, const Sums& b) {
    return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
  }
  static Sums limited(const Sums& x) {
    const __m256i top = _mm256_set1_epi32(1 << 20), bottom = _mm256_set1_epi32(-(1 << 20));
    return larger({_mm256_min_epi32(x.low, top), _mm256_min_epi32(x.high, top)}, {bottom, bottom});
  }
  static Sums relu(const Sums& x) { return larger(x, zero()); }
  static Sums leaky(const Sums& x) {
    const __m256i half = _mm256_set1_epi32(4);
    return larger(x, {_mm256_srai_epi32(_mm256_add_epi32(x.low, half), 3),
                      _mm256_srai_epi32(_mm256_add_epi32(x.high, half), 3)});
  }
  static void store(std::int32_t* to, const Sums& sums) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sums.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), sums.high);
  }
  static void store(std::int16_t* to, const Sums& sums) {
    // Packing works within halves of a register: 0..3 8..11 4..7 12..15.
    const __m256i packed = _mm256_packs_epi32(sums.low, sums.high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
  }
};

// 16 registers: 12 sums, 2 of weights, 1 pair, 1 product.
using Integer = IntegerTile<Integers, 6, 1>;

struct Floats {
  static constexpr int lanes = 8;
  using Float = __m256;
  using Int = __m256i;

  static Float load(const float* from) { return _mm256_loadu_ps(from); }
  static Int load(const std::int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Float broadcast(float x) { return _mm256_set1_ps(x); }
  static Int broadcast(std::int32_t x) { return _mm256_set1_epi32(x); }
  static void store(float* to, Float x) { _mm256_storeu_ps(to, x); }
  static void store(std::int32_t* to, Int x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
  }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static void keep_lower(Float score, Int code, Float* best, Int* where) {
    const Float lower = _mm256_cmp_ps(score, *best, _CMP_LT_OQ);
    *where = _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(*where), _mm256_castsi256_ps(code), lower));
    *best = _mm256_min_ps(score, *best);  // the second operand where one is NaN
  }
};

// 16 registers: 12 scores, 3 vectors of z, 1 value of a code.
using Nearest = NearestTile<Floats, 3, 4>;

}  // namespace

const Kernels kAvx2Kernels = {Integer::table(), Nearest::table(), CodeCosts::table(),
                              Samples::table(), Indices::table()};

}  // namespace vqcodec
