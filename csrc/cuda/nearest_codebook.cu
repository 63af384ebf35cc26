// Two ways to the nearest code, neither of which stores scores.
//
// exact: the definition, like a matrix product whose sums are the fma chains. A block compares 64
// rows with 128 codes at a time, 8 x 8 per thread in registers, while tiles of 8 dimensions pass
// through shared memory:
//
//     packed codebook --16-byte loads--> registers --> shared memory (2 tiles of 8 x 128 floats)
//     z, any strides  --16-byte loads--> registers --> shared memory (2 tiles of 8 x 64)
//                                         4 LDS.128 and 64 FFMA per thread and dimension
//     when all dimensions are through: keep the lower score, in the order of the codes
//
// Where there are few rows, blocks share a row and meet in an atomic minimum over
// (score, code): the lowest code wins ties in any order.
//
// tensor: products in TF32, eight times as fast where the hardware is good at it (A100, H100), but
// too coarse to decide near-ties. So each row gets a bound on the error of its scores. If its best
// approximate score is ahead of the second best by more than twice the bound, the best code is the
// nearest one, proved. The other rows, a few per cent, go to a list, for the exact way. (One
// product per pair and a list is cheaper than three, the "3xTF32" of float32 accuracy: that would
// treble the cost of every row to spare a few per cent of them the exact comparison.)
//
// The bound. With z = zh + zl, e = eh + el (h: rounded to TF32, l: the exact remainder), |.| the
// Euclidean norm, D the dimensions and M = max |offset| + 2 |z| max|e|, which bounds partial sums:
//
//     rounding of operands     2 |z.e - zh.eh| = 2 |zl.e + zh.el| <= 2 (|zl| max|e| + |zh| max|el|)
//     sums in tensor cores     at most 10 addends per 8 products, each cut to 24 bits of the
//                              largest: 10/8 D 2^-23 M, and we allow D 2^-22 M
//     the chain of fmas        D 2^-24 M
//     codes in 3 low bits      2^-20 M                                              (see kTagMask)
//     underflow anywhere       far below 2^-60 (1 + |z| + max|e|)
//
// The remainders are computed, not estimated: their norms are some 2.5 times lower than the worst
// case. All is enlarged by 1 % for the rounding in its own evaluation, and if 16 M overflows, the
// bound is infinite: nothing that reaches a proof has met an overflow. Codes whose offset is
// infinite cannot be the nearest; here they are zeros, offset 3e38, and count in no maximum.
#include "cuda/nearest_codebook.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "cuda/grid.cuh"
#include "cuda/memory.h"
#include "quantizer/nearest_codebook.h"
#include "quantizer/nearest_codebook_definition.h"

namespace vqcodec::cuda {
namespace {

__device__ inline bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

// A score that is not NaN and the code that has it, ordered like scores, then like codes.
using Key = unsigned long long;
constexpr Key kNone = ~Key{0};

__device__ inline Key key_of(float score, int code) {
  const unsigned bits = __float_as_uint(score + 0.0f);  // -0 is as low as +0
  const unsigned ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(ordered) << 32 | static_cast<unsigned>(code);
}

__device__ inline bool has_finite_score(Key key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  const unsigned bits = ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered;
  return is_finite(__uint_as_float(bits));
}

// What kernels tell each other and the host.
struct Report {
  Key bad_parameter = kNone;  // code * (D + 1) + dimension, or + D for the bias
  Key bad_row = kNone;
  // Maxima over the codes with finite offsets: bits of floats that are not negative.
  unsigned norm = 0, remainder = 0, offset = 0;
};

// ------------------------------------------------------------------ the codebook

constexpr int kTileCodes = 128;  // of the exact way
constexpr int kTileDims = 8;
constexpr int kCodePadding = 256;  // of offsets and fragments: whole tiles both ways

// Tiles of kTileCodes codes, dimension by dimension, filled up with zeros:
//     packed[(tile * padded_dims + d) * kTileCodes + code % kTileCodes]
struct PackParams {
  StridedMatrix codebook;
  const float* bias;
  std::int64_t padded_dims, size;
  float* packed;
  Report* report;
};

__global__ void __launch_bounds__(kThreads) pack_codebook(const PackParams p) {
  const std::int64_t i = global_thread();
  if (i >= p.size) return;
  const std::int64_t d = i / kTileCodes % p.padded_dims;
  const std::int64_t code = i / kTileCodes / p.padded_dims * kTileCodes + i % kTileCodes;
  float value = 0.0f;
  if (code < p.codebook.rows && d < p.codebook.columns) {
    const Key place = static_cast<Key>(code) * (p.codebook.columns + 1);
    value = p.codebook(code, d);
    if (!is_finite(value)) atomicMin(&p.report->bad_parameter, place + d);
    if (d == 0 && p.bias != nullptr && !(p.bias[code] > -INFINITY)) {
      atomicMin(&p.report->bad_parameter, place + p.codebook.columns);
    }
  }
  p.packed[i] = value;
}

// TF32 has 10 bits after the point. Rounded to nearest; what remains is exact.
__device__ inline float rounded_to_tf32(float x) {
  return __uint_as_float((__float_as_uint(x) + 0x1000u) & ~0x1fffu);
}

struct OffsetParams {
  const float* packed;
  const float* bias;
  std::int64_t codes, dims, padded_dims;
  bool tensor;     // maxima, too
  float* offsets;  // up to a whole kCodePadding; +infinity where no code is
  Report* report;
};

__global__ void __launch_bounds__(kThreads) make_offsets(const OffsetParams p) {
  const std::int64_t code = global_thread();  // the grid is whole
  const std::int64_t tile = code / kTileCodes, in_tile = code % kTileCodes;
  float offset = INFINITY, norm = 0.0f, remainder = 0.0f;
  if (code < p.codes) {
    const StridedMatrix codebook = {p.packed + tile * p.padded_dims * kTileCodes, kTileCodes,
                                    p.dims, 1, kTileCodes};
    offset = codebook_offset(codebook, in_tile, p.bias == nullptr ? 0.0f : p.bias[code]);
    if (p.tensor && is_finite(offset)) {
      for (std::int64_t d = 0; d < p.dims; ++d) {
        const float e = codebook(in_tile, d), low = e - rounded_to_tf32(e);
        norm += e * e;
        remainder += low * low;
      }
    }
  }
  p.offsets[code] = offset;
  if (!p.tensor) return;
  float size = is_finite(offset) ? fabsf(offset) : 0.0f;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    norm = fmaxf(norm, __shfl_xor_sync(kAllLanes, norm, lanes));
    remainder = fmaxf(remainder, __shfl_xor_sync(kAllLanes, remainder, lanes));
    size = fmaxf(size, __shfl_xor_sync(kAllLanes, size, lanes));
  }
  if (threadIdx.x % 32 == 0) {
    atomicMax(&p.report->norm, __float_as_uint(sqrtf(norm)));
    atomicMax(&p.report->remainder, __float_as_uint(sqrtf(remainder)));
    atomicMax(&p.report->offset, __float_as_uint(size));
  }
}

// ------------------------------------------------------------------ rows

// Whether rows can be read with 16-byte loads.
bool has_vectors(const StridedMatrix& z) {
  return z.column_stride == 1 && z.row_stride % 4 == 0 && z.columns % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(z.data) % 16 == 0;
}

// Dimensions d, ..., d + 3 of the row at `from`; zeros past the last one.
template <bool kVectors>
__device__ __forceinline__ float4 load_dims(const StridedMatrix& z, const float* from, int d) {
  float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (kVectors) {
    if (d < z.columns) value = __ldg(reinterpret_cast<const float4*>(from + d));
  } else {
    from += d * z.column_stride;
    if (d < z.columns) value.x = __ldg(from);
    from += z.column_stride;
    if (d + 1 < z.columns) value.y = __ldg(from);
    from += z.column_stride;
    if (d + 2 < z.columns) value.z = __ldg(from);
    from += z.column_stride;
    if (d + 3 < z.columns) value.w = __ldg(from);
  }
  return value;
}

// Rows of one launch: all of z, or those in a list.
struct RowList {
  const std::int32_t* rows;  // null: all
  const unsigned* size;
};

__device__ inline std::int64_t size_of(const RowList& list, std::int64_t all) {
  return list.rows == nullptr ? all : static_cast<std::int64_t>(*list.size);
}
__device__ inline std::int64_t row_of(const RowList& list, std::int64_t i) {
  return list.rows == nullptr ? i : list.rows[i];
}

// Where indices go. Meanwhile the memory of an index may hold the lowest Key of its row so far.
struct Output {
  Key* indices;
  std::int64_t first_row;  // of z, for messages
  Report* report;

