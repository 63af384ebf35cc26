// nearest_codebook and codebook_statistics on the CPU.
// Definition: quantizer/nearest_codebook_definition.h.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "nn/instruction_set.h"
#include "quantizer/nearest_codebook_definition.h"

namespace vqcodec::cpu {

// invalid_argument: no codes, no dimensions, more than 2^30 codes, rows of different lengths.
Status check_shapes(const StridedMatrix& z, const StridedMatrix& codebook);

// Writes z.rows indices. `bias` is nullptr or codebook.rows floats.
// Extra memory: one packed copy of the codebook and some kB per thread, whatever z.rows.
// invalid_argument: no codes, no dimensions, values that are not finite.
Status nearest_codebook(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias,
                        Variant variant, std::int64_t* indices);

// Writes codes counts and codes x z.columns sums, whatever was there. The result does not
// depend on the number of threads. `indices`: z.rows values.
// invalid_argument: an index outside [0, codes).
Status codebook_statistics(const StridedMatrix& z, const std::int64_t* indices,
                           std::int64_t codes, float* counts, float* sums);

}  // namespace vqcodec::cpu
