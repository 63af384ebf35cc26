// The one pool of threads of this library, and parallel_for on it.
//
// - The caller works too: with n threads the pool holds n - 1 workers, started by the
//   first call that can use them.
// - Which thread runs which index is not defined. Kernels whose result may not depend
//   on it must write disjoint outputs.
// - Idle workers spin for some tens of microseconds, so that a chain of small steps
//   pays no system calls, and sleep after that.
// - Inside a body, or while another thread of the process uses the pool,
//   parallel_for simply runs the loop in the calling thread. Nothing can deadlock.
// - After fork() the child starts workers of its own when it first needs them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/status.h"

namespace vqcodec {

// Number of cores that this process may run on (its affinity mask), at least 1.
int available_cores();

// Threads that parallel_for uses, the caller included. available_cores() unless set.
int get_num_threads();

// invalid_argument unless 1 <= n <= 1024.
Status set_num_threads(int n);

namespace detail {
void parallel_for(std::int64_t count, void (*call)(void* body, std::int64_t index), void* body);
}

// Calls body(index) once for every index in [0, count), on up to get_num_threads()
// threads, and returns when all are done. If a body throws, the indices not yet begun
// are dropped and the first exception is rethrown here.
template <class Body>
void parallel_for(std::int64_t count, Body&& body) {
  using Callable = std::remove_reference_t<Body>;
  detail::parallel_for(
      count, [](void* b, std::int64_t index) { (*static_cast<Callable*>(b))(index); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace vqcodec
