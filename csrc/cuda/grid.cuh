// Kernels that take one thread, or one warp, per item.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "cuda/device.cuh"
#include "cuda/memory.h"

namespace vqcodec::cuda {

inline constexpr int kThreads = 256;  // per block

VQCODEC_HOST_DEVICE constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

inline unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>(divide_up(threads, kThreads));
}

__device__ inline std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// A value from the device, at once.
template <class T>
Status fetch(const T* from, cudaStream_t stream, T* to) {
  if (Status status = check(cudaMemcpyAsync(to, from, sizeof(T), cudaMemcpyDeviceToHost, stream),
                            "copying from the device");
      !status.ok()) {
    return status;
  }
  return wait(stream);
}

}  // namespace vqcodec::cuda
