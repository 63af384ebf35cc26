// Tiles of pictures of few colours: indices into a palette, in rows from the top
// (nn/index_model.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "nn/instruction_set.h"

namespace vqcodec {

struct IndexTile {
  int height = 0;
  int width = 0;
  int bits = 0;  // of an index, 0 to 12
  std::uint16_t* indices = nullptr;
  std::vector<std::uint8_t> stream;    // written
  const std::uint8_t* data = nullptr;  // read
  std::size_t size = 0;
  bool corrupt = false;  // no encoder can have written the stream
};

// All tiles, on all threads. False if `interrupted`.
bool encode_indices(std::vector<IndexTile>* tiles, Variant variant,
                    const std::function<bool()>& interrupted);
bool decode_indices(std::vector<IndexTile>* tiles, Variant variant,
                    const std::function<bool()>& interrupted);

}  // namespace vqcodec
