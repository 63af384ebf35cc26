#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"
#include "quantizer/codebook_statistics.h"
#include "quantizer/nearest_codebook.h"
#include "quantizer/nearest_codebook_definition.h"

namespace vqcodec {
namespace {

StridedMatrix matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  return {values.data(), rows, columns, static_cast<std::ptrdiff_t>(columns), 1};
}

std::vector<Variant> variants() {
  std::vector<Variant> found;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) found.push_back(variant);
  }
  return found;
}

// The definition in quantizer/nearest_codebook_definition.h, word for word.
std::vector<std::int64_t> reference(const StridedMatrix& z, const StridedMatrix& codebook,
                                    const float* bias) {
  std::vector<std::int64_t> indices;
  for (std::int64_t n = 0; n < z.rows; ++n) {
    float lowest = std::numeric_limits<float>::infinity();
    std::int64_t index = -1;
    for (std::int64_t k = 0; k < codebook.rows; ++k) {
      float score = codebook_offset(codebook, k, bias == nullptr ? 0.0f : bias[k]);
      for (std::int64_t d = 0; d < z.columns; ++d) {
        score = std::fma(codebook(k, d), -2.0f * z(n, d), score);
      }
      if (score < lowest) {
        lowest = score;
        index = k;
      }
    }
    indices.push_back(index);
  }
  return indices;
}

}  // namespace

TEST(nearest_codebook_equals_its_definition) {
  std::mt19937 random(1);
  for (std::int64_t rows : {0, 1, 5, 6, 61, 130}) {
    for (std::int64_t codes : {1, 2, 15, 16, 17, 33, 100}) {
      for (std::int64_t dims : {1, 2, 3, 4, 17, 64}) {
        // Few distinct values: many ties.
        std::uniform_int_distribution<int> few(-2, 2);
        std::normal_distribution<float> many;
        for (bool ties : {false, true}) {
          const auto fill = [&](std::int64_t size) {
            std::vector<float> values(static_cast<std::size_t>(size));
            for (float& value : values) {
              value = ties ? static_cast<float>(few(random)) : many(random);
            }
            return values;
          };
          const auto z = fill(rows * dims), e = fill(codes * dims), bias = fill(codes);
          const StridedMatrix z_matrix = matrix(z, rows, dims), e_matrix = matrix(e, codes, dims);
          // The same rows, stored column by column and from the last to the first.
          std::vector<float> turned(z.size());
          StridedMatrix turned_matrix{turned.data() + (rows > 0 ? rows - 1 : 0), rows, dims, -1,
                                      static_cast<std::ptrdiff_t>(rows)};
          for (std::int64_t n = 0; n < rows; ++n) {
            for (std::int64_t d = 0; d < dims; ++d) {
              turned[static_cast<std::size_t>(rows - 1 - n + d * rows)] = z_matrix(n, d);
            }
          }
          const auto expected = reference(z_matrix, e_matrix, bias.data());
          for (Variant variant : variants()) {
            for (int threads : {1, 2}) {
              CHECK(set_num_threads(threads).ok());
              std::vector<std::int64_t> found(static_cast<std::size_t>(rows));
              CHECK(nearest_codebook(z_matrix, e_matrix, bias.data(), variant, found.data()).ok());
              CHECK(found == expected);
              CHECK(nearest_codebook(turned_matrix, e_matrix, bias.data(), variant, found.data())
                        .ok());
              CHECK(found == expected);
            }
          }
        }
      }
    }
  }
}

TEST(nearest_codebook_worked_example) {
  const std::vector<float> z = {2, 1.5f}, e = {0, 3}, bias = {0, 1};
  for (Variant variant : variants()) {
    std::vector<std::int64_t> found(2);
    CHECK(nearest_codebook(matrix(z, 2, 1), matrix(e, 2, 1), bias.data(), variant, found.data())
              .ok());
    CHECK_EQ(found[0], 1);
    CHECK_EQ(found[1], 0);
    CHECK(nearest_codebook(matrix(z, 2, 1), matrix(e, 2, 1), nullptr, variant, found.data()).ok());
    CHECK_EQ(found[0], 1);
    CHECK_EQ(found[1], 0);  // a tie: 1.5 lies in the middle
  }
}

TEST(nearest_codebook_refuses_what_is_not_finite) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::int64_t> found(3);
  for (Variant variant : variants()) {
    const auto run = [&](std::vector<float> z, std::vector<float> e, std::vector<float> bias) {
      return nearest_codebook(matrix(z, 3, 1), matrix(e, 2, 1), bias.data(), variant, found.data());
    };
    CHECK(run({0, 1, 2}, {0, 2}, {0, 0}).ok());
    for (float bad : {nan, inf, -inf}) {
      const Status status = run({0, bad, bad}, {0, 2}, {0, 0});
      CHECK(status.code() == StatusCode::invalid_argument);
      CHECK(status.message().find("row 1 ") != std::string::npos);
      CHECK(run({0, 1, 2}, {0, bad}, {0, 0}).code() == StatusCode::invalid_argument);
      if (bad != inf) {
        CHECK(run({0, 1, 2}, {0, 2}, {0, bad}).code() == StatusCode::invalid_argument);
      }
    }
    CHECK(run({3e38f, 0, 0}, {-3e38f, 3e38f}, {0, 0}).code() == StatusCode::invalid_argument);
    CHECK(run({0, 1, 2}, {0, 2}, {inf, 0}).ok());  // the first code is disabled
    CHECK(found == std::vector<std::int64_t>({1, 1, 1}));
  }
}

TEST(codebook_statistics_of_any_width) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const std::int64_t rows = 500, codes = 7;
  for (std::int64_t dims : {1, 15, 16, 17, 40}) {
    std::vector<float> z(static_cast<std::size_t>(rows * dims));
    for (float& value : z) value = normal(random);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(rows));
    for (auto& index : indices) index = static_cast<std::int64_t>(random() % (codes - 1));

    std::vector<float> counts(codes), sums(static_cast<std::size_t>(codes * dims));
    for (int threads : {1, 2, 3}) {
      CHECK(set_num_threads(threads).ok());
      CHECK(codebook_statistics(matrix(z, rows, dims), indices.data(), codes, counts.data(),
                                sums.data())
                .ok());
      for (std::int64_t k = 0; k < codes; ++k) {
        float count = 0;
        for (std::int64_t index : indices) count += static_cast<float>(index == k);
        CHECK_EQ(counts[static_cast<std::size_t>(k)], count);
        for (std::int64_t d = 0; d < dims; ++d) {
          double sum = 0;
          for (std::int64_t n = 0; n < rows; ++n) {
            if (indices[static_cast<std::size_t>(n)] == k) {
              sum += z[static_cast<std::size_t>(n * dims + d)];
            }
          }
          CHECK_EQ(sums[static_cast<std::size_t>(k * dims + d)], static_cast<float>(sum));
        }
      }
    }
  }
  const std::vector<float> z = {1, 2};
  std::vector<float> out(2);
  for (std::int64_t bad : {-1, 2}) {
    const std::vector<std::int64_t> indices = {0, bad};
    CHECK(codebook_statistics(matrix(z, 2, 1), indices.data(), 2, out.data(), out.data()).code() ==
          StatusCode::invalid_argument);
  }
}

}  // namespace vqcodec
