// Stands in for CUDA's <cuda_runtime.h> when the host compiler reads csrc/cuda/*.cu:
//
//     g++ -x c++ -std=c++17 -ffp-contract=off -I tests/cuda_simulator -I csrc -c csrc/cuda/x.cu
//
// What is here is what the kernels may use (csrc/cuda/device.cuh states the rules); anything else
// does not compile. Warp and block operations take the place of their call in the source as a last
// argument that nobody passes: reports name it, and operations that must be convergent are
// compared by it. simulator.h runs the threads and says what is checked.
#pragma once

#define VQCODEC_CUDA_SIMULATOR 1

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

// ---------------------------------------------------------------- vector types

#define VQCODEC_VECTOR_TYPES(scalar, name)                                          \
  struct __align__(2 * sizeof(scalar)) name##2 { scalar x, y; };                    \
  struct name##3 { scalar x, y, z; };                                               \
  struct __align__(4 * sizeof(scalar)) name##4 { scalar x, y, z, w; };              \
  inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }              \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
VQCODEC_VECTOR_TYPES(int, int)
VQCODEC_VECTOR_TYPES(unsigned int, uint)
VQCODEC_VECTOR_TYPES(float, float)
#undef VQCODEC_VECTOR_TYPES

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

#include "simulator.h"

// ---------------------------------------------------------------- built-in variables

// Those of the thread that runs. The simulator writes them; kernels only read them.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// The last parameter of the functions that switch threads.
#define VQCODEC_AT vqcodec::cuda_simulator::Location at = vqcodec::cuda_simulator::Location::here()

// ---------------------------------------------------------------- the block

inline void __syncthreads(VQCODEC_AT) {
  vqcodec::cuda_simulator::barrier(vqcodec::cuda_simulator::Barrier::plain, 0, at);
}
inline int __syncthreads_or(int predicate, VQCODEC_AT) {
  return vqcodec::cuda_simulator::barrier(vqcodec::cuda_simulator::Barrier::any, predicate, at) !=
         0;
}
inline int __syncthreads_and(int predicate, VQCODEC_AT) {
  return vqcodec::cuda_simulator::barrier(vqcodec::cuda_simulator::Barrier::all, predicate, at) !=
         0;
}
inline int __syncthreads_count(int predicate, VQCODEC_AT) {
  return vqcodec::cuda_simulator::barrier(vqcodec::cuda_simulator::Barrier::count, predicate, at);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---------------------------------------------------------------- the warp

inline void __syncwarp(unsigned mask = 0xffffffffu, VQCODEC_AT) {
  vqcodec::cuda_simulator::collective(vqcodec::cuda_simulator::Operation::syncwarp, mask, 0, 0, at);
}

namespace vqcodec::cuda_simulator {

template <class T>
T shuffle(Operation operation, unsigned mask, T value, int operand, int width, Location at) {
  static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                "shuffles take 32 or 64 bits");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = collective(operation, mask, bits,
                    static_cast<std::uint64_t>(static_cast<std::uint32_t>(operand)) << 32 |
                        static_cast<std::uint32_t>(width),
                    at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace vqcodec::cuda_simulator

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, VQCODEC_AT) {
  return vqcodec::cuda_simulator::shuffle(vqcodec::cuda_simulator::Operation::shfl, mask, value,
                                          lane, width, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, VQCODEC_AT) {
  return vqcodec::cuda_simulator::shuffle(vqcodec::cuda_simulator::Operation::shfl_up, mask, value,
                                          static_cast<int>(delta), width, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, VQCODEC_AT) {
  return vqcodec::cuda_simulator::shuffle(vqcodec::cuda_simulator::Operation::shfl_down, mask,
                                          value, static_cast<int>(delta), width, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, VQCODEC_AT) {
  return vqcodec::cuda_simulator::shuffle(vqcodec::cuda_simulator::Operation::shfl_xor, mask, value,
                                          lanes, width, at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, VQCODEC_AT) {
  return static_cast<unsigned>(vqcodec::cuda_simulator::collective(
      vqcodec::cuda_simulator::Operation::ballot, mask, predicate != 0, 0, at));
}
inline int __any_sync(unsigned mask, int predicate, VQCODEC_AT) {
  return static_cast<int>(vqcodec::cuda_simulator::collective(
      vqcodec::cuda_simulator::Operation::any, mask, predicate != 0, 0, at));
}
inline int __all_sync(unsigned mask, int predicate, VQCODEC_AT) {
  return static_cast<int>(vqcodec::cuda_simulator::collective(
      vqcodec::cuda_simulator::Operation::all, mask, predicate != 0, 0, at));
}

#define VQCODEC_REDUCTION(type, name, operation)                                                 \
  inline type __reduce_##name##_sync(unsigned mask, type value, VQCODEC_AT) {                    \
    return static_cast<type>(                                                                    \
        vqcodec::cuda_simulator::collective(vqcodec::cuda_simulator::Operation::operation, mask, \
                                            static_cast<std::uint32_t>(value), 0, at));          \
  }
VQCODEC_REDUCTION(unsigned, add, reduce_add)
VQCODEC_REDUCTION(unsigned, min, reduce_min_unsigned)
VQCODEC_REDUCTION(unsigned, max, reduce_max_unsigned)
VQCODEC_REDUCTION(int, add, reduce_add)
VQCODEC_REDUCTION(int, min, reduce_min)
VQCODEC_REDUCTION(int, max, reduce_max)
#undef VQCODEC_REDUCTION

// ---------------------------------------------------------------- arithmetic of one thread

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) {
  return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value));
}
inline int __clzll(long long value) {
  return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}
// Four of the eight bytes of a and b (those of a first), each named by three bits of a digit of
// `selector`.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  }
  return result;
}
// c + the sum of the products of the four signed bytes of a and b; wraps around.
inline int __dp4a(int a, int b, int c) {
  auto sum = static_cast<std::uint32_t>(c);
  for (int i = 0; i < 32; i += 8) {
    sum += static_cast<std::uint32_t>(static_cast<std::int8_t>(a >> i) *
                                      static_cast<std::int8_t>(b >> i));
  }
  return static_cast<int>(sum);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255u) * (b >> i & 255u);
  return c;
}

