// prior_frequencies on the CPU: where each code of a known map lies in its frequency table.
// Definition: prior_frequencies in vqcodec/ops/ref.py.
#pragma once

#include <cstdint>

#include "prior/prior_pass.h"

namespace vqcodec::cpu {

// invalid_argument: see check_tile; a code that the map's codebook does not have.
Status check_known_tile(const PriorNetwork& network, const PriorTile& tile);

// Writes tile.own.size() values each, in coding order: the cumulative frequency before the code
// and the frequency of the code, out of 2^24. Uses all threads.
// invalid_argument: see check_known_tile.
Status prior_frequencies(const PriorNetwork& network, const PriorTile& tile, Variant variant,
                         std::int64_t* start, std::int64_t* frequency);

}  // namespace vqcodec::cpu
