#include "residual/index_coder.h"

#include <algorithm>
#include <atomic>

#include "base/thread_pool.h"
#include "base/zero_pages.h"
#include "nn/index_model.h"
#include "nn/kernels.h"
#include "residual/decision_stream.h"

namespace vqcodec {
namespace {

// Indices of a row that are coded at a time.
constexpr int kSegment = 1024;

// code(plane, row, first, end) for all of a tile, until it is false.
template <class Code>
bool run(IndexTile& tile, const std::function<bool()>& interrupted, const Code& code) {
  const ZeroPages<IndexModel> model;
  const IndexPlane plane = {tile.width, tile.bits, tile.indices, model.data(), &sample_tables()};
  for (int row = 0; row < tile.height; ++row) {
    for (int first = 0; first < tile.width;) {
      const int end = tile.width - first > kSegment ? first + kSegment : tile.width;
      if (!code(plane, row, first, end)) return true;
      if (interrupted()) return false;
      first = end;
    }
  }
  return true;
}

template <class Work>
bool for_tiles(std::vector<IndexTile>* tiles, const Work& work) {
  std::atomic<bool> complete{true};
  parallel_for(static_cast<std::int64_t>(tiles->size()), [&](std::int64_t i) {
    if (!complete || !work((*tiles)[static_cast<std::size_t>(i)])) complete = false;
  });
  return complete;
}

}  // namespace

bool encode_indices(std::vector<IndexTile>* tiles, Variant variant,
                    const std::function<bool()>& interrupted) {
  const IndexKernels& kernels = kernels_of(variant).indices;
  return for_tiles(tiles, [&](IndexTile& tile) {
    RangeEncoder encoder;
    std::vector<Decision> decisions(std::size_t{kMostIndexDecisions} * kSegment);
    const bool complete =
        run(tile, interrupted, [&](const IndexPlane& plane, int row, int first, int end) {
          const std::ptrdiff_t count = kernels.encode_row(plane, row, first, end, decisions.data());
          for (std::ptrdiff_t i = 0; i < count; ++i) {
            add_decision(decisions[static_cast<std::size_t>(i)], &encoder);
          }
          return true;
        });
    tile.stream = encoder.finish();
    return complete;
  });
}

bool decode_indices(std::vector<IndexTile>* tiles, Variant variant,
                    const std::function<bool()>& interrupted) {
  const IndexKernels& kernels = kernels_of(variant).indices;
  return for_tiles(tiles, [&](IndexTile& tile) {
    DecisionReader reader = read_decisions(tile.data, tile.size);
    const bool complete =
        run(tile, interrupted, [&](const IndexPlane& plane, int row, int first, int end) {
          kernels.decode_row(plane, row, first, end, &reader);
          return !reader.corrupt;
        });
    tile.corrupt = reader.corrupt;
    return complete;
  });
}

}  // namespace vqcodec
