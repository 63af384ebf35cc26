// codebook_statistics: what an exponential moving average of the codebook needs.
//
//     counts[k]    = number of rows with index k                   exact, then float32
//     sums[k]      = sum of the rows of z with index k             float64, in the order of
//                                                                  the rows, then float32
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/strided_matrix.h"

namespace vqcodec {

// Writes codes counts and codes x z.columns sums, whatever was there. The result does not
// depend on the number of threads. `indices`: z.rows values.
// invalid_argument: an index outside [0, codes).
Status codebook_statistics(const StridedMatrix& z, const std::int64_t* indices, std::int64_t codes,
                           float* counts, float* sums);

}  // namespace vqcodec
