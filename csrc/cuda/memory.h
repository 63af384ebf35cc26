// Device memory that frees itself, and CUDA's errors as a Status.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"

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
    error = cudaDeviceGetAttribute(&shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                   device);
    return check(error, what);
  }
};

// An array on the current device, allocated and freed in the order of `stream`.
// Only trivially copyable types.
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
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }

  // Replaces what there is by `size` elements of undefined content. An empty array has no address.
  Status allocate(std::size_t size, cudaStream_t stream) {
    *this = DeviceArray();
    stream_ = stream;
    if (size != 0) {
      void* data = nullptr;
      const cudaError_t error = cudaMallocAsync(&data, size * sizeof(T), stream);
      if (error != cudaSuccess) return check(error, "allocating device memory");
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

  // Allocates, and copies `size` elements from host memory. Pageable memory at `from` may be
  // changed after the return (CUDA has staged it); pinned memory only once the stream is there.
  Status upload(const T* from, std::size_t size, cudaStream_t stream) {
    if (Status status = allocate(size, stream); !status.ok()) return status;
    return copy(from);
  }

  // Copies size() elements from host memory, likewise.
  Status copy(const T* from) {
    if (size_ == 0) return {};
    return check(cudaMemcpyAsync(data_, from, size_ * sizeof(T), cudaMemcpyHostToDevice, stream_),
                 "copying to the device");
  }
  template <class Container>
  Status upload(const Container& from, cudaStream_t stream) {
    return upload(from.data(), from.size(), stream);
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
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
  cudaStream_t stream_ = nullptr;
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

// Waits for all work of a stream. Errors of its kernels come to light here.
inline Status wait(cudaStream_t stream) {
  return check(cudaStreamSynchronize(stream), "running a kernel");
}

}  // namespace vqcodec::cuda
