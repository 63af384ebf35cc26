// A table of a model file.
#pragma once

#include <cstdint>

namespace vqcodec {

// A dense table somewhere in memory.
template <class T>
struct TableView {
  const T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

}  // namespace vqcodec
