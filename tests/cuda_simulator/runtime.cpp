// The host's side of the CUDA API: memory, errors, properties of the simulated device.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "address_sanitizer.h"

namespace vqcodec::cuda_simulator {
namespace {

constexpr std::size_t kTail = kAsan ? 0 : 64;  // bytes behind an allocation that must not change
constexpr unsigned char kCanary = 0xA5;
constexpr std::size_t kDefaultShared = 48 * 1024;

struct Allocation {
  std::size_t size;
  bool device;
};

// All that lives. Never destroyed: tests may free at exit.
struct Memory {
  std::mutex mutex;
  std::map<std::uintptr_t, Allocation> allocations;
  std::map<const void*, std::size_t> opt_in;
  std::uint64_t count = 0;
};

Memory& memory() {
  static Memory* instance = new Memory;
  return *instance;
}

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_report;

cudaError_t allocate(void** pointer, std::size_t size, bool device) {
  if (pointer == nullptr) return set_last_error(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (size == 0) return cudaSuccess;  // as CUDA: a null pointer
  void* result = nullptr;
  if (size > PTRDIFF_MAX / 2 || posix_memalign(&result, 256, size + kTail) != 0) {
    return set_last_error(cudaErrorMemoryAllocation);
  }
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  fill_with_poison(result, size, ++all.count);
  std::memset(static_cast<unsigned char*>(result) + size, kCanary, kTail);
  all.allocations[reinterpret_cast<std::uintptr_t>(result)] = {size, device};
  *pointer = result;
  return cudaSuccess;
}

bool tail_is_whole(std::uintptr_t begin, const Allocation& allocation) {
  const auto* tail = reinterpret_cast<const unsigned char*>(begin) + allocation.size;
  return std::all_of(tail, tail + kTail, [](unsigned char byte) { return byte == kCanary; });
}

cudaError_t release(void* pointer, bool device) {
  if (pointer == nullptr) return cudaSuccess;
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == all.allocations.end() || found->second.device != device) {
    return set_last_error(cudaErrorInvalidValue);
  }
  const bool whole = tail_is_whole(found->first, found->second);
  all.allocations.erase(found);
  std::free(pointer);
  if (whole) return cudaSuccess;
  set_last_report("cudaFree: memory was written past its end");
  return set_last_error(cudaErrorLaunchFailure);
}

// Whether `size` bytes at `pointer` may be what a copy calls them.
bool usable(const void* pointer, std::size_t size, bool called_host) {
  if (size == 0) return true;
  if (pointer == nullptr) return false;
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto next = all.allocations.upper_bound(address);
  if (next == all.allocations.begin()) return true;
  --next;
  if (address >= next->first + next->second.size) return true;  // of somebody else
  if (called_host && next->second.device) return false;
  return size <= next->first + next->second.size - address;
}

bool usable(const void* to, std::size_t to_size, const void* from, std::size_t from_size,
            cudaMemcpyKind kind) {
  const bool to_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyDeviceToHost;
  const bool from_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyHostToDevice;
  return usable(to, to_size, to_host) && usable(from, from_size, from_host);
}

}  // namespace

void fill_with_poison(void* target, std::size_t size, std::uint64_t seed) {
  const Settings used = settings();
  if (used.order != Order::random) {
    if (size != 0) std::memset(target, used.order == Order::forward ? 0xCD : 0x3B, size);
    return;
  }
  auto* bytes = static_cast<unsigned char*>(target);
  std::uint64_t state = used.seed * 0x9E3779B97F4A7C15ull + seed * 0xBF58476D1CE4E5B9ull;
  state |= 1;
  for (std::size_t i = 0; i < size; i += 8) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    const std::uint64_t word = state * 0x2545F4914F6CDD1Dull;
    std::memcpy(bytes + i, &word, std::min<std::size_t>(8, size - i));
  }
}

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

void set_last_report(const std::string& report) {
  last_report = report;
  if (settings().print_reports) {
    std::fprintf(stderr, "vqcodec CUDA host: %s\n", report.c_str());
  }
}

std::size_t shared_opt_in(const void* kernel) {
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.opt_in.find(kernel);
  return std::max(kDefaultShared, found == all.opt_in.end() ? 0 : found->second);
}

std::string check_allocations() {
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const auto& [begin, allocation] : all.allocations) {
    if (!tail_is_whole(begin, allocation)) {
      std::memset(reinterpret_cast<unsigned char*>(begin) + allocation.size, kCanary, kTail);
      return "device memory of " + std::to_string(allocation.size) +
             " bytes was written past its end";
    }
  }
  return "";
}

}  // namespace vqcodec::cuda_simulator

