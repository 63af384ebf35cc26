// Kernels that are wrong, each in one way that the simulator claims to catch.
// Never run them on a GPU.
#pragma once

#include "cuda/device.cuh"

namespace vqcodec::cuda_simulator_tests {

struct BrokenParams {
  int* out;
  int n;
};

// ---------------------------------------------------------------- barriers

__global__ void barrier_in_branch_kernel(BrokenParams p) {
  if (threadIdx.x < 7) __syncthreads();
  p.out[threadIdx.x] = 1;
}

__global__ void barriers_in_two_branches_kernel(BrokenParams p) {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  p.out[threadIdx.x] = 1;
}

__global__ void barriers_of_two_kinds_kernel(BrokenParams p) {
  p.out[threadIdx.x] = threadIdx.x % 2 == 0 ? __syncthreads_or(1) : __syncthreads_and(1);
}

__global__ void early_exit_kernel(BrokenParams p) {
  if (static_cast<int>(threadIdx.x) >= p.n) return;
  __syncthreads();
  p.out[threadIdx.x] = 1;
}

__global__ void barrier_against_warp_operation_kernel(BrokenParams p) {
  if (threadIdx.x == 3) __syncthreads();
  __syncwarp();
  if (threadIdx.x != 3) __syncthreads();
  p.out[threadIdx.x] = 1;
}

// ---------------------------------------------------------------- warp operations

__global__ void missing_lane_kernel(BrokenParams p) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x != 5) value = __shfl_xor_sync(0xffffffffu, value, 1);
  p.out[threadIdx.x] = value;
}

__global__ void two_operations_kernel(BrokenParams p) {
  const int value = static_cast<int>(threadIdx.x);
  p.out[threadIdx.x] = threadIdx.x < 16 ? __shfl_xor_sync(0xffffffffu, value, 1)
                                        : static_cast<int>(__ballot_sync(0xffffffffu, value));
}

__global__ void two_masks_kernel(BrokenParams p) {
  const unsigned mask = threadIdx.x % 2 == 0 ? 0xffffffffu : 0xfffffffeu;
  p.out[threadIdx.x] = __any_sync(mask, 1);
}

__global__ void lane_outside_mask_kernel(BrokenParams p) {
  p.out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0);
}

__global__ void read_outside_mask_kernel(BrokenParams p) {
  if (threadIdx.x < 16) p.out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
}

__global__ void lane_that_exited_kernel(BrokenParams p) {
  if (threadIdx.x >= 16) return;
  p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

// mma_s8 of a warp with a branch in it.
__global__ void product_in_branch_kernel(BrokenParams p) {
  std::int32_t c[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x != 9) vqcodec::cuda::mma_s8(c, a, b);
  p.out[threadIdx.x] = c[0];
}

// ---------------------------------------------------------------- memory

// Accesses shared memory at element n. write: whether it writes.
struct OutsideParams {
  int n;
  bool write;
  int* out;
};

__global__ void shared_outside_kernel(OutsideParams p) {
  volatile int* shared = vqcodec::cuda::shared_memory<int>();
  if (threadIdx.x != 3) return;
  if (p.write) {
    shared[p.n] = 1;
  } else {
    *p.out = shared[p.n];
  }
}

// The same in global memory.
__global__ void global_outside_kernel(OutsideParams p) {
  volatile int* out = p.out;
  if (p.write) {
    out[p.n] = 1;
  } else {
    out[0] = out[p.n];
  }
}

__global__ void null_pointer_kernel(BrokenParams) {
  volatile int* nowhere = vqcodec::cuda::shared_memory<int>();
  nowhere -= reinterpret_cast<std::uintptr_t>(nowhere) / sizeof(int);
  nowhere[threadIdx.x + 1] = 1;
}

__device__ inline int recursion(volatile int* out, int n) {
  volatile int frame[64];
  frame[n % 64] = *out;
  return n == 0 ? 0 : recursion(out, n - 1) + frame[n % 64];
}

__global__ void deep_recursion_kernel(BrokenParams p) { p.out[0] = recursion(p.out, p.n); }

// Leaves the last element alone.
__global__ void unwritten_output_kernel(BrokenParams p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < p.n - 1) p.out[i] = 1;
}

