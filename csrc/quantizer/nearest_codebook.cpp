#include "quantizer/nearest_codebook.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/aligned_array.h"
#include "base/float_environment.h"
#include "base/thread_pool.h"
#include "nn/kernels.h"
#include "quantizer/nearest_codebook_definition.h"

namespace vqcodec {
namespace {

constexpr std::int64_t kMaxCodebookSize = std::int64_t{1} << 30;  // kernels count in int32

Status check(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias) {
  if (Status status = check_shapes(z, codebook); !status.ok()) return status;
  for (std::int64_t k = 0; k < codebook.rows; ++k) {
    for (std::int64_t d = 0; d < codebook.columns; ++d) {
      if (std::isfinite(codebook(k, d))) continue;
      return Status::invalid_argument("codebook must be finite, got " +
                                      std::to_string(codebook(k, d)) + " in code " +
                                      std::to_string(k));
    }
    if (bias != nullptr && !(bias[k] > -std::numeric_limits<float>::infinity())) {
      return Status::invalid_argument("bias must be finite or +inf, got " +
                                      std::to_string(bias[k]) + " for code " + std::to_string(k));
    }
  }
  return {};
}

// Some rows of z, packed as the kernel wants them, and what is known about their codes.
class RowBlock {
 public:
  static constexpr std::int64_t max_rows = kMaxBlockRows;

  RowBlock(const StridedMatrix& z, const NearestKernel& kernel)
      : z_(z), kernel_(kernel), packed_(static_cast<std::size_t>(capacity() * z.columns)) {}

  // Takes the rows first, first + 1, ... of z, as many as there are, up to max_rows.
  void load(std::int64_t first) {
    rows_ = std::min(max_rows, z_.rows - first);
    std::fill_n(best_, max_rows, std::numeric_limits<float>::infinity());
    std::fill_n(where_, max_rows, 0);
    for (std::int64_t row = 0; row < rows_; row += kernel_.tile_rows) {
      kernel_.pack(z_, first + row, tile(row));
    }
  }

  // Finds the nearest codes of the rows.
  void compare(const StridedMatrix& codebook, const float* offsets) {
    // Codes in chunks that stay in the second-level cache while all tiles pass.
    constexpr std::int64_t kChunkFloats = 32768;
    const std::int64_t chunk = std::max<std::int64_t>(64, kChunkFloats / codebook.columns);
    for (std::int64_t code = 0; code < codebook.rows; code += chunk) {
      const std::int64_t end = std::min(code + chunk, codebook.rows);
      for (std::int64_t row = 0; row < rows_; row += kernel_.tile_rows) {
        kernel_.compare(tile(row), codebook, offsets, static_cast<std::int32_t>(code),
                        static_cast<std::int32_t>(end), best_ + row, where_ + row);
      }
    }
  }

  std::int64_t rows() const { return rows_; }
  float score(std::int64_t row) const { return best_[row]; }
  std::int64_t index(std::int64_t row) const { return where_[row]; }

 private:
  // Whole tiles, for max_rows or for all of z.
  std::int64_t capacity() const {
    const std::int64_t tiles = (z_.rows + kernel_.tile_rows - 1) / kernel_.tile_rows;
    return std::min(max_rows, tiles * kernel_.tile_rows);
  }

  float* tile(std::int64_t first_row) { return packed_.data() + first_row * z_.columns; }

  const StridedMatrix& z_;
  const NearestKernel& kernel_;
  std::int64_t rows_ = 0;
  AlignedArray<float> packed_;  // tiles of dims x tile_rows
  alignas(kCacheLine) float best_[max_rows];
  alignas(kCacheLine) std::int32_t where_[max_rows];
};

void store_minimum(std::atomic<std::int64_t>& target, std::int64_t value) {
  std::int64_t current = target.load();
  while (value < current && !target.compare_exchange_weak(current, value)) {
  }
}

}  // namespace

Status check_shapes(const StridedMatrix& z, const StridedMatrix& codebook) {
  if (codebook.rows < 1 || codebook.columns < 1) {
    return Status::invalid_argument("codebook must have at least one code and one dimension, got " +
                                    std::to_string(codebook.rows) + " x " +
                                    std::to_string(codebook.columns));
  }
  if (codebook.rows > kMaxCodebookSize) {
    return Status::invalid_argument("codebook must have at most 2^30 codes, got " +
                                    std::to_string(codebook.rows));
  }
  if (z.columns != codebook.columns) {
    return Status::invalid_argument("z and codebook must have rows of one length, got " +
                                    std::to_string(z.columns) + " and " +
                                    std::to_string(codebook.columns));
  }
  return {};
}

Status nearest_codebook(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias,
                        Variant variant, std::int64_t* indices) {
  if (Status status = check(z, codebook, bias); !status.ok()) return status;
  const ScopedFloatEnvironment environment;
  const NearestKernel& kernel = kernels_of(variant).nearest;
  std::vector<float> offsets(static_cast<std::size_t>(codebook.rows));
  for (std::int64_t k = 0; k < codebook.rows; ++k) {
    offsets[k] = codebook_offset(codebook, k, bias == nullptr ? 0.0f : bias[k]);
  }

  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first_bad_row{none};
  const std::int64_t blocks = (z.rows + RowBlock::max_rows - 1) / RowBlock::max_rows;
  // Enough tasks for an even load, and few enough to share the memory of a block among many.
  const std::int64_t tasks = std::min<std::int64_t>(blocks, 16 * get_num_threads());
  parallel_for(tasks, [&](std::int64_t task) {
    const ScopedFloatEnvironment task_environment;
    RowBlock block(z, kernel);
    for (std::int64_t b = task * blocks / tasks; b < (task + 1) * blocks / tasks; ++b) {
      const std::int64_t first = b * RowBlock::max_rows;
      block.load(first);
      block.compare(codebook, offsets.data());
      for (std::int64_t row = 0; row < block.rows(); ++row) {
        indices[first + row] = block.index(row);
        if (!std::isfinite(block.score(row))) store_minimum(first_bad_row, first + row);
      }
    }
  });
  if (first_bad_row != none) {
    return Status::invalid_argument("z must be finite and its scores must not overflow: row " +
                                    std::to_string(first_bad_row.load()) +
                                    " has no code with a finite score");
  }
  return {};
}

}  // namespace vqcodec
