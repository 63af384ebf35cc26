// The integer prior of one code map, checked and packed for the kernels of nn/kernels.h.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "model/prior_tensors.h"
#include "nn/convolution.h"
#include "prior/prior_arithmetic.h"

namespace vqcodec {

// x + out(non-linearity(in(x))), see BlockTensors.
struct Block {
  Conv in;
  Conv out;
  bool attention = false;
};

// Immutable, and usable by any number of threads and by every variant of the kernels.
class PriorNetwork {
 public:
  // invalid_argument: sizes that contradict each other or are out of range, a sum that could
  // leave int32, an exponential table that increases or starts with zero.
  static Status create(const PriorTensors& tensors, std::shared_ptr<const PriorNetwork>* network);

  int codes = 0;
  int hidden = 0;
  int heads = 0;
  int lag = 0;
  int reach = 0;  // half the width of the widest masked convolution
  PriorTables tables = {};

  int embedding_channels = 0;
  std::vector<std::int8_t> embedding;  // codes x embedding_channels
  Conv first;
  int num_classes = 0;
  int num_levels = 0;
  std::vector<std::int16_t> classes;  // num_classes x hidden
  std::vector<std::int16_t> levels;   // num_levels x hidden

  // A map before this one.
  struct Coarser {
    int factor;
    int codes;
    int channels;                    // of one position of this map
    std::vector<std::int8_t> table;  // codes x factor x factor x channels
  };
  std::vector<Coarser> coarser;
  int condition_channels = 0;  // of all coarser maps together
  Conv condition_in;
  std::vector<Block> condition;

  std::vector<Block> layers;
  Conv logits;

  // Steps that the conditioning stack looks ahead in its input.
  int condition_lead() const {
    return coarser.empty() ? 0 : (1 + static_cast<int>(condition.size())) * (lag + 1);
  }
};

}  // namespace vqcodec
