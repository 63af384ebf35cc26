#include <immintrin.h>

#include "nn/nearest_codebook_kernel.h"

namespace vqcodec::cpu {
namespace {

struct SimdAvx512 {
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
using Tile = NearestTile<SimdAvx512, 4, 4>;

}  // namespace

const NearestKernel kNearestAvx512 = {Tile::rows, Tile::pack, Tile::compare};

}  // namespace vqcodec::cpu
