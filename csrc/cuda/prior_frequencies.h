// prior_frequencies on a GPU: where each code of a known map lies in its frequency table.
// Definition: prior_frequencies in vqcodec/ops/reference/prior.py, to the bit.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/status.h"
#include "cuda/prior_network.h"
#include "prior/tiles.h"

namespace vqcodec::cuda {

// As prior/prior_frequencies.h, on the device that holds the network. Arguments and results are in
// host memory.
Status prior_frequencies(const PriorNetwork& network, const PriorTile& tile, cudaStream_t stream,
                         std::int64_t* start, std::int64_t* frequency);

}  // namespace vqcodec::cuda
