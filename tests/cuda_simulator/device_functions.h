// The functions of csrc/cuda/device.cuh for the simulator.
#pragma once

#include "cuda_runtime.h"

namespace vqcodec::cuda {

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(cuda_simulator::shared_base);
}

inline void mma_s8(std::int32_t (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                   cuda_simulator::Location at = cuda_simulator::Location::here()) {
  const cuda_simulator::FragmentsS8 fragments = {c, a, b};
  cuda_simulator::collective(cuda_simulator::Operation::mma_s8, 0xffffffffu,
                             reinterpret_cast<std::uintptr_t>(&fragments), 0, at);
}

inline void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     cuda_simulator::Location at = cuda_simulator::Location::here()) {
  const cuda_simulator::FragmentsTF32 fragments = {c, a, b};
  cuda_simulator::collective(cuda_simulator::Operation::mma_tf32, 0xffffffffu,
                             reinterpret_cast<std::uintptr_t>(&fragments), 0, at);
}

inline std::int32_t load_acquire(const std::int32_t* address) {
  cuda_simulator::preemption_point();
  return *const_cast<const volatile std::int32_t*>(address);
}

inline std::int32_t load_relaxed(const std::int32_t* address) { return load_acquire(address); }

inline void store_release(std::int32_t* address, std::int32_t value) {
  cuda_simulator::preemption_point();
  *const_cast<volatile std::int32_t*>(address) = value;
  cuda_simulator::note_progress();
}

inline void relax() { cuda_simulator::wait_turn(); }

template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, std::size_t shared, cudaStream_t,
                   const Params& params) {
  static_assert(std::is_trivially_copyable<Params>::value, "parameters are copied as bytes");
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) return error;
  }
  struct Call {
    void (*kernel)(Params);
    const Params& params;
  };
  const Call call = {kernel, params};
  return static_cast<cudaError_t>(cuda_simulator::run({reinterpret_cast<const void*>(kernel),
                                                       {grid.x, grid.y, grid.z},
                                                       {block.x, block.y, block.z},
                                                       shared,
                                                       [](const void* pointer) {
                                                         const Call& thread_call =
                                                             *static_cast<const Call*>(pointer);
                                                         thread_call.kernel(thread_call.params);
                                                       },
                                                       &call}));
}

}  // namespace vqcodec::cuda