  __device__ void finish(std::int64_t row, Key key) const {
    indices[row] = key & 0xffffffffu;
    if (!has_finite_score(key)) {
      atomicMin(&report->bad_row, static_cast<Key>(first_row + row));
    }
  }
};

// ------------------------------------------------------------------ exact

constexpr int kExactThreads = 128;
constexpr int kTileRows = 64;
// The second 4 dimensions of a tile of z lie 16 banks further than expected: two threads that hold
// both halves of a row then store without conflict.
constexpr int kHalfRows = 4 * kTileRows + 16;
constexpr int kRowTile = 2 * kHalfRows;
constexpr int kCodeTile = kTileDims * kTileCodes;
constexpr std::size_t kExactShared =
    2 * (kRowTile + kCodeTile) * sizeof(float) + 2 * kTileRows * sizeof(Key);

struct ExactParams {
  StridedMatrix z;
  RowList list;
  bool by_rows;  // elements of a column are closer than those of a row
  bool alone;    // no other block has codes for the same rows
  const float *packed, *offsets;
  int dims, chunks, tiles;  // chunks: of kTileDims; tiles: of kTileCodes
  Output out;
};

// A thread's part of compare_exactly. It holds 2 x 4 rows and 2 x 4 codes:
//     rows  4 ty ..., 32 + 4 ty ...    ty = 0..7: 4 per warp
//     codes 4 tx ..., 64 + 4 tx ...    tx = 0..15: 8 per warp
// and loads half of the dimensions of one row, and 4 codes of two dimensions.
struct ExactThread {
  int number, lane, warp;
  int tx, ty;
  int load_row, load_half;

  __device__ __forceinline__ explicit ExactThread(bool by_rows)
      : number(static_cast<int>(threadIdx.x)),
        lane(number % 32),
        warp(number / 32),
        tx(lane % 8 + warp % 2 * 8),
        ty(lane / 8 + warp / 2 * 4),
        load_row(by_rows ? number % kTileRows : number / 2),
        load_half(by_rows ? number / kTileRows : number % 2) {}
};

// What a thread brings to shared memory for one chunk of dimensions.
struct ExactLoad {
  float4 z, e0, e1;

  // Dimensions of the row at `z_from` from `first` on; codes at `e_from`.
  template <bool kVectors>
  __device__ __forceinline__ void load(const ExactParams& p, const ExactThread& thread,
                                       const float* z_from, int first, const float4* e_from) {
    z = load_dims<kVectors>(p.z, z_from, first + 4 * thread.load_half);
    e0 = __ldg(e_from);
    e1 = __ldg(e_from + kExactThreads);
  }