// ---------------------------------------------------------------- races
// Each makes out[t] = t + n, if it has the barrier that the comment names.

// Fails where a thread comes before its left neighbour.
__global__ void read_left_neighbour_kernel(BrokenParams p) {
  int* shared = vqcodec::cuda::shared_memory<int>();
  const unsigned t = threadIdx.x;
  shared[t] = static_cast<int>(t) + p.n;
  // missing: __syncthreads();
  p.out[t] = t == 0 ? p.n : shared[t - 1] + 1;
}

// Fails where a thread comes before its right neighbour.
__global__ void read_right_neighbour_kernel(BrokenParams p) {
  int* shared = vqcodec::cuda::shared_memory<int>();
  const unsigned t = threadIdx.x;
  shared[t] = static_cast<int>(t) + p.n;
  // missing: __syncthreads();
  p.out[t] = t == blockDim.x - 1 ? static_cast<int>(t) + p.n : shared[t + 1] - 1;
}

// All rounds read what the neighbour wrote in the same round.
__global__ void overwrite_too_early_kernel(BrokenParams p) {
  int* shared = vqcodec::cuda::shared_memory<int>();
  const unsigned t = threadIdx.x;
  int errors = 0;
  for (int round = 0; round < 4; ++round) {
    shared[t] = round;
    __syncthreads();
    errors += shared[(t + 1) % blockDim.x] != round;
    // missing: __syncthreads();
  }
  p.out[t] = static_cast<int>(t) + p.n + errors;
}

// One warp: writes, then reads of other lanes.
__global__ void missing_syncwarp_kernel(BrokenParams p) {
  int* shared = vqcodec::cuda::shared_memory<int>();
  const unsigned t = threadIdx.x, lane = t % 32;
  shared[t] = static_cast<int>(t) + p.n;
  // missing: __syncwarp();
  const int across = shared[t - lane + (31 - lane)];
  __syncwarp();
  p.out[t] = across - static_cast<int>(31 - lane) + static_cast<int>(lane);
}

// Warp 0 waits for the others' values with a __syncwarp only.
__global__ void syncwarp_for_syncthreads_kernel(BrokenParams p) {
  int* shared = vqcodec::cuda::shared_memory<int>();
  const unsigned t = threadIdx.x, n = blockDim.x;
  shared[t] = static_cast<int>(t) + p.n;
  __syncwarp();  // should be __syncthreads()
  p.out[t] = shared[(t + 32) % n] - static_cast<int>((t + 32) % n) + static_cast<int>(t);
}

// Blocks that count in global memory without atomics, with a place between for others to come.
__global__ void lost_update_kernel(BrokenParams p) {
  const int before = p.out[0];
  vqcodec::cuda::load_acquire(p.out + 1);
  p.out[0] = before + 1;
}

// ---------------------------------------------------------------- deadlocks

// Two blocks, each of which waits for the other's flag first.
__global__ void wait_for_each_other_kernel(BrokenParams p) {
  while (vqcodec::cuda::load_acquire(p.out + 1 - blockIdx.x) == p.n) vqcodec::cuda::relax();
  vqcodec::cuda::store_release(p.out + blockIdx.x, 1);
}

// The same, with all threads of the block in the loop.
__global__ void wait_with_barriers_kernel(BrokenParams p) {
  for (;;) {
    int waits = 0;
    if (threadIdx.x == 0) {
      waits = vqcodec::cuda::load_acquire(p.out + 1 - blockIdx.x) == p.n;
      if (waits) vqcodec::cuda::relax();
    }
    if (!__syncthreads_or(waits)) break;
  }
  if (threadIdx.x == 0) vqcodec::cuda::store_release(p.out + blockIdx.x, 1);
}

// Block 0 waits for the last block: works only when all are resident.
__global__ void needs_all_resident_kernel(BrokenParams p) {
  if (blockIdx.x == gridDim.x - 1) {
    vqcodec::cuda::store_release(p.out, 1);
  } else {
    while (vqcodec::cuda::load_acquire(p.out) == 0) vqcodec::cuda::relax();
  }
}

}  // namespace vqcodec::cuda_simulator_tests
