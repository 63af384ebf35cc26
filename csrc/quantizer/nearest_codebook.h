// nearest_codebook on the CPU. Definition: quantizer/nearest_codebook_definition.h.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/strided_matrix.h"
#include "nn/instruction_set.h"

namespace vqcodec {

// invalid_argument: no codes, no dimensions, more than 2^30 codes, rows of different lengths.
Status check_shapes(const StridedMatrix& z, const StridedMatrix& codebook);

// Writes z.rows indices. `bias` is nullptr or codebook.rows floats.
// Extra memory: one float per code and some kB per thread, whatever z.rows.
// invalid_argument: no codes, no dimensions, values that are not finite.
Status nearest_codebook(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias,
                        Variant variant, std::int64_t* indices);

}  // namespace vqcodec