  __device__ __forceinline__ void store(const ExactThread& thread, float* z_tile,
                                        float* e_tile) const {
    float* const to = z_tile + thread.load_half * kHalfRows + thread.load_row;
    to[0] = -2.0f * z.x;
    to[kTileRows] = -2.0f * z.y;
    to[2 * kTileRows] = -2.0f * z.z;
    to[3 * kTileRows] = -2.0f * z.w;
    float4* const e_to = reinterpret_cast<float4*>(e_tile) + thread.number;
    e_to[0] = e0;
    e_to[kExactThreads] = e1;
  }
};

// scores = offsets of a thread's codes, for each of its rows.
__device__ __forceinline__ void begin_scores(const float* offsets, float (&score)[8][8]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float4 offset = __ldg(reinterpret_cast<const float4*>(offsets + 64 * half));
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      score[r][4 * half] = offset.x;
      score[r][4 * half + 1] = offset.y;
      score[r][4 * half + 2] = offset.z;
      score[r][4 * half + 3] = offset.w;
    }
  }
}

// scores += products of the dimensions first, ... of a chunk, as far as there are.
__device__ __forceinline__ void add_products(const float* z_at, const float* e_at, int first,
                                             int dims, float (&score)[8][8]) {
  for (int d = first, end = d + kTileDims; d < end && d < dims; d += 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 z0 = *reinterpret_cast<const float4*>(z_at + i * kTileRows);
      const float4 z1 = *reinterpret_cast<const float4*>(z_at + i * kTileRows + 32);
      const float4 e0 = *reinterpret_cast<const float4*>(e_at + i * kTileCodes);
      const float4 e1 = *reinterpret_cast<const float4*>(e_at + i * kTileCodes + 64);
      const float z[8] = {z0.x, z0.y, z0.z, z0.w, z1.x, z1.y, z1.z, z1.w};
      const float e[8] = {e0.x, e0.y, e0.z, e0.w, e1.x, e1.y, e1.z, e1.w};
#pragma unroll
      for (int r = 0; r < 8; ++r) {
#pragma unroll
        for (int c = 0; c < 8; ++c) score[r][c] = __fmaf_rn(e[c], z[r], score[r][c]);
      }
    }
    z_at += kHalfRows;
    e_at += 4 * kTileCodes;
  }
}

// The lowest score of each row so far, and its code. `code`: the first of this thread's.
__device__ __forceinline__ void keep_lowest(const float (&score)[8][8], int code, float (&best)[8],
                                            int (&where)[8]) {
#pragma unroll
  for (int r = 0; r < 8; ++r) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      if (score[r][c] < best[r]) {
        best[r] = score[r][c];
        where[r] = code + c % 4 + c / 4 * 64;
      }
    }
  }
}

// The lowest key of each row among the threads of a warp that hold it, to shared memory.
__device__ __forceinline__ void share_lowest(const ExactThread& thread, const float (&best)[8],
                                             const int (&where)[8], Key* keys) {
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    Key key = key_of(best[r], where[r]);
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) {
      const Key other = __shfl_xor_sync(kAllLanes, key, lanes);
      key = other < key ? other : key;
    }
    if (thread.lane % 8 == 0) {
      keys[thread.warp % 2 * kTileRows + 4 * thread.ty + r % 4 + r / 4 * 32] = key;
    }
  }
}

// The lower of both warps' keys of the row `i` of the list, to where indices go.
__device__ __forceinline__ void write_row(const ExactParams& p, std::int64_t i, Key key0,
                                          Key key1) {
  const Key key = key1 < key0 ? key1 : key0;
  const std::int64_t to = row_of(p.list, i);
  if (p.alone) {
    p.out.finish(to, key);
  } else {
    atomicMin(p.out.indices + to, key);
  }
}

// Grid: x steps through the rows, y shares out the codes.
template <bool kVectors>
__global__ void __launch_bounds__(kExactThreads, 3) compare_exactly(const ExactParams p) {
  float* const z_tiles = shared_memory<float>();
  float* const e_tiles = z_tiles + 2 * kRowTile;
  Key* const keys = reinterpret_cast<Key*>(e_tiles + 2 * kCodeTile);
  const ExactThread thread(p.by_rows);

  const std::int64_t tiles = p.tiles;
  const int first_tile = static_cast<int>(tiles * blockIdx.y / gridDim.y);
  const int last_tile = static_cast<int>(tiles * (blockIdx.y + 1) / gridDim.y);
  for (std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kTileRows;
       first_row < size_of(p.list, p.z.rows);
       first_row += static_cast<std::int64_t>(gridDim.x) * kTileRows) {
    // Past the end, a thread repeats the last row.
    const std::int64_t last_row = size_of(p.list, p.z.rows) - 1;
    const float* const z_from = &p.z(row_of(p.list, min(first_row + thread.load_row, last_row)), 0);
    const float4* e_from = reinterpret_cast<const float4*>(p.packed) + thread.number +
                           static_cast<std::int64_t>(first_tile) * p.chunks * (kCodeTile / 4);

    float best[8];
    int where[8];
#pragma unroll
    for (int r = 0; r < 8; ++r) best[r] = INFINITY, where[r] = 0;
    float score[8][8];

    ExactLoad next;
    next.load<kVectors>(p, thread, z_from, 0, e_from);
    next.store(thread, z_tiles, e_tiles);
    __syncthreads();
    int buffer = 0, chunk = 0, tile = first_tile;
    while (true) {
      const int next_chunk = chunk + 1 < p.chunks ? chunk + 1 : 0;
      const int next_tile = next_chunk == 0 ? tile + 1 : tile;
      if (next_tile < last_tile) {
        e_from += kCodeTile / 4;
        next.load<kVectors>(p, thread, z_from, next_chunk * kTileDims, e_from);
      }
      if (chunk == 0) begin_scores(p.offsets + tile * kTileCodes + 4 * thread.tx, score);
      add_products(z_tiles + buffer * kRowTile + 4 * thread.ty,
                   e_tiles + buffer * kCodeTile + 4 * thread.tx, chunk * kTileDims, p.dims, score);
      if (next_chunk == 0) keep_lowest(score, tile * kTileCodes + 4 * thread.tx, best, where);
      if (next_tile >= last_tile) break;
      buffer ^= 1;
      next.store(thread, z_tiles + buffer * kRowTile, e_tiles + buffer * kCodeTile);
      __syncthreads();
      chunk = next_chunk;
      tile = next_tile;
    }

    share_lowest(thread, best, where, keys);
    __syncthreads();
    const std::int64_t row = first_row + thread.number;
    if (thread.number < kTileRows && row < size_of(p.list, p.z.rows)) {
      write_row(p, row, keys[thread.number], keys[kTileRows + thread.number]);
    }
  }
}

