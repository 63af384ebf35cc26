// Random numbers, always the same, and the variants to compare.
#pragma once

#include <random>
#include <vector>

#include "nn/instruction_set.h"

namespace vqcodec::testing {

inline std::mt19937 random_source(7);

inline int uniform(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random_source);
}

template <class T>
std::vector<T> random_values(std::size_t size, int low, int high) {
  std::vector<T> values(size);
  for (T& value : values) value = static_cast<T>(uniform(low, high));
  return values;
}

// Those that this machine runs.
inline std::vector<Variant> variants() {
  std::vector<Variant> found;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) found.push_back(variant);
  }
  return found;
}

}  // namespace vqcodec::testing
