// What the kernels need beyond plain CUDA C++: warp-wide matrix products, ordered memory
// accesses, dynamic shared memory, and launches.
//
// Two compilers read the kernels. nvcc makes the code that runs on a GPU. The host compiler, with
// tests/cuda_simulator first on its include path, makes code that runs the same source on a CPU,
// thread by thread: there <cuda_runtime.h> is tests/cuda_simulator/cuda_runtime.h, which defines
// VQCODEC_CUDA_SIMULATOR and the CUDA built-ins (threadIdx, __syncthreads, __shfl_sync, atomicAdd,
// cudaMalloc, ...), and this file takes the functions below from it.
//
// Rules that keep the kernels readable by both:
//   * a kernel takes one struct of parameters, by value, and is started by `launch`;
//   * shared memory is dynamic only: `shared_memory<T>()`;
//   * no <<<>>>, no inline PTX outside this file, no textures, no __constant__ variables;
//   * a loop that waits for another block calls `relax()`.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#ifdef VQCODEC_CUDA_SIMULATOR
#include "device_functions.h"
#else

namespace vqcodec::cuda {

// Dynamic shared memory of the block, 16-byte aligned.
template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char vqcodec_shared[];
  return reinterpret_cast<T*>(vqcodec_shared);
}

// c += a * b, int8 x int8 -> int32, by the warp: a is 16 x 32, b is 32 x 8, c is 16 x 8.
// With g = lane / 4 and q = lane % 4, bytes little-endian:
//     a[0]: row g,     k = 4 q .. 4 q + 3        a[2]: row g,     k = 16 + 4 q ..
//     a[1]: row g + 8, k = 4 q ..                a[3]: row g + 8, k = 16 + 4 q ..
//     b[0]: k = 4 q .. 4 q + 3, column g         b[1]: k = 16 + 4 q .., column g
//     c[0]: row g,     column 2 q                c[1]: row g,     column 2 q + 1
//     c[2]: row g + 8, column 2 q                c[3]: row g + 8, column 2 q + 1
// Sums wrap around (no saturation). All 32 lanes must take part.
__device__ __forceinline__ void mma_s8(std::int32_t (&c)[4], const std::uint32_t (&a)[4],
                                       const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // The same fragments, as four products of 8 x 16 by 16 x 8: what compute capability 7.5 has.
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int upper = part & 1, half = part >> 1;
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(c[2 * upper]), "+r"(c[2 * upper + 1])
                 : "r"(a[2 * half + upper]), "r"(b[half]));
  }
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// c += a * b in TF32 (the low 13 bits of each float32 in a and b are ignored, products are exact,
// sums are float32 of unspecified order): a is 16 x 8, b is 8 x 8, c is 16 x 8. With g and q as
// above:
//     a[0]: row g, k = q      a[1]: row g + 8, k = q     a[2]: row g, k = q + 4
//     a[3]: row g + 8, k = q + 4
//     b[0]: k = q, column g   b[1]: k = q + 4, column g       c as above
// Compute capability 8.0 and later.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// A load that no later access of this thread can overtake, and the store that it pairs with:
// what was written before the store is visible after a load that saw it, in any block.
__device__ __forceinline__ std::int32_t load_acquire(const std::int32_t* address) {
  std::int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
// A load without such promises: for polling, before a load_acquire.
__device__ __forceinline__ std::int32_t load_relaxed(const std::int32_t* address) {
  std::int32_t value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(std::int32_t* address, std::int32_t value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" : : "l"(address), "r"(value) : "memory");
}

// Called in every turn of a loop that waits for another block.
__device__ __forceinline__ void relax() { __nanosleep(20); }

// Starts `kernel` on `stream`, with `shared` bytes of dynamic shared memory per block.
template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, std::size_t shared,
                   cudaStream_t stream, const Params& params) {
  void* arguments[] = {const_cast<Params*>(&params)};
  if (shared > 48 * 1024) {
    // The attribute belongs to the kernel, not to the launch: always the same value, so that other
    // host threads may launch it with more.
    int device = 0, limit = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
    if (error == cudaSuccess) {
      error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
    }
    if (error != cudaSuccess) return error;
  }
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared,
                          stream);
}

}  // namespace vqcodec::cuda

#endif  // VQCODEC_CUDA_SIMULATOR

namespace vqcodec::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace vqcodec::cuda
