// The integer autoencoder on a GPU: the functions of autoencoder/autoencoder.h, which give the same
// integers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "autoencoder/autoencoder.h"
#include "base/status.h"
#include "cuda/integer_network.h"
#include "cuda/memory.h"
#include "cuda/window_pass.h"

namespace vqcodec::cuda {

// A code map as the kernels see it.
struct DeviceMap {
  const std::int16_t* codebook = nullptr;  // in device memory
  std::int32_t channels = 0;
  std::int32_t first_channel = 0;  // in the vectors of its stride
  bool refines = false;            // adds to these channels
};

// Immutable.
class Autoencoder {
 public:
  using Network = std::shared_ptr<const IntegerNetwork>;
  using Host = std::shared_ptr<const vqcodec::Autoencoder>;

  // Of networks whose hosts are those of `host`; copies its codebooks to the current device.
  // unsupported: a CUDA error, such as too little memory.
  static Status create(Host host, Network analysis, std::vector<Network> latents, Network synthesis,
                       std::shared_ptr<const Autoencoder>* autoencoder);

  // The same autoencoder for the CPU.
  const vqcodec::Autoencoder& host() const { return *host_; }
  // The maps of the `stride`-th stride, in device memory.
  const DeviceMap* maps(int stride) const { return maps_.data() + first_[stride]; }

  Network analysis;
  std::vector<Network> latents;
  Network synthesis;

 private:
  Status load();

  Host host_;
  std::vector<std::size_t> first_;  // map of every stride
  DeviceArray<std::int16_t> codebooks_;
  DeviceArray<DeviceMap> maps_;
};

// All of these are incomplete where limits.interrupted has said true, and unsupported where CUDA
// fails. Requirements as for the functions of the CPU.
Status autoencoder_pixels(const Autoencoder& autoencoder, const ImageSize& size,
                          const CodeMaps& maps, const Box& box, const PassLimits& limits,
                          cudaStream_t stream, std::uint8_t* pixels);

Status autoencoder_features(const Autoencoder& autoencoder, const ImageSize& size,
                            const std::uint8_t* pixels, const PassLimits& limits,
                            cudaStream_t stream, const std::vector<std::int16_t*>& features);

Status autoencoder_latents(const Autoencoder& autoencoder, int stride, const ImageSize& size,
                           const std::int16_t* features, const CodeMaps& maps,
                           const PassLimits& limits, cudaStream_t stream, std::int16_t* latents);

}  // namespace vqcodec::cuda
