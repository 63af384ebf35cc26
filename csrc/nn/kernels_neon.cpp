// The kernels for NEON, which every 64-bit ARM processor has.
#include <arm_neon.h>

#include "nn/code_cost_kernel.h"
#include "nn/index_kernel.h"
#include "nn/integer_kernels.h"
#include "nn/nearest_codebook_kernel.h"
#include "nn/sample_kernel.h"

namespace vqcodec {
namespace {

// Registers hold four sums. Weights are taken apart into those of the first and of the second
// input of a pair, so that one multiply-accumulate per input (smlal by a lane) adds to four sums.
struct Integers {
  struct Sums {
    int32x4_t part[kPanel / 4];
  };
  struct Weights {
    int16x8_t first[2], second[2];  // of the outputs 0..7 and 8..15
  };

  static Sums zero() {
    const int32x4_t none = vdupq_n_s32(0);
    return {{none, none, none, none}};
  }
  static Sums load(const std::int32_t* from) {
    return {{vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)}};
  }
  static Weights load(const std::int8_t* from) {
    const int8x16x2_t pairs = vld2q_s8(from);
    return {{vmovl_s8(vget_low_s8(pairs.val[0])), vmovl_high_s8(pairs.val[0])},
            {vmovl_s8(vget_low_s8(pairs.val[1])), vmovl_high_s8(pairs.val[1])}};
  }
  static int16x4_t broadcast(const std::int16_t* from) {
    std::int32_t pair;  // one load; the first input is in lane 0, as memory is little-endian
    __builtin_memcpy(&pair, from, sizeof(pair));
    return vreinterpret_s16_s32(vdup_n_s32(pair));
  }
  static void add_products(Sums* sums, const Weights& weights, int16x4_t pair) {
    for (int half = 0; half < 2; ++half) {
      int32x4_t* const low = &sums->part[2 * half];
      int32x4_t* const high = low + 1;
      *low = vmlal_lane_s16(*low, vget_low_s16(weights.first[half]), pair, 0);
      *high = vmlal_high_lane_s16(*high, weights.first[half], pair, 0);
      *low = vmlal_lane_s16(*low, vget_low_s16(weights.second[half]), pair, 1);
      *high = vmlal_high_lane_s16(*high, weights.second[half], pair, 1);
    }
  }
  static Sums shifted(const Sums& sums, const std::int32_t* shift) {
    Sums result;
    for (int i = 0; i < kPanel / 4; ++i) {
      // A shift to the left by a negative number is an arithmetic one to the right.
      result.part[i] = vshlq_s32(sums.part[i], vnegq_s32(vld1q_s32(shift + 4 * i)));
    }
    return result;
  }
  static Sums load(const std::int16_t* from) {
    const int16x8_t low = vld1q_s16(from), high = vld1q_s16(from + 8);
    return {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
             vmovl_high_s16(high)}};
  }
  static Sums add(Sums a, const Sums& b) {
    for (int i = 0; i < kPanel / 4; ++i) a.part[i] = vaddq_s32(a.part[i], b.part[i]);
    return a;
  }
  static Sums limited(Sums x) {
    const int32x4_t top = vdupq_n_s32(1 << 20), bottom = vdupq_n_s32(-(1 << 20));
    for (int32x4_t& part : x.part) part = vmaxq_s32(vminq_s32(part, top), bottom);
    return x;
  }
  static Sums relu(Sums x) {
    for (int32x4_t& part : x.part) part = vmaxq_s32(part, vdupq_n_s32(0));
    return x;
  }
  static Sums leaky(Sums x) {
    for (int32x4_t& part : x.part) {
      part = vmaxq_s32(part, vshrq_n_s32(vaddq_s32(part, vdupq_n_s32(4)), 3));
    }
    return x;
  }
  static void store(std::int32_t* to, const Sums& sums) {
    for (int i = 0; i < kPanel / 4; ++i) vst1q_s32(to + 4 * i, sums.part[i]);
  }
  static void store(std::int16_t* to, const Sums& sums) {
    for (int i = 0; i < kPanel / 4; ++i) vst1_s16(to + 4 * i, vqmovn_s32(sums.part[i]));
  }
};

// 32 registers: 20 sums, 4 of weights, 1 pair.
using Integer = IntegerTile<Integers, 5, 1>;

struct Floats {
  static constexpr int lanes = 4;
  using Float = float32x4_t;
  using Int = int32x4_t;

  static Float load(const float* from) { return vld1q_f32(from); }
  static Int load(const std::int32_t* from) { return vld1q_s32(from); }
  static Float broadcast(float x) { return vdupq_n_f32(x); }
  static Int broadcast(std::int32_t x) { return vdupq_n_s32(x); }
  static void store(float* to, Float x) { vst1q_f32(to, x); }
  static void store(std::int32_t* to, Int x) { vst1q_s32(to, x); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  static void keep_lower(Float score, Int code, Float* best, Int* where) {
    const uint32x4_t lower = vcltq_f32(score, *best);  // not where one is NaN
    *where = vbslq_s32(lower, code, *where);
    *best = vbslq_f32(lower, score, *best);
  }
};

// 32 registers: 16 scores, 8 for the lowest and their codes, 4 vectors of z, 1 value of a code.
using Nearest = NearestTile<Floats, 4, 4>;

}  // namespace

const Kernels kNeonKernels = {Integer::table(), Nearest::table(), CodeCosts::table(),
                              Samples::table(), Indices::table()};

}  // namespace vqcodec
