// Features by wavefront step: a ring of slots of int16 rows.
//
//     slot of step t:   [ zeros above ][ the rows that have a position in step t ][ zero ]
//
// Position (r, c) has its neighbour (r + dr, c + dc) in the slot of step t + dc + lag * dr, for all
// positions of the step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_array.h"
#include "coding/wavefront_order.h"

namespace vqcodec {

class Ring {
 public:
  Ring() = default;
  // Slots for `num_slots` steps, each with room for `tiles` times `widest` rows.
  Ring(const Wavefront& wavefront, int tiles, int margin, int channels, int num_slots);

  std::int16_t* data() { return data_.data(); }
  std::ptrdiff_t stride() const { return stride_; }
  // Where in data() a row of the first tile is in the slot of step t: one that the slot has, or
  // one of the zeros around them.
  std::ptrdiff_t offset(int t, int row) const;
  // From there to the row `place` rows further down, of another tile, in units of stride().
  int index(int tile, int place) const { return tile * rows_per_tile_ + place; }
  std::size_t bytes() const { return data_.size() * sizeof(std::int16_t); }

  // Zeroes the rows around those of step t.
  void clear_margins(int t);

 private:
  Wavefront wavefront_ = {};
  int tiles_ = 0;
  int margin_ = 0;  // zero rows above
  int rows_per_tile_ = 0;
  int num_slots_ = 0;
  std::ptrdiff_t stride_ = 0;  // of rows
  AlignedArray<std::int16_t> data_;
};

}  // namespace vqcodec
