// The tensors of a prior as they arrive from a model file. Nothing about them is trusted.
#pragma once

#include <cstdint>
#include <vector>

#include "model/table_view.h"
#include "nn/convolution.h"

namespace vqcodec {

// x + out(non-linearity(in(x))): a gated block, an attention layer or a conditioning block.
struct BlockTensors {
  ConvTensors in;
  ConvTensors out;
  bool attention = false;
};

// A prior as it lies in a model file.
struct PriorTensors {
  int kernel = 0;        // width of the masked convolutions in the gated blocks
  int first_kernel = 0;  // width of the first one
  int heads = 0;
  int num_blocks = 0;  // of `layers`, how many, attention aside, use `kernel`; the rest is 1x1
  std::vector<int> factors;  // how much coarser each earlier map is
  TableView<std::int8_t> embedding;
  ConvTensors first;
  TableView<std::int16_t> classes;
  TableView<std::int16_t> levels;
  std::vector<TableView<std::int8_t>> coarser;
  ConvTensors condition_in;  // unused without coarser maps
  std::vector<BlockTensors> condition;
  std::vector<BlockTensors> layers;  // in order of execution, output stack included
  ConvTensors logits;
  TableView<std::int8_t> tanh, sigmoid;
  TableView<std::uint16_t> exp;
};

}  // namespace vqcodec
