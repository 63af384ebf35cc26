// What is learned about the indices of a picture of few colours while they are coded
// (docs/FORMAT.md, "Palettes").
//
// In rows from the top: is it that of the pixel to the left? of the one above? of those next to it?
// If none of them, its bits follow. For each decision counts of what happened in six contexts, up
// to 19 pixels large, give opinions, and mixtures of them, as for samples, the probability.
//
// This header is included by files with different compiler flags: no standard library, no inline
// functions.
#pragma once

#include "nn/sample_model.h"

namespace vqcodec {

inline constexpr int kIndexTaps = 19;
inline constexpr int kIndexContexts = 6;
inline constexpr int kIndexHashBits = 15;
inline constexpr int kIndexNodes = 8;      // 4 for the nearest, 1 for bits
inline constexpr int kIndexPatterns = 16;  // of the nearest, or bits
inline constexpr int kMostIndexBits = 12;

// To begin with, all zeros (see PassModel).
inline constexpr std::int32_t kIndexWeight = 21845;

struct IndexModel {
  std::uint32_t hashed[kIndexContexts][std::size_t{1} << kIndexHashBits][kIndexNodes];
  alignas(64) std::int32_t mixer[kIndexNodes][kMixInputs];
  alignas(64) std::int32_t pattern_mixer[kIndexNodes][kIndexPatterns][kMixInputs];
};

// A tile that is being coded.
struct IndexPlane {
  int width;
  int bits;  // of an index, 0 to 12
  std::uint16_t* indices;
  IndexModel* model;
  const SampleTables* tables;
};

// Decisions about an index at most.
inline constexpr int kMostIndexDecisions = 4 + kMostIndexBits;

// The kernels of every instruction set, for the columns first .. end - 1 of a row.
struct IndexKernels {
  std::ptrdiff_t (*encode_row)(const IndexPlane& plane, int row, int first, int end,
                               Decision* decisions);
  void (*decode_row)(const IndexPlane& plane, int row, int first, int end, DecisionReader* reader);
};

}  // namespace vqcodec
