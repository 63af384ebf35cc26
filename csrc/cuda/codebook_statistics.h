// codebook_statistics on a GPU. Definition: quantizer/codebook_statistics.h, to the bit.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/status.h"
#include "base/strided_matrix.h"

namespace vqcodec::cuda {

// All pointers are to memory of the current device. counts: codes; sums: codes x z.columns,
// contiguous. Work is queued on `stream`, which is then waited for. Extra memory: about 4 bytes per
// row, 80 MB at most, and for more than 2^24 rows a float64 copy of the sums. invalid_argument as
// on the CPU.
Status codebook_statistics(const StridedMatrix& z, const std::int64_t* indices, std::int64_t codes,
                           cudaStream_t stream, float* counts, float* sums);

}  // namespace vqcodec::cuda