using namespace vqcodec::cuda_simulator;

const char* cuda_simulator_last_report() { return last_report.c_str(); }

std::size_t cuda_simulator_live_allocations() {
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.allocations.size();
}

// ---------------------------------------------------------------- the device

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : set_last_error(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return set_last_error(cudaErrorInvalidDevice);
  const Settings used = settings();
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "vqcodec CUDA host");
  properties->major = used.compute_major;
  properties->minor = used.compute_minor;
  properties->multiProcessorCount = used.multiprocessors;
  properties->sharedMemPerBlock = kDefaultShared;
  properties->sharedMemPerBlockOptin = static_cast<std::size_t>(used.shared_limit);
  properties->sharedMemPerMultiprocessor = static_cast<std::size_t>(used.shared_limit) + 1024;
  properties->maxThreadsPerBlock = 1024;
  properties->warpSize = 32;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(properties.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize: *value = properties.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(properties.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(properties.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = std::getenv("VQCODEC_CUDA_SIMULATOR_NO_POOLS") == nullptr;
      break;
    default: return set_last_error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = reinterpret_cast<cudaStream_t>(std::uintptr_t{16});
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (kernel == nullptr || value < 0 || value > settings().shared_limit) {
    return set_last_error(cudaErrorInvalidValue);
  }
  Memory& all = memory();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.opt_in[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

// As many as can be resident at once (Settings), within what the shared memory allows.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int block_size, std::size_t shared) {
  if (kernel == nullptr || block_size < 1 || block_size > 1024) {
    return set_last_error(cudaErrorInvalidValue);
  }
  const Settings used = settings();
  const std::size_t limit = static_cast<std::size_t>(used.shared_limit);
  if (shared > std::min(limit, shared_opt_in(kernel))) {
    *blocks = 0;
    return cudaSuccess;
  }
  const int resident = used.resident_blocks > 0 ? used.resident_blocks : used.multiprocessors;
  const int by_shared = static_cast<int>((limit + 1024) / (shared + 1024));
  *blocks = std::max(1, std::min({resident / std::max(1, used.multiprocessors), by_shared,
                                  2048 / ((block_size + 31) / 32 * 32)}));
  return cudaSuccess;
}

// ---------------------------------------------------------------- errors

cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    case cudaErrorLaunchFailure:
      return last_report.empty() ? "unspecified launch failure" : last_report.c_str();
  }
  return "unrecognized error code";
}

// ---------------------------------------------------------------- memory

cudaError_t cudaMalloc(void** pointer, std::size_t size) { return allocate(pointer, size, true); }
cudaError_t cudaMallocAsync(void** pointer, std::size_t size, cudaStream_t) {
  return allocate(pointer, size, true);
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  static int the_pool = 0;
  *pool = reinterpret_cast<cudaMemPool_t>(&the_pool);
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMallocFromPoolAsync(void** pointer, std::size_t size, cudaMemPool_t pool,
                                    cudaStream_t) {
  return pool == nullptr ? cudaErrorInvalidValue : allocate(pointer, size, true);
}
cudaError_t cudaFree(void* pointer) { return release(pointer, true); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return release(pointer, true); }
cudaError_t cudaHostAlloc(void** pointer, std::size_t size, unsigned) {
  return allocate(pointer, size, false);
}
cudaError_t cudaMallocHost(void** pointer, std::size_t size) {
  return allocate(pointer, size, false);
}
cudaError_t cudaFreeHost(void* pointer) { return release(pointer, false); }

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind) {
  if (!usable(to, size, from, size, kind)) return set_last_error(cudaErrorInvalidValue);
  if (size != 0) std::memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, size, kind);
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > to_pitch || width > from_pitch ||
      !usable(to, to_pitch * (height - 1) + width, from, from_pitch * (height - 1) + width, kind)) {
    return set_last_error(cudaErrorInvalidValue);
  }
  for (std::size_t row = 0; row < height; ++row) {
    std::memmove(static_cast<unsigned char*>(to) + row * to_pitch,
                 static_cast<const unsigned char*>(from) + row * from_pitch, width);
  }
  return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, std::size_t size) {
  if (!usable(to, size, false)) return set_last_error(cudaErrorInvalidValue);
  if (size != 0) std::memset(to, value, size);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t size, cudaStream_t) {
  return cudaMemset(to, value, size);
}
