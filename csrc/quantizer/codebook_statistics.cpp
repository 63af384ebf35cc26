#include "quantizer/codebook_statistics.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/aligned_array.h"
#include "base/float_environment.h"
#include "base/thread_pool.h"

namespace vqcodec {

Status codebook_statistics(const StridedMatrix& z, const std::int64_t* indices, std::int64_t codes,
                           float* counts, float* sums) {
  for (std::int64_t row = 0; row < z.rows; ++row) {
    if (indices[row] < 0 || indices[row] >= codes) {
      return Status::invalid_argument("indices must be in 0.." + std::to_string(codes - 1) +
                                      ", got " + std::to_string(indices[row]) + " in row " +
                                      std::to_string(row));
    }
  }
  // One task per slice of dimensions, of whole cache lines of z: every sum is made by one
  // thread, in the order of the rows. The first task counts, too.
  constexpr std::int64_t kLine = kCacheLine / sizeof(float);
  const std::int64_t lines = (z.columns + kLine - 1) / kLine;
  const std::int64_t threads = get_num_threads();
  const std::int64_t slices = std::max<std::int64_t>(1, std::min(lines, threads));
  const std::int64_t slice_width = (lines + slices - 1) / slices * kLine;
  parallel_for(slices, [&](std::int64_t slice) {
    const ScopedFloatEnvironment environment;
    if (slice == 0) {
      std::vector<std::int64_t> count(static_cast<std::size_t>(codes), 0);
      for (std::int64_t row = 0; row < z.rows; ++row) ++count[indices[row]];
      for (std::int64_t k = 0; k < codes; ++k) counts[k] = static_cast<float>(count[k]);
    }
    const std::int64_t first = std::min(slice * slice_width, z.columns);
    const std::int64_t width = std::min(slice_width, z.columns - first);
    std::vector<double> sum(static_cast<std::size_t>(codes * width), 0.0);
    for (std::int64_t row = 0; row < z.rows; ++row) {
      double* to = sum.data() + indices[row] * width;
      for (std::int64_t d = 0; d < width; ++d) to[d] += z(row, first + d);
    }
    for (std::int64_t k = 0; k < codes; ++k) {
      for (std::int64_t d = 0; d < width; ++d) {
        sums[k * z.columns + first + d] = static_cast<float>(sum[k * width + d]);
      }
    }
  });
  return {};
}

}  // namespace vqcodec
