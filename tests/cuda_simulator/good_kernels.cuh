// Kernels that are right: the simulator must run them, in every order, to the right results.
// nvcc compiles them too.
#pragma once

#include "cuda/device.cuh"

namespace vqcodec::cuda_simulator_tests {

using vqcodec::cuda::shared_memory;

constexpr unsigned kAll = 0xffffffffu;

// ---------------------------------------------------------------- sums by shuffles

struct SumParams {
  const int* values;
  int count;
  unsigned long long* sum;
};

__global__ void sum_kernel(SumParams p) {
  int* partial = shared_memory<int>();
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) {
    sum += p.values[i];
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(kAll, sum, lanes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = lane < static_cast<int>(blockDim.x) / 32 ? partial[lane] : 0;
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
    if (lane == 0) atomicAdd(p.sum, static_cast<unsigned long long>(sum));
  }
}

// ---------------------------------------------------------------- every kind of shuffle

struct ShuffleParams {
  int width;
  int* out;                  // 8 per thread
  unsigned long long* wide;  // 1 per thread
};

__global__ void shuffle_kernel(ShuffleParams p) {
  const int lane = threadIdx.x;
  int* out = p.out + 8 * lane;
  out[0] = __shfl_sync(kAll, 100 + lane, lane * 7 + 3, p.width);
  out[1] = __shfl_up_sync(kAll, 100 + lane, 3, p.width);
  out[2] = __shfl_down_sync(kAll, 100 + lane, 5, p.width);
  out[3] = __shfl_xor_sync(kAll, 100 + lane, 1, p.width);
  out[4] = static_cast<int>(__shfl_sync(kAll, 0.5f * static_cast<float>(lane), 9) * 2.0f);
  // The two halves of the warp, each for itself: another mask, and another place.
  if (lane < 16) {
    out[5] = __shfl_xor_sync(0x0000ffffu, lane, 8);
    __syncwarp(0x0000ffffu);
  } else {
    out[5] = __shfl_up_sync(0xffff0000u, lane, 1, 16);
  }
  __syncwarp();
  out[6] = __any_sync(kAll, lane == 31) + 2 * __any_sync(kAll, 0) + 4 * __all_sync(kAll, 1) +
           8 * __all_sync(kAll, lane != 3);
  out[7] = static_cast<int>(__ballot_sync(kAll, lane % 3 == 0));
  p.wide[lane] = __shfl_sync(kAll, (1ull << 40) * static_cast<unsigned>(lane), 31 - lane);
}

// ---------------------------------------------------------------- positions by ballots

struct ScanParams {
  const int* keep;
  int* position;  // how many are kept before this one
  int* total;
};

constexpr int kScanBarrierLine = __LINE__ + 7;  // of its first __syncthreads

__global__ void scan_kernel(ScanParams p) {
  unsigned* counts = shared_memory<unsigned>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned kept = __ballot_sync(kAll, p.keep[threadIdx.x]);
  if (lane == 0) counts[warp] = __popc(kept);
  __syncthreads();
  int before = __popc(kept & ((1u << lane) - 1));
  for (int w = 0; w < warp; ++w) before += counts[w];
  p.position[threadIdx.x] = before;
  const int total = __syncthreads_count(p.keep[threadIdx.x]);
  if (threadIdx.x == 0) *p.total = total;
}

// ---------------------------------------------------------------- barriers that vote

struct VoteParams {
  int chosen;  // the thread whose predicate differs
  int* out;    // 3 per thread
};

__global__ void vote_kernel(VoteParams p) {
  const bool differs = static_cast<int>(threadIdx.x) == p.chosen;
  int* out = p.out + 3 * threadIdx.x;
  out[0] = __syncthreads_or(differs);
  out[1] = __syncthreads_and(!differs);
  out[2] = __syncthreads_count(differs);
}

// ---------------------------------------------------------------- matrix products

// Each warp: one product of 16 x 32 by 32 x 8, all in row-major order.
struct ProductS8Params {
  const signed char *a, *b;
  int* c;  // begins with what is added to
};

__global__ void product_s8_kernel(ProductS8Params p) {
  const int product = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const signed char* a = p.a + product * 16 * 32;
  const signed char* b = p.b + product * 32 * 8;
  int* c = p.c + product * 16 * 8;
  std::uint32_t af[4] = {}, bf[2] = {};
  for (int i = 0; i < 4; ++i) {
    for (int part = 0; part < 4; ++part) {
      const int row = g + 8 * (part % 2), k = 16 * (part / 2) + 4 * q + i;
      af[part] |= static_cast<std::uint32_t>(static_cast<unsigned char>(a[row * 32 + k])) << 8 * i;
    }
    for (int part = 0; part < 2; ++part) {
      const int k = 16 * part + 4 * q + i;
      bf[part] |= static_cast<std::uint32_t>(static_cast<unsigned char>(b[k * 8 + g])) << 8 * i;
    }
  }
  std::int32_t cf[4];
  for (int i = 0; i < 4; ++i) cf[i] = c[(g + 8 * (i / 2)) * 8 + 2 * q + i % 2];
  vqcodec::cuda::mma_s8(cf, af, bf);
  for (int i = 0; i < 4; ++i) c[(g + 8 * (i / 2)) * 8 + 2 * q + i % 2] = cf[i];
}

// The same of 16 x 8 by 8 x 8 in TF32.
struct ProductTF32Params {
  const float *a, *b;
  float* c;
};

__global__ void product_tf32_kernel(ProductTF32Params p) {
  const int product = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const float* a = p.a + product * 16 * 8;
  const float* b = p.b + product * 8 * 8;
  float* c = p.c + product * 16 * 8;
  std::uint32_t af[4], bf[2];
  for (int part = 0; part < 4; ++part) {
    af[part] = __float_as_uint(a[(g + 8 * (part % 2)) * 8 + q + 4 * (part / 2)]);
  }
  for (int part = 0; part < 2; ++part) bf[part] = __float_as_uint(b[(q + 4 * part) * 8 + g]);
  float cf[4];
  for (int i = 0; i < 4; ++i) cf[i] = c[(g + 8 * (i / 2)) * 8 + 2 * q + i % 2];
  vqcodec::cuda::mma_tf32(cf, af, bf);
  for (int i = 0; i < 4; ++i) c[(g + 8 * (i / 2)) * 8 + 2 * q + i % 2] = cf[i];
}

// ---------------------------------------------------------------- arithmetic

struct Dp4aParams {
  const int *a, *b;
  int* out;
};

__global__ void dp4a_kernel(Dp4aParams p) {
  const int i = threadIdx.x;
  p.out[i] = __dp4a(p.a[i], p.b[i], 0x7fffff00);
}

struct BitsParams {
  int* out;
};

__global__ void bits_kernel(BitsParams p) {
  int* out = p.out;
  out[0] = __popc(0xf0f0u);
  out[1] = __ffs(0);
  out[2] = __ffs(0x40);
  out[3] = __clz(0);
  out[4] = __clz(1);
  out[5] = static_cast<int>(__umulhi(0xffffffffu, 0xffffffffu));
  out[6] = static_cast<int>(__umul64hi(~0ull, ~0ull) & 0xffff);
  out[7] = __fmaf_rn(1.0f + 0x1p-12f, 1.0f + 0x1p-12f, -1.0f - 0x1p-11f) == 0x1p-24f;
  const uint4 four = make_uint4(1, 2, 3, 4);
  *reinterpret_cast<uint4*>(out + 8) = four;
  out[12] = static_cast<int>(__float_as_uint(-0.0f) >> 31) + __float_as_int(1.0f);
  out[13] = min(-3, 2) + max(7, 5) + static_cast<int>(__uint_as_float(0x40400000u));
  out[14] = __ldcg(out + 13) + __ldg(out);
  __stcg(out + 15, 77);
}

// ---------------------------------------------------------------- atomics over blocks

struct AtomicsParams {
  int *sum, *highest, *lowest, *tickets;  // tickets: one for each block
  unsigned *bits, *lock, *locked_sum;
};

__global__ void atomics_kernel(AtomicsParams p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(p.sum, i);
  atomicMax(p.highest, i);
  atomicMin(p.lowest, -i);
  atomicOr(p.bits, 1u << i % 32);
  if (threadIdx.x == 0) {
    p.tickets[atomicAdd(p.tickets + gridDim.x, 1)] = static_cast<int>(blockIdx.x);
    while (atomicCAS(p.lock, 0u, 1u) != 0u) vqcodec::cuda::relax();
    __threadfence();
    const unsigned before = *p.locked_sum;
    atomicAdd(p.sum, 0);  // others may come in between, but for the lock
    *p.locked_sum = before + blockIdx.x;
    __threadfence();
    atomicExch(p.lock, 0u);
  }
}

// ---------------------------------------------------------------- blocks that wait for blocks

// Block of ticket t makes values[t] of values[t - 1]. A block waits only for earlier tickets, so
// that any number of resident blocks will do.
struct ChainParams {
  int* ticket;
  std::int32_t* done;  // flags
  unsigned* values;    // blockDim.x for each block
};

__global__ void chain_kernel(ChainParams p) {
  int* mine = shared_memory<int>();
  if (threadIdx.x == 0) {
    const int ticket = atomicAdd(p.ticket, 1);
    if (ticket > 0) {
      while (vqcodec::cuda::load_acquire(p.done + ticket - 1) == 0) vqcodec::cuda::relax();
    }
    *mine = ticket;
  }
  __syncthreads();
  const int ticket = *mine;
  const unsigned n = blockDim.x;
  const unsigned* earlier = p.values + static_cast<unsigned>(ticket - 1) * n;
  const unsigned before = ticket == 0 ? threadIdx.x : __ldcg(earlier + (threadIdx.x + 1) % n);
  p.values[static_cast<unsigned>(ticket) * n + threadIdx.x] = before * 3 + 1;
  __syncthreads();
  if (threadIdx.x == 0) vqcodec::cuda::store_release(p.done + ticket, 1);
}

// ---------------------------------------------------------------- shared memory

// Writes all of `size` bytes and reads them from other threads.
struct SharedParams {
  int size;
  int* errors;
};

__global__ void shared_kernel(SharedParams p) {
  unsigned char* bytes = shared_memory<unsigned char>();
  const int n = static_cast<int>(blockDim.x);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < p.size; i += n) bytes[i] = static_cast<unsigned char>(i * 37 + i / 256);
  __syncthreads();
  int errors = 0;
  for (int i = n - 1 - t; i < p.size; i += n) {
    errors += bytes[i] != static_cast<unsigned char>(i * 37 + i / 256);
  }
  atomicAdd(p.errors, errors);
}

// ---------------------------------------------------------------- indices

struct IndexParams {
  int* out;  // visits of each thread of the grid
};

__global__ void index_kernel(IndexParams p) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(p.out + block * blockDim.x * blockDim.y * blockDim.z + thread, 1);
}

}  // namespace vqcodec::cuda_simulator_tests
