#include "prior/ring.h"

#include <algorithm>

#include "nn/convolution.h"

namespace vqcodec {
namespace {

int positive_modulo(int x, int n) { return (x % n + n) % n; }

}  // namespace

Ring::Ring(const Wavefront& wavefront, int tiles, int margin, int channels, int num_slots)
    : wavefront_(wavefront),
      tiles_(tiles),
      margin_(margin),
      rows_per_tile_(margin + wavefront.widest() + 1),
      num_slots_(num_slots),
      stride_(channel_stride(channels)),
      data_(static_cast<std::size_t>(num_slots) * tiles * rows_per_tile_ * stride_) {}

std::ptrdiff_t Ring::offset(int t, int row) const {
  const std::ptrdiff_t slot = positive_modulo(t, num_slots_);
  return (slot * tiles_ * rows_per_tile_ + margin_ + row - wavefront_.rows(t).begin) * stride_;
}

void Ring::clear_margins(int t) {
  const RowRange rows = wavefront_.rows(t);
  for (int tile = 0; tile < tiles_; ++tile) {
    std::int16_t* const first = data_.data() + index(tile, 0) * stride_;
    std::fill_n(first + offset(t, rows.begin - margin_), margin_ * stride_, 0);
    std::fill_n(first + offset(t, rows.end), stride_, 0);
  }
}

}  // namespace vqcodec
