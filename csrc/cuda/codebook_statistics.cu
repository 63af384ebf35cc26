// Sums must be made in the order of the rows. A stable counting sort of the rows by their codes
// gives every code its rows in order; then one thread per code and dimension adds them up.
//
//     rows        | chunk 0 | chunk 1 | ...        a warp scatters a chunk, 32 rows at a time
//     counts      [code][chunk]                    scanned along the chunks, then along the codes
//     order       rows of code 0 | of code 1 | ... each in order
//
// Cost: z is read once, by rows of D adjacent floats: the threads of a warp hold adjacent
// dimensions. (A z whose columns are adjacent costs 32-byte sectors for 4 bytes.) The order of the
// sums is part of the definition, so that a code with n rows takes n dependent float64 additions,
// at some 10 ns each: evenly used codes are limited by memory, but if all of 2^20 rows have one
// code, that takes 10 ms.
#include "cuda/codebook_statistics.h"

#include <algorithm>
#include <string>

#include "cuda/grid.cuh"
#include "cuda/memory.h"

namespace vqcodec::cuda {
namespace {

constexpr unsigned long long kNone = ~0ull;
constexpr std::int64_t kSortRows = std::int64_t{1} << 24;  // rows sorted at a time
constexpr std::int64_t kMinChunkRows = 256;
constexpr std::int64_t kMaxCounts = std::int64_t{1} << 22;

struct SortParams {
  const std::int64_t* indices;
  std::int64_t first_row;  // of `indices` in the caller's, for messages
  int rows, chunk_rows, chunks;
  std::int64_t codes;
  unsigned* cursors;  // codes x chunks: counts, and then places in the part of a code
  unsigned* starts;   // of each code in `order`; codes + 1
  std::int32_t* order;
  unsigned long long* bad_row;  // the first, or kNone
};

__global__ void __launch_bounds__(kThreads) count_rows(const SortParams p) {
  const std::int64_t row = global_thread();
  if (row >= p.rows) return;
  const std::int64_t code = p.indices[row];
  if (code < 0 || code >= p.codes) {
    atomicMin(p.bad_row, static_cast<unsigned long long>(p.first_row + row));
    return;
  }
  atomicAdd(p.cursors + code * p.chunks + row / p.chunk_rows, 1u);
}

// The sum of `value` over the lanes up to this one.
__device__ inline unsigned scan_warp(unsigned value) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned delta = 1; delta < 32; delta *= 2) {
    const unsigned before = __shfl_up_sync(kAllLanes, value, delta);
    if (lane >= delta) value += before;
  }
  return value;
}

struct ChunkScanParams {
  SortParams sort;
  unsigned long long* totals;  // rows of each code so far
  float* counts;
};

// A warp per code: counts of chunks to the number of rows in earlier chunks.
__global__ void __launch_bounds__(kThreads) scan_chunks(const ChunkScanParams p) {
  const std::int64_t code = global_thread() / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (code >= p.sort.codes) return;
  unsigned* const cursors = p.sort.cursors + code * p.sort.chunks;
  unsigned sum = 0;
  for (int first = 0; first < p.sort.chunks; first += 32) {
    const int chunk = first + lane;
    const unsigned count = chunk < p.sort.chunks ? cursors[chunk] : 0;
    const unsigned scanned = scan_warp(count);
    if (chunk < p.sort.chunks) cursors[chunk] = sum + scanned - count;
    sum += __shfl_sync(kAllLanes, scanned, 31);
  }
  if (lane != 0) return;
  p.sort.starts[code] = sum;
  const unsigned long long total = p.totals[code] + sum;
  p.totals[code] = total;
  p.counts[code] = static_cast<float>(total);
}

// One block: counts of codes to starts of codes.
__global__ void __launch_bounds__(kThreads) scan_codes(const SortParams p) {
  unsigned* const warp_sums = shared_memory<unsigned>();
  const unsigned warp = threadIdx.x / 32;
  unsigned sum = 0;
  for (std::int64_t first = 0; first < p.codes; first += kThreads) {
    const std::int64_t code = first + threadIdx.x;
    const unsigned count = code < p.codes ? p.starts[code] : 0;
    unsigned scanned = scan_warp(count);
    if (threadIdx.x % 32 == 31) warp_sums[warp] = scanned;
    __syncthreads();
    unsigned block_sum = 0;
    for (unsigned w = 0; w < kThreads / 32; ++w) {
      if (w == warp) scanned += block_sum;
      block_sum += warp_sums[w];
    }
    if (code < p.codes) p.starts[code] = sum + scanned - count;
    sum += block_sum;
    __syncthreads();
  }
  if (threadIdx.x == 0) p.starts[p.codes] = sum;
}

// A warp per chunk. Its cursors are its own.
__global__ void __launch_bounds__(kThreads) scatter_rows(const SortParams p) {
  const std::int64_t chunk = global_thread() / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (chunk >= p.chunks) return;
  const std::int64_t begin = chunk * p.chunk_rows;
  const std::int64_t end = begin + p.chunk_rows < p.rows ? begin + p.chunk_rows : p.rows;
  for (std::int64_t first = begin; first < end; first += 32) {
    const std::int64_t row = first + lane;
    std::int64_t code = row < end ? p.indices[row] : -1;
    if (code >= p.codes || code < 0) code = -1;
    const int short_code = static_cast<int>(code);
    int rank = 0, same = 0;  // among the lanes with the same code
    for (int other = 0; other < 32; ++other) {
      const bool equal = __shfl_sync(kAllLanes, short_code, other) == short_code;
      same += equal;
      rank += equal && other < lane;
    }
    if (code >= 0) {
      unsigned* const cursor = p.cursors + code * p.chunks + chunk;
      const unsigned place = *cursor;
      p.order[p.starts[code] + place + rank] = static_cast<std::int32_t>(row);
    }
    __syncwarp(kAllLanes);
    if (code >= 0 && rank == 0) p.cursors[code * p.chunks + chunk] += same;
    __syncwarp(kAllLanes);
  }
}

