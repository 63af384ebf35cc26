// The integer prior of one code map, checked and packed for the kernels of prior_kernel.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "base/status.h"
#include "nn/integer_kernels.h"
#include "coding/wavefront_order.h"

namespace vqcodec::cpu {

// Storage that begins on a cache line.
template <class T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};

  CacheLineAllocator() = default;
  template <class U>
  explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(std::size_t n) {
    return static_cast<T*>(::operator new(n * sizeof(T), alignment));
  }
  void deallocate(T* p, std::size_t) { ::operator delete(p, alignment); }
  bool operator==(const CacheLineAllocator&) const { return true; }
  bool operator!=(const CacheLineAllocator&) const { return false; }
};

template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

// A dense table somewhere in memory.
template <class T>
struct TableView {
  const T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

// A convolution as it lies in a model file: `weight` is outputs x taps x inputs.
struct ConvTensors {
  const std::int8_t* weight = nullptr;
  const std::int32_t* bias = nullptr;   // outputs
  const std::uint8_t* shift = nullptr;  // outputs
  std::int64_t outputs = 0;
  std::int64_t taps = 0;
  std::int64_t inputs = 0;
};

// x + out(non-linearity(in(x))): a gated block, an attention layer or a conditioning block.
struct BlockTensors {
  ConvTensors in;
  ConvTensors out;
  bool attention = false;
};

// A prior as it lies in a model file. Nothing about it is trusted.
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

// A convolution in the layout of prior_kernel.h.
class Conv {
 public:
  Conv() = default;
  Conv(const ConvTensors& tensors, std::vector<Offset> taps);

  const std::vector<Offset>& taps() const { return taps_; }
  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  // All panels, or `count` of them.
  PackedConv packed() const { return packed(0, num_panels_); }
  PackedConv packed(int first, int count) const;
  int num_panels() const { return num_panels_; }
  std::int64_t macs() const;

 private:
  std::vector<Offset> taps_;
  int outputs_ = 0;
  int inputs_ = 0;
  int pairs_ = 0;
  int num_panels_ = 0;
  AlignedVector<std::int8_t> weights_;
  AlignedVector<std::int32_t> bias_;
  AlignedVector<std::int32_t> shift_;
};

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

}  // namespace vqcodec::cpu
