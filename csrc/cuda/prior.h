// The integer prior on a GPU: frequencies of a known map, and the fused loop that makes codes.
// Definitions: vqcodec/ops/ref.py, to the bit. Arguments and results are in host memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "prior/prior_network.h"
#include "prior/wavefront.h"

namespace vqcodec::cuda {

// A prior in the memory of one device, in the layout of its kernels. Immutable.
class PriorNetwork {
 public:
  // Checks as cpu::PriorNetwork does, and copies to the current device.
  // unsupported: a CUDA error, such as too little memory.
  static Status create(const cpu::PriorTensors& tensors,
                       std::shared_ptr<const PriorNetwork>* network);
  virtual ~PriorNetwork() = default;
  virtual const cpu::PriorNetwork& host() const = 0;
};

// As the functions of the same names in csrc/cpu, on the device that holds the networks.
Status prior_frequencies(const PriorNetwork& network, const cpu::PriorTile& tile,
                         cudaStream_t stream, std::int64_t* start, std::int64_t* frequency);
Status wavefront_decode(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<cpu::DecodeJob>& jobs, cudaStream_t stream,
                        cpu::WavefrontOutcome* outcome);
Status wavefront_sample(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<cpu::SampleJob>& jobs, const SamplingRule& rule,
                        cudaStream_t stream, cpu::WavefrontOutcome* outcome);

}  // namespace vqcodec::cuda
