// The inner kernel of nearest_codebook, written once for every instruction set.
//
// SIMD lanes hold rows of z; codes are broadcast. A tile of kVectors x lanes rows is compared
// with kCodes codes at a time, the scores in registers:
//
//                        rows (vectors of `lanes`)
//        code k          score score score         per dimension: load kVectors vectors of z,
//        code k + 1      score score score         broadcast kCodes values of the codebook,
//        ...                                       kVectors x kCodes FMAs
//
// A lane then keeps the lowest score of its row and the code that had it. The codes come in
// increasing order and only a lower score replaces one, so the lowest code wins ties and lanes
// never meet. z is packed beforehand, a few rows per thread; the codebook is read in place.
//
// This header is included by files with different compiler flags: no standard library, and
// everything that has code in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/kernels.h"

namespace vqcodec {
namespace {

// Simd: lanes; Float, Int; load, broadcast, store; fma(a, b, c) = a * b + c, rounded once;
// keep_lower(score, code, &best, &where): in lanes where score < best, take both.
template <class Simd, int kVectors, int kCodes>
class NearestTile {
 public:
  static constexpr int rows = kVectors * Simd::lanes;
  static_assert(kMaxBlockRows % rows == 0, "a block is whole tiles");

  static void pack(const StridedMatrix& z, std::int64_t first, float* tile) {
    const std::int64_t last = first + rows < z.rows ? first + rows : z.rows;
    // Where it is the elements of a column that are adjacent, only a few columns at a time, so
    // that a cache line is used up before it is lost.
    const bool by_columns = magnitude(z.column_stride) > magnitude(z.row_stride);
    const std::int64_t slice = by_columns ? 8 : z.columns;
    for (std::int64_t begin = 0; begin < z.columns; begin += slice) {
      const std::int64_t end = begin + slice < z.columns ? begin + slice : z.columns;
      for (std::int64_t row = first; row < last; ++row) {
        const float* from = z.data + row * z.row_stride + begin * z.column_stride;
        float* to = tile + begin * rows + (row - first);
        for (std::int64_t d = begin; d < end; ++d) {
          *to = -2.0f * *from;
          from += z.column_stride;
          to += rows;
        }
      }
    }
  }

  static void compare(const float* z, const StridedMatrix& codebook, const float* offsets,
                      std::int32_t first, std::int32_t last, float* best, std::int32_t* where) {
    Nearest nearest;
    for (int v = 0; v < kVectors; ++v) {
      nearest.score[v] = Simd::load(best + v * Simd::lanes);
      nearest.code[v] = Simd::load(where + v * Simd::lanes);
    }
    std::int32_t code = first;
    for (; code + kCodes <= last; code += kCodes) {
      compare_codes<kCodes>(z, codebook, offsets, code, nearest);
    }
    for (; code < last; ++code) compare_codes<1>(z, codebook, offsets, code, nearest);
    for (int v = 0; v < kVectors; ++v) {
      Simd::store(best + v * Simd::lanes, nearest.score[v]);
      Simd::store(where + v * Simd::lanes, nearest.code[v]);
    }
  }

  static constexpr NearestKernel table() { return {rows, pack, compare}; }

 private:
  using Float = typename Simd::Float;
  using Int = typename Simd::Int;

  static std::ptrdiff_t magnitude(std::ptrdiff_t x) { return x < 0 ? -x : x; }

  // The lowest score of every row so far, and its code.
  struct Nearest {
    Float score[kVectors];
    Int code[kVectors];
  };

  // Codes code, ..., code + n - 1. Inlined, or `nearest` would go through memory for every few
  // codes, and with D = 4 wait longer for that than for its arithmetic.
  template <int n>
  __attribute__((always_inline)) static inline void compare_codes(const float* z,
                                                                  const StridedMatrix& codebook,
                                                                  const float* offsets,
                                                                  std::int32_t code,
                                                                  Nearest& nearest) {
    Float score[n][kVectors];
    for (int c = 0; c < n; ++c) {
      for (int v = 0; v < kVectors; ++v) score[c][v] = Simd::broadcast(offsets[code + c]);
    }
    const float* e = codebook.data + code * codebook.row_stride;
    for (std::int64_t d = 0; d < codebook.columns; ++d) {
      Float row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = Simd::load(z + v * Simd::lanes);
      for (int c = 0; c < n; ++c) {
        const Float value = Simd::broadcast(e[c * codebook.row_stride]);
        for (int v = 0; v < kVectors; ++v) score[c][v] = Simd::fma(value, row[v], score[c][v]);
      }
      z += rows;
      e += codebook.column_stride;
    }
    for (int v = 0; v < kVectors; ++v) {
      for (int c = 0; c < n; ++c) {
        Simd::keep_lower(score[c][v], Simd::broadcast(code + c), &nearest.score[v],
                         &nearest.code[v]);
      }
    }
  }
};

}  // namespace
}  // namespace vqcodec
