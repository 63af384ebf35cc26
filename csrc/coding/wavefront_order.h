// The wavefront order of a code map: position (r, c) belongs to step t = c + lag * r.
//
// A position depends on positions of smaller t only, so the positions of one step are
// independent. Coding order is (t, r).
//
//     // height 3, width 4, lag 2: steps     0 1 2 3
//     //                                     2 3 4 5
//     //                                     4 5 6 7    step 4 holds (1, 2) and (2, 0)
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace vqcodec {

// The step of a position; or from a position to a neighbour that is so many rows and columns away.
VQCODEC_HOST_DEVICE static inline int step_of(int row, int column, int lag) {
  return column + lag * row;
}

// A half-open range of rows. It may be empty; `begin` is meaningful all the same: rows before
// it are finished (or above the map), rows from `end` on have not begun (or are below it).
struct RowRange {
  int begin;
  int end;
  VQCODEC_HOST_DEVICE int size() const { return end - begin; }
};

struct Wavefront {
  int height;
  int width;
  int lag;

  VQCODEC_HOST_DEVICE int steps() const { return width + lag * (height - 1); }

  // Rows that have a position in step t, for any t, also outside 0..steps() - 1.
  VQCODEC_HOST_DEVICE RowRange rows(int t) const {
    if (t < 0) return {0, 0};
    const int last = t / lag < height ? t / lag : height - 1;
    const int first = t < width ? 0 : (t - width) / lag + 1;
    return {first <= last ? first : last + 1, last + 1};
  }

  // The most positions that a step has.
  VQCODEC_HOST_DEVICE int widest() const {
    const int rows = (width - 1) / lag + 1;
    return rows < height ? rows : height;
  }
};

}  // namespace vqcodec
