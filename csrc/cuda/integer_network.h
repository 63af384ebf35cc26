// An integer network in the memory of a device, in the layout of the kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cuda/memory.h"
#include "model/network_tensors.h"
#include "network/integer_network.h"
#include "nn/convolution.h"
#include "nn/kernels.h"

namespace vqcodec::cuda {

// Which kernel computes a convolution (network_kernels.cu).
enum class Product { plain, tensor };

// Inputs of a convolution that tensor cores take at a time, of one tap: `kPiece` for each of the
// four lanes that share a position. Fewer than a quarter of them are not worth it.
inline constexpr int kPiece = 8;
inline constexpr int kChunk = 4 * kPiece;
inline constexpr int kLeastInputs = kPiece + 1;

// Adjacent phases of a convolution whose taps are the same, as one convolution of
// (phases of the group) x (channels of the plane) outputs. Pointers are to device memory.
struct ConvGroup {
  const std::int8_t* weights = nullptr;  // Product::plain: taps x inputs x outputs
  // Product::tensor: pair of tiles of 8 outputs, tap, chunk, lane: `b` of mma_s8 for both tiles
  const uint4* fragments = nullptr;
  // Output: bias (with half of the shift), shift. Product::tensor: the bias has 128 times the sum
  // of the weights in it, because the low bytes of features are taken less 128.
  const int2* rounding = nullptr;
  const Offset* taps = nullptr;
  std::int32_t num_taps = 0;
  std::int32_t inputs = 0;
  std::int32_t outputs = 0;
  std::int32_t first = 0;  // phase
};

// What makes one plane of others, by one kernel. A residual block is two convolutions, the second
// of which adds to its sums.
struct NetworkStep {
  LayerKind kind;  // all but residual
  std::vector<int> sources;
  int plane = 0;   // that the step makes
  int factor = 1;  // unshuffle
  // convolution
  Product product = Product::plain;
  const ConvGroup* groups = nullptr;  // in device memory
  int num_groups = 0;
  int outputs = 0;  // of the largest group
  int stride = 1;
  int upscale = 1;
  int addend = -1;  // a plane that is added to the sums, or -1
  Activation activation = Activation::none;
  Offset first_tap = {0, 0}, last_tap = {0, 0};  // the smallest and largest rows and columns
};

// Immutable.
class IntegerNetwork {
 public:
  using Host = std::shared_ptr<const vqcodec::IntegerNetwork>;

  // Copies a network to the current device. unsupported: a CUDA error, such as too little memory.
  static Status create(Host host, std::shared_ptr<const IntegerNetwork>* network);

  // The same network for the CPU.
  const Host& host() const { return host_; }

  std::vector<Plane> planes;       // the inputs, then those of the steps
  std::vector<NetworkStep> steps;  // each reads planes that are inputs or made by steps before it
  std::vector<int> outputs;

 private:
  Status load();

  Host host_;
  DeviceArray<std::int8_t> weights_;
  DeviceArray<uint4> fragments_;
  DeviceArray<int2> rounding_;
  DeviceArray<Offset> taps_;
  DeviceArray<ConvGroup> groups_;
};

}  // namespace vqcodec::cuda