// Keys to indices, where blocks shared rows.
struct FinishParams {
  RowList list;
  std::int64_t rows;
  Output out;
};

__global__ void __launch_bounds__(kThreads) finish_rows(const FinishParams p) {
  const std::int64_t rows = size_of(p.list, p.rows);
  for (std::int64_t i = global_thread(); i < rows;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    const std::int64_t row = row_of(p.list, i);
    p.out.finish(row, p.out.indices[row]);
  }
}

// ------------------------------------------------------------------ tensor

// Operands of mma_tf32 for 16 dimensions, two products. Sums may take the dimensions in any order:
// of the dimensions 4 q, ..., 4 q + 3 the first product takes the first two as its k = q and
// k = q + 4, the second one the others. 16 bytes per lane 4 g + q are one load:
//     8 codes     code g, dimensions 4 q ..: b of the first product, b of the second
//     16 rows     row g and row g + 8, dimension 4 q; the same, 4 q + 1: a of the first product,
//                 then, 32 lanes further, a of the second
// Fragments lie in the orders [code / 8][dimension / 16][lane] and
// [row / 16][dimension / 16][product][lane].
constexpr int kFragmentDims = 16;
constexpr std::int64_t kMaxTensorDims = 512;

// The approximate score of a code that cannot be the nearest.
[[maybe_unused]] constexpr float kDisabled = 3e38f;
// The low bits of an approximate score say which of its thread's 8 codes in a tile has it.
[[maybe_unused]] constexpr unsigned kTagMask = 7;

struct FragmentParams {
  const float *packed, *offsets;
  std::int64_t padded_dims, size;  // of `fragments`
  int steps;                       // of kFragmentDims
  float4* fragments;
};

__global__ void __launch_bounds__(kThreads) make_fragments(const FragmentParams p) {
  const std::int64_t i = global_thread();
  if (i >= p.size) return;
  const std::int64_t code = i / 32 / p.steps * 8 + i % 32 / 4;
  const std::int64_t d = i / 32 % p.steps * kFragmentDims + i % 4 * 4;
  float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (d < p.padded_dims && is_finite(p.offsets[code])) {
    const float* from =
        p.packed + (code / kTileCodes * p.padded_dims + d) * kTileCodes + code % kTileCodes;
    value =
        make_float4(rounded_to_tf32(from[0]), rounded_to_tf32(from[kTileCodes]),
                    rounded_to_tf32(from[2 * kTileCodes]), rounded_to_tf32(from[3 * kTileCodes]));
  }
  p.fragments[i] = value;
}

struct FilterParams {
  StridedMatrix z;
  const float4* fragments;
  const float* offsets;
  const Report* report;
  int codes, steps;  // steps: of kFragmentDims
  unsigned keep;     // ~kTagMask; as a constant, it would make two instructions of one
  Key* indices;      // kNone where the row goes to the list
  std::int32_t* list;
  unsigned* listed;
};

// Twice the bound on the error of a row's scores.
[[maybe_unused]] __device__ inline float decisive_gap(const FilterParams& p, float squares,
                                                      float low_squares) {
  const float norm = sqrtf(squares), low = sqrtf(low_squares);
  const float max_norm = __uint_as_float(p.report->norm);
  const float max_low = __uint_as_float(p.report->remainder);
  const float max_offset = __uint_as_float(p.report->offset);
  const float sixteen_m = 16.0f * (max_offset + 2.0f * norm * max_norm);
  const float dims = static_cast<float>(p.steps * kFragmentDims);
  // D 2^-22 + D 2^-24 + 2^-20 <= 1.5 D 2^-22 for D >= 16; 2^-26 = 1.49e-8 is 2^-22 / 16.
  const float bound =
      2.0f * (low * max_norm + norm * max_low) + 1.5f * 1.4901162e-8f * dims * sixteen_m;
  return 2.0f * (1.01f * bound + 8.7e-19f * (1.0f + norm + max_norm));  // 2^-60 = 8.67e-19
}

// The two lowest scores of a row, and the code of the lowest.
struct TwoLowest {
  float lowest, second;
  int code;
};

[[maybe_unused]] __device__ inline TwoLowest merge(const TwoLowest& a, const TwoLowest& b) {
  return {fminf(a.lowest, b.lowest), fminf(fmaxf(a.lowest, b.lowest), fminf(a.second, b.second)),
          b.lowest < a.lowest ? b.code : a.code};
}

// A block is kRowWarps x kColumnWarps warps of 64 rows x 32 codes. Its rows stay in shared memory,
// the codes pass through it, 16 dimensions at a time:
//     z       kRows / 16 x steps x 2 products x 32 lanes of float4
//     e       2 x kCodes / 8 x 32 lanes of float4
//     gaps    kRows floats
// and at the end, in the place of z and e, kColumnWarps x kRows TwoLowest.
template <int kRowWarps, int kColumnWarps>
struct FilterShape {
  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kRows = 64 * kRowWarps;
  static constexpr int kCodes = 32 * kColumnWarps;
  static constexpr int kColumns = kColumnWarps;
  static constexpr int kLoads = kCodes * 4 / kThreads;  // of codes, per thread and step
  static_assert(kCodePadding % kCodes == 0, "offsets and fragments are padded");
  static_assert(kColumnWarps * kRows * sizeof(TwoLowest) <= (kRows + 2 * kCodes) * 64, "fits");

