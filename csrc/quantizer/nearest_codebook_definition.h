// nearest_codebook: for every row of z the code with the lowest score.
//
//     index[n] = argmin_k |z_n - e_k|^2 + bias_k          z: N x D, e: K x D, bias: K
//
// |z_n|^2 is the same for every k and is left out. What remains is defined to the bit,
// so that every backend finds the same index for every row, near-ties included:
//
//     offset_k     = float32( bias_k + e_k0^2 + e_k1^2 + ... )     float64, in this order
//     score_nk     = fma(e_kd, -2 z_nd, previous)                  float32, d = 0, 1, ..., D-1,
//                                                                  beginning with offset_k
//     index[n]     = the lowest k among those with the lowest score
//
// An fma rounds once, so a chain of them in a fixed order has one value, whether SIMD
// lanes hold codes or rows. (The squares are exact in float64, so that the offset does not
// depend on fused operations either.) Rounding is to nearest even, with subnormals.
//
// Not finite: codes must be finite; a bias may be +infinity, which disables its code. A NaN
// score is never the lowest. A row whose lowest score is not finite (z has a NaN or an
// infinity, or all scores overflow) is an error: there is no nearest code.
//
//     // K = 2, D = 1: e = {0, 3}, bias = {0, 1}, z = 2
//     // offsets {0, 10}, scores {0, fma(3, -4, 10) = -2}: index 1 (squared distance 1, +1)
//     // versus 4 for code 0; both totals are score + |z|^2
//
// Source: Razavi et al. 2019 (VQ-VAE-2), section 2.1, equations 1 and 2.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "base/strided_matrix.h"

namespace vqcodec {

// offset_k of the definition.
// Internal linkage: files with different instruction sets must not share a copy.
VQCODEC_HOST_DEVICE static inline float codebook_offset(const StridedMatrix& codebook,
                                                        std::int64_t code, float bias) {
  double sum = bias;
  for (std::int64_t d = 0; d < codebook.columns; ++d) {
    const double e = codebook(code, d);
    sum += e * e;
  }
  return static_cast<float>(sum);
}

}  // namespace vqcodec
