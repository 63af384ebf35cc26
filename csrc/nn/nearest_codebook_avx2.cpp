#include <immintrin.h>

#include "nn/nearest_codebook_kernel.h"

namespace vqcodec::cpu {
namespace {

struct SimdAvx2 {
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
using Tile = NearestTile<SimdAvx2, 3, 4>;

}  // namespace

const NearestKernel kNearestAvx2 = {Tile::rows, Tile::pack, Tile::compare};

}  // namespace vqcodec::cpu