  static std::size_t shared(int steps) {
    return (static_cast<std::size_t>(kRows) * steps + 2 * kCodes) * 4 * sizeof(float4) +
           kRows * sizeof(float);
  }
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// A thread's place in a block.
template <class Shape>
struct FilterThread {
  int number = static_cast<int>(threadIdx.x);
  int lane = number % 32;
  int warp = number / 32;
  int row_warp = warp % (Shape::kRows / 64);
  int column_warp = warp / (Shape::kRows / 64);
  std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * Shape::kRows;  // of the block
};

// The rows of a block to shared memory, as fragments, and what their best codes must be ahead by.
// Four lanes load 16 dimensions of a row. The lanes of row g and of row g + 8 are 16 apart: they
// exchange halves, and have the fragments of one product each.
template <class Shape, bool kVectors>
__device__ __forceinline__ void load_rows(const FilterParams& p, const FilterThread<Shape>& thread,
                                          float4* z_tile, float* gaps) {
  const int lane = thread.lane, product = lane / 16;
  for (int i = thread.number / 4; i < Shape::kRows; i += Shape::kThreads / 4) {
    const int g = (i >> 1 & 4) | (i & 3), row = (i & ~15) + 8 * product + g;
    const float* const from = &p.z(min(thread.first_row + row, p.z.rows - 1), 0);
    float squares = 0.0f, low_squares = 0.0f;
    float4* to = z_tile + (i / 16 * p.steps * 2 + product) * 32 + 4 * g + lane % 4;
#pragma unroll 4
    for (int step = 0; step < p.steps; ++step, to += 64) {
      const float4 z = load_dims<kVectors>(p.z, from, step * kFragmentDims + lane % 4 * 4);
      const auto take = [&](float value) {
        const float high = rounded_to_tf32(value), low = value - high;
        squares += value * value;
        low_squares += low * low;
        return -2.0f * high;
      };
      const float x = take(z.x), y = take(z.y), u = take(z.z), v = take(z.w);
      const float other0 = __shfl_xor_sync(kAllLanes, product == 0 ? u : x, 16);
      const float other1 = __shfl_xor_sync(kAllLanes, product == 0 ? v : y, 16);
      *to = product == 0 ? make_float4(x, other0, y, other1) : make_float4(other0, u, other1, v);
    }
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      squares += __shfl_xor_sync(kAllLanes, squares, lanes);
      low_squares += __shfl_xor_sync(kAllLanes, low_squares, lanes);
    }
    if (lane % 4 == 0) gaps[row] = decisive_gap(p, squares, low_squares);
  }
}

// The fragments of a step's codes, of which a thread loads and stores some.
template <class Shape>
struct CodeLoad {
  float4 e[Shape::kLoads];

  // A warp copies the fragments of 8 codes: those of a step lie `steps` fragments apart.
  __device__ __forceinline__ void load(const float4* from, int steps) {
#pragma unroll
    for (int i = 0; i < Shape::kLoads; ++i) {
      e[i] = __ldg(from + i * (Shape::kThreads / 32) * steps * 32);
    }
  }
  __device__ __forceinline__ void store(float4* e_tiles, int buffer, int thread) const {
#pragma unroll
    for (int i = 0; i < Shape::kLoads; ++i) {
      e_tiles[buffer * Shape::kCodes * 4 + i * Shape::kThreads + thread] = e[i];
    }
  }
};

// scores = offsets, by the layout of mma_tf32's c: 4 x 16 rows, 4 x 8 codes.
__device__ __forceinline__ void begin_scores(const float* offsets, float (&score)[4][4][4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float2 offset = __ldg(reinterpret_cast<const float2*>(offsets + n * 8));
    const float offset0 = fminf(offset.x, kDisabled), offset1 = fminf(offset.y, kDisabled);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      score[m][n][0] = score[m][n][2] = offset0;
      score[m][n][1] = score[m][n][3] = offset1;
    }
  }
}

// scores += products of 16 dimensions. Fragments of rows lie `steps` x 64 apart.
__device__ __forceinline__ void add_products(const float4* z_at, const float4* e_at, int steps,
                                             float (&score)[4][4][4]) {
  std::uint32_t b[4][4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float4 e = e_at[n * 32];
    b[n][0] = __float_as_uint(e.x), b[n][1] = __float_as_uint(e.y);
    b[n][2] = __float_as_uint(e.z), b[n][3] = __float_as_uint(e.w);
  }
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const float4 z0 = z_at[0], z1 = z_at[32];
    z_at += steps * 64;
    const std::uint32_t a0[4] = {__float_as_uint(z0.x), __float_as_uint(z0.y),
                                 __float_as_uint(z0.z), __float_as_uint(z0.w)};
    const std::uint32_t a1[4] = {__float_as_uint(z1.x), __float_as_uint(z1.y),
                                 __float_as_uint(z1.z), __float_as_uint(z1.w)};
#pragma unroll
    for (int n = 0; n < 4; ++n) mma_tf32(score[m][n], a0, {b[n][0], b[n][1]});
#pragma unroll
    for (int n = 0; n < 4; ++n) mma_tf32(score[m][n], a1, {b[n][2], b[n][3]});
  }
}

// Of rows 16 m + 8 h + lane / 4 of a warp: the two lowest scores among the codes of one thread. The
// tile of the lowest is apart, its place in the tile is in its tag.
struct ThreadLowest {
  float lowest[4][2], second[4][2];
  int where[4][2];

