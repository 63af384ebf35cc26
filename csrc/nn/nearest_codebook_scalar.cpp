#include <cmath>

#include "nn/nearest_codebook_kernel.h"

namespace vqcodec::cpu {
namespace {

// Four lanes in portable C++. Compilers turn them into vectors where the target has an FMA.
struct SimdScalar {
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

using Tile = NearestTile<SimdScalar, 2, 2>;

}  // namespace

const NearestKernel kNearestScalar = {Tile::rows, Tile::pack, Tile::compare};

}  // namespace vqcodec::cpu
