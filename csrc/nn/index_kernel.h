// The inner loop of the coder of indices, written once for every instruction set.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/decisions.h"
#include "nn/index_model.h"

namespace vqcodec {
namespace {

struct Indices : Decisions {
  static constexpr IndexKernels table() { return {encode_row, decode_row}; }

  static std::ptrdiff_t encode_row(const IndexPlane& plane, int row, int first, int end,
                                   Decision* decisions) {
    Writer writer = {decisions};
    for (int column = first; column < end; ++column) code(plane, row, column, writer);
    return writer.next - decisions;
  }
  static void decode_row(const IndexPlane& plane, int row, int first, int end,
                         DecisionReader* reader) {
    Reader local = {*reader};
    for (int column = first; column < end; ++column) code(plane, row, column, local);
    *reader = local.at;
  }

 private:
  // Rows and columns from here: the nearest first. Those before `kContextTaps[k]` are context k.
  static constexpr i32 kTaps[kIndexTaps][2] = {
      {0, -1},  {-1, 0},  {-1, -1}, {-1, 1}, {0, -2}, {-2, 0},  {-2, 1}, {-1, -2}, {-1, 2}, {0, -3},
      {-2, -1}, {-2, -2}, {-2, 2},  {-3, 0}, {-1, 3}, {-1, -3}, {0, -4}, {-3, -1}, {-3, 1}};
  static constexpr i32 kContextTaps[kIndexContexts - 1] = {2, 4, 6, 11, 19};

  static constexpr int kAbove[6] = {1, 2, 3, 5, 8, 13};

  template <class Coder>
  static bool decide(const IndexPlane& plane, Coder& coder, const u32* keys, int node, int pattern,
                     bool yes) {
    const SampleTables& tables = *plane.tables;
    IndexModel& model = *plane.model;
    alignas(64) i32 opinions[kMixInputs] = {};
    u32* counts[kIndexContexts];
    for (int k = 0; k < kIndexContexts; ++k) {
      counts[k] = &model.hashed[k][keys[k] >> (32 - kIndexHashBits)][node];
      opinions[k] = opinion_of(tables, *counts[k]);
    }
    opinions[kIndexContexts] = 77;
    yes = mixed<kIndexWeight>(tables, coder, opinions, model.mixer[node],
                              model.pattern_mixer[node][pattern], yes);
    for (u32* count : counts) *count = counted(tables, *count, yes);
    return yes;
  }

  template <class Coder>
  static void code(const IndexPlane& plane, int row, int column, Coder& coder) {
    const auto value = [&](i32 dy, i32 dx) -> u32 {
      const i32 y = row + dy, x = column + dx;
      if (y < 0 || x < 0 || x >= plane.width) return 0;
      return plane.indices[static_cast<std::ptrdiff_t>(y) * plane.width + x];
    };
    u32 near[kIndexTaps];
    for (int i = 0; i < kIndexTaps; ++i) near[i] = value(kTaps[i][0], kTaps[i][1]);
    u32 keys[kIndexContexts];
    u32 hash = 1;
    for (int k = 0, i = 0; k < kIndexContexts - 1; ++k) {
      for (; i < kContextTaps[k]; ++i) hash = (hash + near[i] + 1) * 0x9E3779B1u;
      keys[k] = (hash ^ hash >> 15) * 0xC2B2AE35u;
    }
    hash = 1;  // what is above
    for (const int i : kAbove) hash = (hash + near[i] + 1) * 0x85EBCA6Bu;
    keys[kIndexContexts - 1] = (hash ^ hash >> 15) * 0xC2B2AE35u;

    // Which of the nearest four are equal: one of 15 patterns.
    const int pattern = (near[1] == near[0]) + 2 * (near[2] == near[0]) + 4 * (near[3] == near[1]) +
                        8 * (near[2] == near[1]);
    std::uint16_t& index = plane.indices[static_cast<std::ptrdiff_t>(row) * plane.width + column];
    const u32 known = Coder::knows ? index : 0;
    for (int i = 0; i < 4; ++i) {
      bool tried = false;
      for (int j = 0; j < i; ++j) tried |= near[j] == near[i];
      if (tried) continue;
      if (decide(plane, coder, keys, i, pattern, known == near[i])) {
        index = static_cast<std::uint16_t>(near[i]);
        return;
      }
    }
    // None of them: bit by bit.
    u32 found = 1;
    const u32 contexts[kIndexContexts] = {
        0, near[0], near[1], near[3], near[0] * 65536 + near[1], keys[2]};
    for (int bit = plane.bits - 1; bit >= 0; --bit) {
      u32 places[kIndexContexts];
      for (int k = 0; k < kIndexContexts; ++k) {
        const u32 key = (contexts[k] * 0x9E3779B1u + found) * 0x85EBCA6Bu;
        places[k] = (key ^ key >> 15) * 0xC2B2AE35u;
      }
      const bool one = decide(plane, coder, places, 4, smaller(bit, 15), known >> bit & 1);
      found = 2 * found + one;
    }
    index = static_cast<std::uint16_t>(found & ((1u << plane.bits) - 1));
  }
};

}  // namespace
}  // namespace vqcodec