  __device__ __forceinline__ ThreadLowest() {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) lowest[m][h] = second[m][h] = kDisabled, where[m][h] = 0;
    }
  }

  __device__ __forceinline__ void keep(const float (&score)[4][4][4], unsigned mask, int tile) {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float before = lowest[m][h];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          const unsigned bits = __float_as_uint(score[m][c / 2][2 * h + c % 2]);
          const float tagged = __uint_as_float((bits & mask) | static_cast<unsigned>(c));
          second[m][h] = fminf(second[m][h], fmaxf(lowest[m][h], tagged));
          lowest[m][h] = fminf(lowest[m][h], tagged);
        }
        if (lowest[m][h] != before) where[m][h] = tile;
      }
    }
  }

  // The two lowest of each row among the threads of a warp that hold it, to shared memory.
  template <class Shape>
  __device__ __forceinline__ void share(const FilterThread<Shape>& thread, TwoLowest* found) const {
    const int lane = thread.lane;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int tag = static_cast<int>(__float_as_uint(lowest[m][h]) & kTagMask);
        TwoLowest mine = {lowest[m][h], second[m][h],
                          where[m][h] * Shape::kCodes + thread.column_warp * 32 + tag / 2 * 8 +
                              lane % 4 * 2 + tag % 2};
#pragma unroll
        for (int lanes = 1; lanes < 4; lanes *= 2) {
          const TwoLowest other = {__shfl_xor_sync(kAllLanes, mine.lowest, lanes),
                                   __shfl_xor_sync(kAllLanes, mine.second, lanes),
                                   __shfl_xor_sync(kAllLanes, mine.code, lanes)};
          mine = merge(mine, other);
        }
        if (lane % 4 == 0) {
          found[thread.column_warp * Shape::kRows + thread.row_warp * 64 + m * 16 + h * 8 +
                lane / 4] = mine;
        }
      }
    }
  }
};

// Writes the codes of the rows that are decided, and lists the others.
template <class Shape>
__device__ __forceinline__ void decide_rows(const FilterParams& p,
                                            const FilterThread<Shape>& thread,
                                            const TwoLowest* found, const float* gaps) {
  for (int i = thread.number; i < Shape::kRows; i += Shape::kThreads) {  // whole warps
    TwoLowest row = found[i];
    for (int w = 1; w < Shape::kColumns; ++w) row = merge(row, found[w * Shape::kRows + i]);
    const bool has_row = thread.first_row + i < p.z.rows;
    // Written so that a NaN proves nothing. 8.5e37 < 2^126 is above all real scores.
    const bool proved = row.second - row.lowest > gaps[i] && row.lowest < 8.5e37f;
    if (has_row) p.indices[thread.first_row + i] = proved ? static_cast<Key>(row.code) : kNone;
    const unsigned undecided = __ballot_sync(kAllLanes, has_row && !proved);
    if (undecided == 0) continue;
    unsigned to = 0;
    if (thread.lane == 0) to = atomicAdd(p.listed, static_cast<unsigned>(__popc(undecided)));
    to = __shfl_sync(kAllLanes, to, 0);
    if ((undecided >> thread.lane & 1) != 0) {
      to += static_cast<unsigned>(__popc(undecided & ((1u << thread.lane) - 1)));
      p.list[to] = static_cast<std::int32_t>(thread.first_row + i);
    }
  }
}

#endif  // compute capability 8.0

template <int kRowWarps, int kColumnWarps, bool kVectors>
__global__ void __launch_bounds__(FilterShape<kRowWarps, kColumnWarps>::kThreads,
                                  FilterShape<kRowWarps, kColumnWarps>::kThreads == 128 ? 3 : 1)
    filter(const FilterParams p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  using Shape = FilterShape<kRowWarps, kColumnWarps>;
  float4* const z_tile = shared_memory<float4>();
  float4* const e_tiles = z_tile + Shape::kRows * 4 * p.steps;
  float* const gaps = reinterpret_cast<float*>(e_tiles + 2 * Shape::kCodes * 4);
  const FilterThread<Shape> thread;
  load_rows<Shape, kVectors>(p, thread, z_tile, gaps);

  const float4* e_from =
      p.fragments + static_cast<std::int64_t>(thread.warp) * p.steps * 32 + thread.lane;
  CodeLoad<Shape> next;
  next.load(e_from, p.steps);
  next.store(e_tiles, 0, thread.number);
  __syncthreads();

  ThreadLowest lowest;
  const int tiles = (p.codes + Shape::kCodes - 1) / Shape::kCodes;
  int buffer = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    float score[4][4][4];
    begin_scores(p.offsets + tile * Shape::kCodes + thread.column_warp * 32 + thread.lane % 4 * 2,
                 score);
    int step = 0;
    do {  // at least once: says so to the compiler, which else initialises the scores twice
      const bool last_step = step + 1 == p.steps;
      const bool more = !last_step || tile + 1 < tiles;
      e_from += 32;
      if (last_step) e_from += (Shape::kCodes / 8 - 1) * p.steps * 32;
      if (more) next.load(e_from, p.steps);
      add_products(z_tile + (thread.row_warp * 4 * p.steps + step) * 64 + thread.lane,
                   e_tiles + buffer * Shape::kCodes * 4 + thread.column_warp * 4 * 32 + thread.lane,
                   p.steps, score);
      if (more) {
        buffer ^= 1;
        next.store(e_tiles, buffer, thread.number);
        __syncthreads();
      }
    } while (++step < p.steps);
    lowest.keep(score, p.keep, tile);
  }

  __syncthreads();  // z and e have been read
  TwoLowest* const found = shared_memory<TwoLowest>();
  lowest.share(thread, found);
  __syncthreads();
  decide_rows(p, thread, found, gaps);
#endif
}

// ------------------------------------------------------------------ the host's part

constexpr std::int64_t kSlabRows = std::int64_t{1} << 22;  // rows that share a list
// Below, the exact way is as fast.
constexpr std::int64_t kMinTensorDims = 16;
constexpr std::int64_t kMinTensorCodes = 64;

struct Device {
  int multiprocessors = 0, major = 0, minor = 0, shared = 0;

