// What the prior computes beyond nn/fixed_point.h: its tables, and attention (docs/FORMAT.md,
// "Prior: integer arithmetic").
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "nn/fixed_point.h"

namespace vqcodec {

inline constexpr int kExpFraction = 5;
inline constexpr int kExpSize = 512;  // entries of the exponential table; later ones are zero

// The look-up tables of a model.
struct PriorTables {
  std::int8_t tanh[256];
  std::int8_t sigmoid[256];
  std::uint16_t exp[kExpSize + 1];  // the last is zero, and stands for all that follow
};

// Scores of attention are dropped to the fraction of the exponential table.
inline constexpr int kScoreShift = 2 * kActivationFraction - kExpFraction;

// sum / total to the nearest integer, halves up: floor((2 sum + total) / (2 total)).
VQCODEC_HOST_DEVICE static inline std::int32_t attention_mean(std::int64_t sum,
                                                              std::int64_t total) {
  const std::int64_t numerator = 2 * sum + total;
  std::int64_t quotient = numerator / (2 * total);
  if (numerator % (2 * total) < 0) --quotient;
  return static_cast<std::int32_t>(quotient);
}

}  // namespace vqcodec
