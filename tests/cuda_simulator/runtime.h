// What the simulator and the host's side of the CUDA API (runtime.cpp) know of each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda_runtime.h"

namespace vqcodec::cuda_simulator {

// Bytes that nobody wrote: 0xCD in order forward, 0x3B in reverse, random ones of `seed` in random.
void fill_with_poison(void* memory, std::size_t size, std::uint64_t seed);

// Remembers `error` for cudaGetLastError, and returns it.
cudaError_t set_last_error(cudaError_t error);
// What cuda_simulator_last_report gives from now on, in this host thread.
void set_last_report(const std::string& report);

// What cudaFuncSetAttribute allowed `kernel`, in bytes of shared memory.
std::size_t shared_opt_in(const void* kernel);

// A report of an allocation that was written past its end, or "".
std::string check_allocations();

}  // namespace vqcodec::cuda_simulator
