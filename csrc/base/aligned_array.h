// An array on a cache line boundary, where no aligned vector load crosses a line.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace vqcodec {

inline constexpr std::size_t kCacheLine = 64;  // bytes; also the widest vector register

// A fixed number of zeros, to begin with. Movable, not copyable.
template <class T>
class AlignedArray {
  static_assert(std::is_trivial_v<T>, "elements are neither constructed nor destroyed");

 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t size)
      : data_(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t{kCacheLine}))),
        size_(size) {
    std::uninitialized_fill_n(data_.get(), size, T{});
  }
  AlignedArray(AlignedArray&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::size_t i) {
    VQCODEC_ASSERT(i < size_);
    return data_[i];
  }
  const T& operator[](std::size_t i) const {
    VQCODEC_ASSERT(i < size_);
    return data_[i];
  }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{kCacheLine}); }
  };

  std::unique_ptr<T[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace vqcodec
