// The integer prior in the memory of a device, in the layout of the kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "cuda/memory.h"
#include "model/prior_tensors.h"
#include "nn/convolution.h"
#include "prior/prior_arithmetic.h"
#include "prior/prior_network.h"

namespace vqcodec::cuda {

// Bytes of a half: what one mma_s8 takes from one place, and twice that in all.
inline constexpr int kHalf = 16;
// Outputs and positions of one mma_s8.
inline constexpr int kRowTile = 16;
inline constexpr int kColumnTile = 8;

inline std::int64_t round_up(std::int64_t x, std::int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

// Where 16 of the inputs of a convolution come from.
struct Half {
  Offset tap;
  std::int32_t piece;  // of the position's row: channels 16 piece .. 16 piece + 15
};

// A convolution as a product of matrices: `row_tiles` x 16 rows of weights, `mmas` x 32 columns.
// Rows are outputs, in an order that suits what becomes of them (prior_network.cu); rows and
// columns that do not exist have zero weights. Pointers are to device memory.
struct Conv {
  const uint4* weights = nullptr;  // row tile, mma, lane: the fragments `a` of mma_s8
  const int2* rounding = nullptr;  // row: bias (with half of the shift), shift
  const Half* halves = nullptr;    // mma, two
  std::int32_t row_tiles = 0;
  std::int32_t mmas = 0;

  std::int64_t weight_vectors() const { return std::int64_t{row_tiles} * mmas * 32; }
};

struct Block {
  Conv in;
  Conv out;
};

// Immutable.
class PriorNetwork {
 public:
  // Checks as vqcodec::PriorNetwork does, and copies to the current device.
  // unsupported: a CUDA error, such as too little memory.
  static Status create(const PriorTensors& tensors, std::shared_ptr<const PriorNetwork>* network);

  // The same network for the CPU.
  const vqcodec::PriorNetwork& host() const { return *host_; }

  // Channels of a head in KeyStore.
  int head_channels() const { return static_cast<int>(round_up(host_->hidden / host_->heads, 4)); }

  Conv first, condition_in, logits;
  std::vector<Block> condition, layers;
  DeviceArray<std::int8_t> embedding;
  std::vector<DeviceArray<std::int8_t>> coarser;
  DeviceArray<PriorTables> tables;

 private:
  Status load(const PriorTensors& tensors);

  std::shared_ptr<const vqcodec::PriorNetwork> host_;
  DeviceArray<uint4> weights_;
  DeviceArray<int2> rounding_;
  DeviceArray<Half> halves_;
};

// Those for the CPU, for checks of arguments.
inline std::vector<const vqcodec::PriorNetwork*> hosts_of(
    const std::vector<const PriorNetwork*>& networks) {
  std::vector<const vqcodec::PriorNetwork*> hosts;
  for (const PriorNetwork* network : networks) hosts.push_back(&network->host());
  return hosts;
}

}  // namespace vqcodec::cuda