  Status query() {
    int device = 0;
    if (Status status = check(cudaGetDevice(&device), "finding a device"); !status.ok()) {
      return status;
    }
    const struct {
      cudaDeviceAttr attribute;
      int* value;
    } wanted[] = {{cudaDevAttrMultiProcessorCount, &multiprocessors},
                  {cudaDevAttrComputeCapabilityMajor, &major},
                  {cudaDevAttrComputeCapabilityMinor, &minor},
                  {cudaDevAttrMaxSharedMemoryPerBlockOptin, &shared}};
    for (const auto& [attribute, value] : wanted) {
      const cudaError_t error = cudaDeviceGetAttribute(value, attribute, device);
      if (error != cudaSuccess) return check(error, "asking for its properties");
    }
    return {};
  }
};

// Shapes of the tensor way: many rows per block, so that the codes pass seldom, and many warps per
// multiprocessor.
enum class Shape { none, rows_256, rows_128, rows_128_wide, rows_64_wide };

Shape shape_for(const Device& device, int steps) {
  const auto limit = static_cast<std::size_t>(device.shared);
  if (3 * FilterShape<4, 1>::shared(steps) <= limit) return Shape::rows_256;
  if (2 * FilterShape<2, 2>::shared(steps) <= limit) return Shape::rows_128;
  if (FilterShape<2, 4>::shared(steps) <= limit) return Shape::rows_128_wide;
  if (FilterShape<1, 8>::shared(steps) <= limit) return Shape::rows_64_wide;
  return Shape::none;
}

bool can_use_tensor(const Device& device, const StridedMatrix& codebook) {
  if (device.major < 8 || codebook.columns > kMaxTensorDims) return false;
  const auto steps = static_cast<int>(divide_up(codebook.columns, kFragmentDims));
  return shape_for(device, steps) != Shape::none;
}

// TF32 has eight times the rate of float32 on data centre GPUs (8.0, 9.0, 10.0), and the same rate
// on the others.
bool should_use_tensor(const Device& device, const StridedMatrix& codebook) {
  return (device.major == 8 || device.major == 9 || device.major == 10) && device.minor == 0 &&
         codebook.columns >= kMinTensorDims && codebook.rows >= kMinTensorCodes;
}

// One call of nearest_codebook.
class Search {
 public:
  Search(const Device& device, const StridedMatrix& codebook, const float* bias,
         cudaStream_t stream)
      : device_(device), codebook_(codebook), bias_(bias), stream_(stream) {}

  Status pack(bool tensor) {
    const std::int64_t codes = divide_up(codebook_.rows, kCodePadding) * kCodePadding;
    padded_dims_ = divide_up(codebook_.columns, kTileDims) * kTileDims;
    steps_ = static_cast<int>(divide_up(codebook_.columns, kFragmentDims));
    const Report nothing;
    if (Status s = report_.upload(&nothing, 1, stream_); !s.ok()) return s;
    if (Status s = packed_.allocate(codes * padded_dims_, stream_); !s.ok()) return s;
    if (Status s = offsets_.allocate(codes, stream_); !s.ok()) return s;
    const auto size = static_cast<std::int64_t>(packed_.size());
    if (Status s =
            start(pack_codebook, blocks_for(size), 0,
                  PackParams{codebook_, bias_, padded_dims_, size, packed_.data(), report_.data()});
        !s.ok()) {
      return s;
    }
    if (Status s = start(make_offsets, blocks_for(codes), 0,
                         OffsetParams{packed_.data(), bias_, codebook_.rows, codebook_.columns,
                                      padded_dims_, tensor, offsets_.data(), report_.data()});
        !s.ok() || !tensor) {
      return s;
    }
    const std::int64_t lanes = codes * steps_ * 4;
    if (Status s = fragments_.allocate(lanes, stream_); !s.ok()) return s;
    return start(make_fragments, blocks_for(lanes), 0,
                 FragmentParams{packed_.data(), offsets_.data(), padded_dims_, lanes, steps_,
                                fragments_.data()});
  }

  Status exact(const StridedMatrix& z, std::int64_t* indices) {
    return compare(z, {nullptr, nullptr}, z.rows, {to_keys(indices), 0, report_.data()});
  }

  Status tensor(const StridedMatrix& z, std::int64_t* indices) {
    const std::int64_t slabs = divide_up(z.rows, kSlabRows);
    if (Status s = listed_.allocate_zeros(slabs, stream_); !s.ok()) return s;
    if (Status s = list_.allocate(std::min(z.rows, kSlabRows), stream_); !s.ok()) return s;
    for (std::int64_t slab = 0; slab < slabs; ++slab) {
      const std::int64_t first = slab * kSlabRows;
      StridedMatrix part = z;
      part.data += first * z.row_stride;
      part.rows = std::min(kSlabRows, z.rows - first);
      unsigned* const listed = listed_.data() + slab;
      const FilterParams params = {part,
                                   fragments_.data(),
                                   offsets_.data(),
                                   report_.data(),
                                   static_cast<int>(codebook_.rows),
                                   steps_,
                                   ~kTagMask,
                                   to_keys(indices + first),
                                   list_.data(),
                                   listed};
      if (Status s = start_filter(params); !s.ok()) return s;
      // The number of rows in the list is not known here. A few per cent is the usual case.
      if (Status s = compare(part, {list_.data(), listed}, divide_up(part.rows, 32),
                             {to_keys(indices + first), first, report_.data()});
          !s.ok()) {
        return s;
      }
    }
    return {};
  }

