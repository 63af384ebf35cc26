// Runs the kernels of csrc/cuda on the host, thread by thread, and checks what they do.
//
// Every CUDA thread is a fiber; all of a launch run on the host thread that called it, one at a
// time, and switch only where one has to wait (barriers, warp operations), exits, or says that it
// waits (relax). `Settings::order` says who comes next:
//
//     forward    the next lane of the same warp, then the next warp; block after block
//     reverse    the same, backwards
//     random     any lane, with changes of warp and block at any warp operation, atomic operation,
//                load_acquire, store_release or relax
//
// A missing barrier shows as a wrong result in at least one of them (selftest.cpp has the kinds):
// in `forward` a thread runs as far ahead of those after it as the barriers let it, in `reverse` of
// those before it, and `random` changes between running far ahead and fine interleaving.
//
// What is reported (the launch returns cudaErrorLaunchFailure, the text is in
// cuda_simulator_last_report() and cudaGetErrorString()):
//   * a barrier that not all threads of the block reach, by exit, by waiting elsewhere, or in
//     another place of the source;
//   * a warp operation whose lanes differ in operation, mask or place (places may differ for
//     __syncwarp), whose mask misses the caller or names a lane that exited or does not exist;
//     a shuffle that reads a lane outside the mask;
//   * an access outside dynamic shared memory: a guard page directly behind it (order forward) or
//     before it (reverse; random takes either), and on the other side writes to the bytes up to the
//     page, noticed at the block's end. Under AddressSanitizer: both sides, exactly;
//   * a write just behind memory of cudaMalloc, when the launch ends. Under AddressSanitizer: any
//     access;
//   * a thread's stack overflow;
//   * a deadlock: blocks that only wait for one another, by relax() again and again.
// Not reported but visible as wrong results: reads of memory never written (cudaMalloc's and shared
// memory hold poison, another one for each order and seed), and data races.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vqcodec::cuda_simulator {

// ---------------------------------------------------------------- for tests

enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;   // VQCODEC_CUDA_SIMULATOR_ORDER: forward, reverse, random:SEED
  std::uint64_t seed = 0;         // of `random`
  int multiprocessors = 4;        // VQCODEC_CUDA_SIMULATOR_SMS
  int shared_limit = 227 * 1024;  // VQCODEC_CUDA_SIMULATOR_SHARED: bytes per block, with opt-in
  int resident_blocks = 0;        // VQCODEC_CUDA_SIMULATOR_RESIDENT; 0: one per multiprocessor
  int compute_major = 9, compute_minor = 0;
  std::int64_t patience = 10'000'000;  // turns of waiting loops without progress: a deadlock
  bool print_reports = true;           // on stderr, too
  std::string skip;                    // VQCODEC_CUDA_SIMULATOR_SKIP: "file.cu:123", a place whose
                                       // __syncthreads or __syncwarp does nothing: do the tests
                                       // notice that it is missing?
};

// Settings of this process: those of the environment, until configure is called. Random numbers
// begin anew with each call of configure, so that what follows repeats.
Settings settings();
void configure(const Settings& settings);
Settings settings_of_environment();

// Threads that gave way to another one so far.
std::uint64_t switches();

// ---------------------------------------------------------------- for the built-ins

// A place in the source. As a default argument, here() is the place of the call.
struct Location {
  const char* file;
  int line;
  static constexpr Location here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

enum class Barrier { plain, any, all, count };

// Waits for all threads of the block. The number of predicates that are true; for `all` instead,
// whether all are.
int barrier(Barrier kind, int predicate, Location at);

enum class Operation : std::uint8_t {
  syncwarp,
  shfl,
  shfl_up,
  shfl_down,
  shfl_xor,
  ballot,
  any,
  all,
  reduce_add,
  reduce_min,
  reduce_max,
  reduce_min_unsigned,
  reduce_max_unsigned,
  mma_s8,
  mma_tf32,
};

// Fragments of one lane (csrc/cuda/device.cuh). Their address is the value of an mma operation.
struct FragmentsS8 {
  std::int32_t* c;
  const std::uint32_t *a, *b;
};
struct FragmentsTF32 {
  float* c;
  const std::uint32_t *a, *b;
};

// Waits for the lanes in `mask`; the result of the operation for this lane.
// `argument` of a shuffle: lane, delta or lane mask << 32 | width.
std::uint64_t collective(Operation operation, unsigned mask, std::uint64_t value,
                         std::uint64_t argument, Location at);

// Where others may come first; no more than a hint.
void preemption_point();
// The thread waits for another one: gives way.
void wait_turn();
// Something happened that a waiting thread may wait for.
void note_progress();

// Start of the dynamic shared memory of the block that runs.
extern unsigned char* shared_base;

struct Launch {
  const void* kernel;  // identity
  unsigned grid[3], block[3];
  std::size_t shared;
  void (*body)(const void* call);
  const void* call;
};
// The number of a cudaError_t.
int run(const Launch& launch);

}  // namespace vqcodec::cuda_simulator

// What the last launch of this host thread that failed was stopped for; "" if none was.
const char* cuda_simulator_last_report();
// Allocations of cudaMalloc, cudaMallocAsync and cudaHostAlloc that were not freed.
std::size_t cuda_simulator_live_allocations();
