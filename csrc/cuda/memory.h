// Device memory that frees itself, and CUDA's errors as a Status.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace vqcodec::cuda {

// unsupported, with CUDA's own words: the device or its memory cannot do `what`.
inline Status check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  return Status::unsupported(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

// What the current device offers.
struct DeviceLimits {
  int processors = 0;        // multiprocessors
  int shared_per_block = 0;  // bytes of dynamic shared memory, at most

  Status query() {
    int device = 0;
    const char* const what = "asking what the device offers";
    if (Status status = check(cudaGetDevice(&device), what); !status.ok()) return status;
    cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return check(error, what);
    error =
        cudaDeviceGetAttribute(&shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return check(error, what);
  }
};

// Waits for all work of a stream. Errors of its kernels come to light here.
inline Status wait(cudaStream_t stream) {
  return check(cudaStreamSynchronize(stream), "running a kernel");
}

// Where a device's memory comes from: a pool of our own, which keeps some of it between calls, so
// that allocating costs little. Null where the device has no pools (some virtual GPUs).
inline cudaMemPool_t pool_of(int device) {
  static std::mutex mutex;
  static std::map<int, cudaMemPool_t> pools;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = pools.find(device); found != pools.end()) return found->second;
  cudaMemPool_t pool = nullptr;
  int supported = 0;
  if (cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device) == cudaSuccess &&
      supported != 0) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    std::uint64_t kept = std::uint64_t{256} << 20;
    if (cudaMemPoolCreate(&pool, &properties) != cudaSuccess) pool = nullptr;
    if (pool != nullptr) {
      cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
    }
  }
  return pools[device] = pool;
}

// An array on the device that was current when it was allocated. Allocated and freed in the order
// of `stream`. Only trivially copyable types.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    DeviceArray(std::move(other)).swap(*this);
    return *this;
  }
  ~DeviceArray() {
    if (data_ == nullptr) return;
    int current = device_;
    cudaGetDevice(&current);
    if (current != device_) cudaSetDevice(device_);
    if (pooled_) {
      cudaFreeAsync(data_, stream_);
    } else {
      cudaStreamSynchronize(stream_);
      cudaFree(data_);
    }
    if (current != device_) cudaSetDevice(current);
  }

  // Replaces what there is by `size` elements of undefined content. An empty array has no address.
  Status allocate(std::size_t size, cudaStream_t stream) {
    *this = DeviceArray();
    stream_ = stream;
    if (size != 0) {
      const char* const what = "allocating device memory";
      if (Status status = check(cudaGetDevice(&device_), what); !status.ok()) return status;
      const cudaMemPool_t pool = pool_of(device_);
      pooled_ = pool != nullptr;
      void* data = nullptr;
      const std::size_t bytes = size * sizeof(T);
      const cudaError_t error =
          pooled_ ? cudaMallocFromPoolAsync(&data, bytes, pool, stream) : cudaMalloc(&data, bytes);
      if (error != cudaSuccess) return check(error, what);
      data_ = static_cast<T*>(data);
    }
    size_ = size;
    return {};
  }

  // `size` elements of zeros.
  Status allocate_zeros(std::size_t size, cudaStream_t stream) {
    if (Status status = allocate(size, stream); !status.ok() || size == 0) return status;
    return check(cudaMemsetAsync(data_, 0, size * sizeof(T), stream), "clearing memory");
  }

  // Allocates, and copies `size` elements from host memory.
  Status upload(const T* from, std::size_t size, cudaStream_t stream) {
    if (Status status = allocate(size, stream); !status.ok()) return status;
    return copy(from);
  }
  template <class Container>
  Status upload(const Container& from, cudaStream_t stream) {
    return upload(from.data(), from.size(), stream);
  }

  // Copies size() elements from host memory, which may be freed after the return.
  Status copy(const T* from) {
    if (size_ == 0) return {};
    Status status =
        check(cudaMemcpyAsync(data_, from, size_ * sizeof(T), cudaMemcpyHostToDevice, stream_),
              "copying to the device");
    return status.ok() ? wait(stream_) : status;
  }

  // Copies everything to host memory. It is there once the stream has been waited for.
  Status download(T* to) const {
    if (size_ == 0) return {};
    return check(cudaMemcpyAsync(to, data_, size_ * sizeof(T), cudaMemcpyDeviceToHost, stream_),
                 "copying from the device");
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void swap(DeviceArray& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(stream_, other.stream_);
    std::swap(device_, other.device_);
    std::swap(pooled_, other.pooled_);
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
  cudaStream_t stream_ = nullptr;
  int device_ = 0;
  bool pooled_ = false;
};

// Several host arrays in one piece of device memory, copied at once.
//
//     DeviceImage image;
//     image.add(numbers, &params.numbers);   // a vector and where its device address shall go
//     status = image.upload(stream);
//
// Addresses are known before anything is copied, so the arrays may themselves contain such
// pointers. Vectors and pointers stay where they are until then.
class DeviceImage {
 public:
  template <class T>
  void add(const std::vector<T>& source, const T** pointer) {
    const std::size_t offset = size_;
    const std::size_t bytes = source.size() * sizeof(T);
    parts_.push_back([=, &source](unsigned char* device, unsigned char* copy) {
      if (copy == nullptr) {
        *pointer = reinterpret_cast<const T*>(device + offset);
      } else if (bytes != 0) {
        std::memcpy(copy + offset, source.data(), bytes);
      }
    });
    size_ = (offset + bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  Status upload(cudaStream_t stream) {
    if (Status status = memory_.allocate(size_, stream); !status.ok()) return status;
    std::vector<unsigned char> copy(size_);
    for (const auto& part : parts_) part(memory_.data(), nullptr);
    for (const auto& part : parts_) part(memory_.data(), copy.data());
    return memory_.copy(copy.data());
  }

 private:
  static constexpr std::size_t kAlignment = 16;
  std::vector<std::function<void(unsigned char*, unsigned char*)>> parts_;
  std::size_t size_ = 0;
  DeviceArray<unsigned char> memory_;
};

}  // namespace vqcodec::cuda
