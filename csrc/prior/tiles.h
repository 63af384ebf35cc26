// Code maps, and what a prior is applied to: the maps of one tile.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "prior/prior_network.h"

namespace vqcodec {

// A code map, row by row, without gaps.
struct CodeMap {
  const std::int32_t* codes = nullptr;
  int height = 0;
  int width = 0;

  std::int64_t size() const { return std::int64_t{height} * width; }
};

// One tile of a batch: a map and the maps before it.
struct PriorTile {
  int class_id = 0;
  int level = 0;
  const CodeMap* coarser = nullptr;  // the maps before, as many as the prior has
  CodeMap own;
  std::int32_t* chosen = nullptr;  // stepwise: the codes of `own`, to be written
};

// invalid_argument unless the prior can be applied to the tile: number and sizes of the maps,
// class, level. Does not look at codes.
Status check_tile(const PriorNetwork& network, const PriorTile& tile);

// invalid_argument unless all codes of a map are in 0..codes-1. `name` is for the message.
Status check_codes(const CodeMap& map, int codes, const std::string& name);

// invalid_argument: see check_tile; a code, of any of the maps, that its codebook does not have.
Status check_known_tile(const PriorNetwork& network, const PriorTile& tile);

}  // namespace vqcodec
