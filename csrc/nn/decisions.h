// Yes-or-no decisions with a probability: how they are written, read and drawn, and what the models
// of samples and of indices share.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/sample_model.h"

namespace vqcodec {
namespace {

struct Decisions {
  using i32 = std::int32_t;
  using i64 = std::int64_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;

  static i32 clamp(i32 x, i32 low, i32 high) { return x < low ? low : x > high ? high : x; }
  static i64 clamp(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }
  static i32 smaller(i32 a, i32 b) { return a < b ? a : b; }
  static i32 larger(i32 a, i32 b) { return a > b ? a : b; }
  static i32 size(i32 x) { return x < 0 ? -x : x; }

  // ---------------------------------------------------------------- coders

  // p: the probability of yes, in 2^-16.
  struct Writer {
    static constexpr bool knows = true;   // the samples
    static constexpr bool learns = true;  // from them
    static constexpr bool guesses = false;
    Decision* next;
    bool code(bool yes, i32 p) {
      *next++ = static_cast<Decision>(2 * p + yes);
      return yes;
    }
  };
  struct Reader {
    static constexpr bool knows = false;
    static constexpr bool learns = true;
    static constexpr bool guesses = false;
    DecisionReader at;
    bool code(bool, i32 p) {
      const u64 scale = at.range >> 24;
      const u64 split = scale * (static_cast<u64>(p) << 8);
      at.corrupt |= at.offset >= scale << 24;
      const bool yes = at.offset < split;
      if (yes) {
        at.range = split;
      } else {
        at.offset -= split;
        at.range = (scale << 24) - split;
      }
      if (at.range >> 32 == 0) {
        u64 word = 0;
        for (int i = 0; i < 4; ++i) word = word << 8 | (at.next != at.end ? *at.next++ : 0);
        at.range <<= 32;
        at.offset = at.offset << 32 | word;
      }
      return yes;
    }
  };
  struct Drawer {
    static constexpr bool knows = false;
    static constexpr bool learns = false;  // its own samples would lead it astray
    static constexpr bool guesses = false;
    u64 state;
    bool code(bool, i32 p) {
      u64 z = state += 0x9E3779B97F4A7C15u;
      z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
      z = (z ^ z >> 27) * 0x94D049BB133111EBu;
      return static_cast<i32>((z ^ z >> 31) >> 48) < p;
    }
  };

  // Takes every prediction for the sample.
  struct Guesser {
    static constexpr bool knows = false;
    static constexpr bool learns = false;
    static constexpr bool guesses = true;
    static bool code(bool, i32) { return false; }
  };

  // ---------------------------------------------------------------- counts and mixtures

  // Whether, as a model of `counts` thinks: what came before in some contexts. The other opinions
  // stand in front of it; a constant one follows.
  static i32 opinion_of(const SampleTables& tables, u32 count) {
    count ^= kUndecided;
    const i32 seen = static_cast<i32>(count & 1023);
    return tables.stretch[count >> 20] * smaller(8, seen + 1) >> 3;
  }
  static u32 counted(const SampleTables& tables, u32 count, bool yes) {
    count ^= kUndecided;
    const u32 seen = count & 1023;
    const i32 q = static_cast<i32>(count >> 10), goal = yes ? (1 << 22) - 1 : 0;
    const i32 moved = q + static_cast<i32>(i64{goal - q} * tables.rate[seen] >> 16);
    return (static_cast<u32>(moved) << 10 | (seen < 60 ? seen + 1 : seen)) ^ kUndecided;
  }
  // Weights are stored less `start`. Asks the coder with the mean of two mixtures of opinions,
  // which then learn.
  template <i32 start, class Coder>
  static bool mixed(const SampleTables& tables, Coder& coder, const i32* opinions, i32* a, i32* b,
                    bool yes) {
    i32 sum_a = 0, sum_b = 0;
    for (int i = 0; i < kMixInputs; ++i) {
      sum_a += ((a[i] + start) >> 2) * opinions[i];
      sum_b += ((b[i] + start) >> 2) * opinions[i];
    }
    const i32 in_a = clamp(sum_a >> 14, -2047, 2047), in_b = clamp(sum_b >> 14, -2047, 2047);
    const i32 p = clamp(i32{tables.squash[((in_a + in_b) >> 1) + 2048]}, 24, 65536 - 24);
    yes = coder.code(yes, p);
    if (!Coder::learns) return yes;
    const i32 one = yes ? 65536 : 0;
    const i32 off_a = one - tables.squash[in_a + 2048], off_b = one - tables.squash[in_b + 2048];
    constexpr i32 most = (1 << 18) - 1;
    for (int i = 0; i < kMixInputs; ++i) {
      a[i] = clamp(a[i] + ((off_a * opinions[i] + 8192) >> 14), -most - start, most - start);
      b[i] = clamp(b[i] + ((off_b * opinions[i] + 8192) >> 14), -most - start, most - start);
    }
    return yes;
  }
};

}  // namespace
}  // namespace vqcodec
