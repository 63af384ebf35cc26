// A large object that begins as zeros and takes memory only where it is used.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace vqcodec {

template <class T>
class ZeroPages {
  static_assert(std::is_trivial_v<T>, "it is neither constructed nor destroyed");

 public:
  // Throws std::bad_alloc.
  ZeroPages() : memory_(std::calloc(1, sizeof(T) + alignof(T))) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  T* data() const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    return reinterpret_cast<T*>((address + alignof(T) - 1) / alignof(T) * alignof(T));
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::unique_ptr<void, Free> memory_;
};

}  // namespace vqcodec