  // Waits, and says what was wrong.
  Status result(std::int64_t* rescored) {
    std::vector<unsigned> listed(listed_.size());
    if (Status s = listed_.download(listed.data()); !s.ok()) return s;
    Report report;
    if (Status s = fetch(report_.data(), stream_, &report); !s.ok()) return s;
    if (rescored != nullptr) {
      *rescored = 0;
      for (const unsigned n : listed) *rescored += n;
    }
    if (report.bad_parameter != kNone) {
      const auto place = static_cast<std::int64_t>(report.bad_parameter);
      const std::int64_t code = place / (codebook_.columns + 1);
      const std::int64_t d = place % (codebook_.columns + 1);
      const bool is_bias = d == codebook_.columns;
      float value = 0;
      const float* const from = is_bias ? bias_ + code : &codebook_(code, d);
      if (Status s = fetch(from, stream_, &value); !s.ok()) return s;
      return Status::invalid_argument(
          (is_bias ? "bias must be finite or +inf, got " : "codebook must be finite, got ") +
          std::to_string(value) + (is_bias ? " for code " : " in code ") + std::to_string(code));
    }
    if (report.bad_row != kNone) {
      return Status::invalid_argument("z must be finite and its scores must not overflow: row " +
                                      std::to_string(report.bad_row) +
                                      " has no code with a finite score");
    }
    return {};
  }

 private:
  static Key* to_keys(std::int64_t* indices) { return reinterpret_cast<Key*>(indices); }

  template <class Params>
  Status start(void (*kernel)(Params), dim3 grid, std::size_t shared, const Params& params,
               int threads = kThreads) {
    const cudaError_t error =
        launch(kernel, grid, dim3(static_cast<unsigned>(threads)), shared, stream_, params);
    return check(error, "starting a kernel");
  }

  template <int kRowWarps, int kColumnWarps>
  Status start_filter_as(const FilterParams& params) {
    using Filter = FilterShape<kRowWarps, kColumnWarps>;
    const std::int64_t blocks = divide_up(params.z.rows, Filter::kRows);
    return start(has_vectors(params.z) ? filter<kRowWarps, kColumnWarps, true>
                                       : filter<kRowWarps, kColumnWarps, false>,
                 static_cast<unsigned>(blocks), Filter::shared(steps_), params, Filter::kThreads);
  }

  Status start_filter(const FilterParams& params) {
    switch (shape_for(device_, steps_)) {
      case Shape::rows_256: return start_filter_as<4, 1>(params);
      case Shape::rows_128: return start_filter_as<2, 2>(params);
      case Shape::rows_128_wide: return start_filter_as<2, 4>(params);
      case Shape::rows_64_wide: return start_filter_as<1, 8>(params);
      case Shape::none: break;
    }
    return Status::unsupported("too many dimensions for tensor cores");
  }

  // The exact way, for all rows or those in a list, of which there are about `expected`.
  Status compare(const StridedMatrix& z, const RowList& list, std::int64_t expected,
                 const Output& out) {
    if (z.rows == 0) return {};
    const std::int64_t tiles = divide_up(codebook_.rows, kTileCodes);
    const std::int64_t wanted = 6 * std::int64_t{device_.multiprocessors};  // blocks, at least
    const std::int64_t max_shares = std::min<std::int64_t>(tiles, 65535);
    const std::int64_t shares =
        std::clamp<std::int64_t>(wanted / divide_up(expected, kTileRows), 1, max_shares);
    const bool listed = list.rows != nullptr;
    const bool alone = !listed && shares == 1;
    if (!listed && !alone) {
      if (Status s = check(cudaMemsetAsync(out.indices, 0xff, z.rows * sizeof(Key), stream_),
                           "clearing memory");
          !s.ok()) {
        return s;
      }
    }
    const bool by_rows = std::abs(z.row_stride) < std::abs(z.column_stride);
    const ExactParams params = {z,
                                list,
                                by_rows,
                                alone,
                                packed_.data(),
                                offsets_.data(),
                                static_cast<int>(codebook_.columns),
                                static_cast<int>(padded_dims_ / kTileDims),
                                static_cast<int>(tiles),
                                out};
    std::int64_t blocks = divide_up(z.rows, kTileRows);
    if (listed) blocks = std::min(blocks, wanted);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(shares));
    if (Status s = start(has_vectors(z) ? compare_exactly<true> : compare_exactly<false>, grid,
                         kExactShared, params, kExactThreads);
        !s.ok() || alone) {
      return s;
    }
    const unsigned finishers = std::min(blocks_for(z.rows), static_cast<unsigned>(2 * wanted));
    return start(finish_rows, finishers, 0, FinishParams{list, z.rows, out});
  }

  const Device& device_;
  const StridedMatrix& codebook_;
  const float* const bias_;
  const cudaStream_t stream_;
  std::int64_t padded_dims_ = 0;
  int steps_ = 0;
  DeviceArray<Report> report_;
  DeviceArray<float> packed_, offsets_;
  DeviceArray<float4> fragments_;
  DeviceArray<std::int32_t> list_;
  DeviceArray<unsigned> listed_;
};

}  // namespace

Status nearest_codebook(const StridedMatrix& z, const StridedMatrix& codebook, const float* bias,
                        cudaStream_t stream, std::int64_t* indices, NearestPath path,
                        std::int64_t* rescored) {
  if (Status status = check_shapes(z, codebook); !status.ok()) return status;
  Device device;
  if (Status status = device.query(); !status.ok()) return status;
  const bool can = can_use_tensor(device, codebook);
  if (path == NearestPath::tensor && !can) {
    return Status::unsupported("tensor cores need compute capability 8.0, at most " +
                               std::to_string(kMaxTensorDims) +
                               " dimensions, and shared memory for 64 rows of them");
  }
  const bool tensor = path == NearestPath::automatic ? can && should_use_tensor(device, codebook)
                                                     : path == NearestPath::tensor;
  Search search(device, codebook, bias, stream);
  if (Status status = search.pack(tensor); !status.ok()) return status;
  if (Status status = tensor ? search.tensor(z, indices) : search.exact(z, indices); !status.ok()) {
    return status;
  }
  return search.result(rescored);
}

}  // namespace vqcodec::cuda
