// Memory with watched borders: dynamic shared memory of a block.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "address_sanitizer.h"
#include "runtime.h"

namespace vqcodec::cuda_simulator {

// Reserves pages of which none can be accessed.
inline unsigned char* reserve(std::size_t size) {
  void* memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<unsigned char*>(memory);
}

inline void allow(unsigned char* memory, std::size_t size) {
  if (size != 0 && mprotect(memory, size, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
}

inline std::size_t round_up(std::size_t size, std::size_t unit) {
  return (size + unit - 1) / unit * unit;
}

inline constexpr std::size_t kGuard = 64 * 1024;
inline constexpr unsigned char kCanary = 0xA5;  // bytes that must not change

// Dynamic shared memory of one resident block.
//
//     plain:  guard | canary .. | size bytes | .. canary | guard     nothing on the guarded side
//                                                                    but what alignment takes
//     ASan:   poisoned          | size bytes | poisoned
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() { release(); }

  // Fills it with poison. `behind`: the guard lies directly behind it, else before it.
  unsigned char* reset(std::size_t size, bool behind, std::uint64_t seed) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inner = round_up(size, page);
    if (memory_ == nullptr || inner != inner_) {
      release();
      inner_ = inner;
      memory_ = reserve(inner_ + 2 * kGuard);
      if (kAsan) {
        allow(memory_, inner_ + 2 * kGuard);
      } else {
        allow(memory_ + kGuard, inner_);
      }
    }
    begin_ = memory_ + kGuard + (behind ? (inner_ - size) & ~std::size_t{15} : 0);
    size_ = size;
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
    __asan_poison_memory_region(memory_, inner_ + 2 * kGuard);
    __asan_unpoison_memory_region(begin_, size_);
#else
    std::memset(memory_ + kGuard, kCanary, begin_ - (memory_ + kGuard));
    std::memset(begin_ + size_, kCanary, memory_ + kGuard + inner_ - (begin_ + size_));
#endif
    fill_with_poison(begin_, size_, seed);
    return begin_;
  }

  // What was written outside, or "".
  std::string check() const {
    if (kAsan) return "";
    for (const unsigned char* p = begin_; p-- > memory_ + kGuard;) {
      if (*p != kCanary) return report(p, "write");
    }
    for (const unsigned char* p = begin_ + size_; p < memory_ + kGuard + inner_; ++p) {
      if (*p != kCanary) return report(p, "write");
    }
    return "";
  }

  bool guards(const void* address) const {
    const auto* p = static_cast<const unsigned char*>(address);
    return memory_ != nullptr && p >= memory_ && p < memory_ + inner_ + 2 * kGuard;
  }

  std::string report(const void* address, const char* access) const {
    return std::string(access) + " outside dynamic shared memory: byte " +
           std::to_string(static_cast<const unsigned char*>(address) - begin_) + " of " +
           std::to_string(size_);
  }

 private:
  void release() {
    if (memory_ == nullptr) return;
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
    __asan_unpoison_memory_region(memory_, inner_ + 2 * kGuard);
#endif
    munmap(memory_, inner_ + 2 * kGuard);
    memory_ = nullptr;
  }

  unsigned char* memory_ = nullptr;
  std::size_t inner_ = 0;
  unsigned char* begin_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vqcodec::cuda_simulator