struct SumParams {
  StridedMatrix z;
  std::int64_t codes;
  const unsigned* starts;
  const std::int32_t* order;
  double* carried;  // sums of earlier rows; null if all rows are here
  float* sums;
};

__global__ void __launch_bounds__(kThreads) sum_rows(const SumParams p) {
  const std::int64_t i = global_thread();
  if (i >= p.codes * p.z.columns) return;
  const std::int64_t code = i / p.z.columns, d = i % p.z.columns;
  const float* const column = p.z.data + d * p.z.column_stride;
  double sum = p.carried != nullptr ? p.carried[i] : 0.0;
  unsigned at = p.starts[code];
  const unsigned end = p.starts[code + 1];
  for (; at + 8 <= end; at += 8) {  // loads first: they do not wait for one another
    float value[8];
#pragma unroll
    for (unsigned n = 0; n < 8; ++n) value[n] = __ldg(column + p.order[at + n] * p.z.row_stride);
#pragma unroll
    for (unsigned n = 0; n < 8; ++n) sum += value[n];
  }
  for (; at < end; ++at) sum += __ldg(column + p.order[at] * p.z.row_stride);
  if (p.carried != nullptr) p.carried[i] = sum;
  p.sums[i] = static_cast<float>(sum);
}

}  // namespace

Status codebook_statistics(const StridedMatrix& z, const std::int64_t* indices, std::int64_t codes,
                           cudaStream_t stream, float* counts, float* sums) {
  if (codes < 1) return {};
  const auto start = [stream](auto kernel, std::int64_t threads, const auto& params) {
    return check(launch(kernel, dim3(blocks_for(threads)), dim3(kThreads),
                        kThreads / 32 * sizeof(unsigned), stream, params),
                 "starting a kernel");
  };
  const std::int64_t slab_rows = std::min(z.rows, kSortRows);
  const std::int64_t max_chunks = std::max<std::int64_t>(1, kMaxCounts / codes);
  const std::int64_t chunk_rows = std::max(kMinChunkRows, divide_up(slab_rows, max_chunks));
  const std::int64_t chunks = std::max<std::int64_t>(1, divide_up(slab_rows, chunk_rows));

  DeviceArray<unsigned long long> totals, bad_row;
  DeviceArray<unsigned> cursors, starts;
  DeviceArray<std::int32_t> order;
  DeviceArray<double> carried;
  if (Status s = totals.allocate_zeros(codes, stream); !s.ok()) return s;
  if (Status s = bad_row.upload(&kNone, 1, stream); !s.ok()) return s;
  if (Status s = starts.allocate(codes + 1, stream); !s.ok()) return s;
  if (Status s = order.allocate(slab_rows, stream); !s.ok()) return s;
  if (z.rows > slab_rows) {
    if (Status s = carried.allocate_zeros(codes * z.columns, stream); !s.ok()) return s;
  }

  std::int64_t first = 0;
  do {  // also without rows
    const std::int64_t rows = std::min(slab_rows, z.rows - first);
    if (Status s = cursors.allocate_zeros(codes * chunks, stream); !s.ok()) return s;
    const SortParams sort = {indices + first,
                             first,
                             static_cast<int>(rows),
                             static_cast<int>(chunk_rows),
                             static_cast<int>(chunks),
                             codes,
                             cursors.data(),
                             starts.data(),
                             order.data(),
                             bad_row.data()};
    if (rows > 0) {
      if (Status s = start(count_rows, rows, sort); !s.ok()) return s;
    }
    const ChunkScanParams chunk_scan = {sort, totals.data(), counts};
    if (Status s = start(scan_chunks, codes * 32, chunk_scan); !s.ok()) return s;
    if (Status s = start(scan_codes, kThreads, sort); !s.ok()) return s;
    if (rows > 0) {
      if (Status s = start(scatter_rows, chunks * 32, sort); !s.ok()) return s;
    }
    if (z.columns > 0) {
      StridedMatrix part = z;
      part.data += first * z.row_stride;
      const SumParams sum = {part, codes, starts.data(), order.data(), carried.data(), sums};
      if (Status s = start(sum_rows, codes * z.columns, sum); !s.ok()) return s;
    }
    first += rows;
  } while (first < z.rows);

  unsigned long long bad = kNone;
  if (Status s = fetch(bad_row.data(), stream, &bad); !s.ok()) return s;
  if (bad == kNone) return {};
  std::int64_t index = 0;
  if (Status s = fetch(indices + bad, stream, &index); !s.ok()) return s;
  return Status::invalid_argument("indices must be in 0.." + std::to_string(codes - 1) + ", got " +
                                  std::to_string(index) + " in row " + std::to_string(bad));
}

}  // namespace vqcodec::cuda
