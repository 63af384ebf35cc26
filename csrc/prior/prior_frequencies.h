// prior_frequencies on the CPU: where each code of a known map lies in its frequency table.
// Definition: prior_frequencies in vqcodec/ops/reference/prior.py.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "nn/instruction_set.h"
#include "prior/prior_network.h"
#include "prior/tiles.h"

namespace vqcodec {

// Writes tile.own.size() values each, in coding order: the cumulative frequency before the code
// and the frequency of the code, out of 2^24. Uses all threads.
// invalid_argument: see check_known_tile.
Status prior_frequencies(const PriorNetwork& network, const PriorTile& tile, Variant variant,
                         std::int64_t* start, std::int64_t* frequency);

}  // namespace vqcodec