namespace vqcodec::cuda_simulator {

template <class To, class From>
To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

}  // namespace vqcodec::cuda_simulator

inline unsigned __float_as_uint(float x) { return vqcodec::cuda_simulator::same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return vqcodec::cuda_simulator::same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return vqcodec::cuda_simulator::same_bits<float>(x); }
inline float __int_as_float(int x) { return vqcodec::cuda_simulator::same_bits<float>(x); }

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }

// CUDA's own overloads of min and max, in the global namespace.
#define VQCODEC_MIN_MAX(type)                               \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
VQCODEC_MIN_MAX(int)
VQCODEC_MIN_MAX(unsigned int)
VQCODEC_MIN_MAX(long)
VQCODEC_MIN_MAX(unsigned long)
VQCODEC_MIN_MAX(long long)
VQCODEC_MIN_MAX(unsigned long long)
#undef VQCODEC_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }

// ---------------------------------------------------------------- memory

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcg(T* address, T value) {
  *address = value;
}

namespace vqcodec::cuda_simulator {

// One thread runs at a time, so that a plain access is atomic; what an atomic operation adds is a
// place where others may come first.
template <class T, class Update>
T atomic(T* address, Update update) {
  preemption_point();
  const T before = *address, after = update(before);
  *address = after;
  if (after != before) note_progress();
  return before;
}

}  // namespace vqcodec::cuda_simulator

#define VQCODEC_ATOMIC(type, name, expression)                                         \
  inline type name(type* address, type value) {                                        \
    return vqcodec::cuda_simulator::atomic(                                            \
        address, [value](type old) -> type { return static_cast<type>(expression); }); \
  }
#define VQCODEC_ATOMICS(type, sum)                                                             \
  VQCODEC_ATOMIC(type, atomicAdd, sum(old) + sum(value))                                       \
  VQCODEC_ATOMIC(type, atomicMax, old < value ? value : old)                                   \
  VQCODEC_ATOMIC(type, atomicMin, value < old ? value : old)                                   \
  VQCODEC_ATOMIC(type, atomicOr, old | value)                                                  \
  VQCODEC_ATOMIC(type, atomicAnd, old& value)                                                  \
  VQCODEC_ATOMIC(type, atomicExch, (void(old), value))                                         \
  inline type atomicCAS(type* address, type compare, type value) {                             \
    return vqcodec::cuda_simulator::atomic(                                                    \
        address, [compare, value](type old) -> type { return old == compare ? value : old; }); \
  }
VQCODEC_ATOMICS(int, static_cast<unsigned>)
VQCODEC_ATOMICS(unsigned int, static_cast<unsigned>)
VQCODEC_ATOMICS(unsigned long long, static_cast<unsigned long long>)
#undef VQCODEC_ATOMICS
#undef VQCODEC_ATOMIC

// ---------------------------------------------------------------- the host's side

// The numbers are CUDA's.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchFailure = 719,
};
using cudaError = cudaError_t;

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMemoryPoolsSupported = 115,
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int maxThreadsPerBlock, warpSize;
};

// All streams are the same one, and all work is done when the call returns.
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
// For cudaErrorLaunchFailure: the report of this host thread's last launch that failed.
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);

// Memory of the "device": exactly `size` bytes, filled with the poison of the thread order in use.
cudaError_t cudaMalloc(void** pointer, std::size_t size);
cudaError_t cudaMallocAsync(void** pointer, std::size_t size, cudaStream_t stream);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
// Pools, as far as they are a place to allocate from.
using cudaMemPool_t = struct CUmemPoolHandle_st*;
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
struct cudaMemLocation {
  cudaMemLocationType type;
  int id;
};
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  cudaMemLocation location;
};
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMallocFromPoolAsync(void** pointer, std::size_t size, cudaMemPool_t pool,
                                    cudaStream_t stream);
cudaError_t cudaHostAlloc(void** pointer, std::size_t size, unsigned flags);
cudaError_t cudaMallocHost(void** pointer, std::size_t size);
cudaError_t cudaFreeHost(void* pointer);
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), size);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, std::size_t size, cudaStream_t stream) {
  return cudaMallocAsync(reinterpret_cast<void**>(pointer), size, stream);
}
template <class T>
cudaError_t cudaHostAlloc(T** pointer, std::size_t size, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(pointer), size, flags);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t size) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), size);
}

// A range that starts in memory of cudaMalloc or cudaHostAlloc must end in it, and the kind must
// not call device memory host memory. Other pointers are taken as they come: tests hand NumPy
// arrays to kernels.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, std::size_t size);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t size, cudaStream_t stream = nullptr);

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int block_size, std::size_t shared);
template <class... Arguments>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Arguments...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class... Arguments>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(Arguments...),
                                                          int block_size, std::size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, reinterpret_cast<const void*>(kernel), block_size, shared);
}
