// nearest_codebook on a GPU. Definition: quantizer/nearest_codebook_definition.h, to the bit.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/status.h"
#include "base/strided_matrix.h"

namespace vqcodec::cuda {

// Both find the same indices; tests and benchmarks choose.
enum class NearestPath {
  automatic,  // what should be faster on the current device
  exact,      // float32 arithmetic
  tensor,     // tensor cores first, float32 for the rows that they cannot decide:
              // compute capability 8.0 and later, at most some 500 dimensions
};

// All pointers are to memory of the current device; `bias` (codebook.rows) may be null. Work is
// queued on `stream`, which is then waited for, to report bad rows. Extra memory: two packed copies
// of the codebook, and at most 16 MB whatever z.rows.
//   rescored  if not null (host memory): the rows that tensor cores could not decide
// invalid_argument as on the CPU (quantizer/nearest_codebook.h); unsupported: a CUDA error, or a
// `path` that the device cannot take.
Status nearest_codebook(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias,
                        cudaStream_t stream, std::int64_t* indices,
                        NearestPath path = NearestPath::automatic,
                        std::int64_t* rescored = nullptr);

}  // namespace vqcodec::cuda
