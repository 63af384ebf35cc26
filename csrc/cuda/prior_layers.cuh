// The stages of a pass of the integer prior (prior_pass.h), carried out by the warps of a block.
//
// A convolution is shared out in items of 16 outputs x 1 or 2 tiles of 8 positions. An item
// belongs to one warp, whose threads hold its sums in registers (mma_s8 in device.cuh); every
// thread turns its own sums into features (finish), without a detour through memory:
//
//                      positions 8 j + 2 q, 8 j + 2 q + 1
//     outputs   g        sum[j][0]   sum[j][1]               g = lane / 4, q = lane % 4
//               g + 8    sum[j][2]   sum[j][3]
//
// Nothing here waits for other warps. Callers put __syncthreads() between stages.
#pragma once

#include "coding/frequency_table.h"
#include "coding/sampling_rule.h"
#include "cuda/device.cuh"
#include "cuda/prior_pass.h"
#include "nn/fixed_point.h"
#include "prior/prior_arithmetic.h"

namespace vqcodec::cuda {

// The warps that do something together: this one, of how many. All of them call.
struct Workers {
  int warp;
  int warps;
};

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

__device__ inline Workers all_warps() {
  return {static_cast<int>(threadIdx.x) / kWarp, static_cast<int>(blockDim.x) / kWarp};
}

__device__ inline std::int32_t warp_maximum(std::int32_t x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x = max(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

__device__ inline long long warp_sum(long long x) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, distance);
  }
  return x;
}

// The sum of x of this lane and of all lanes before it.
__device__ inline std::uint32_t warp_running_sum(std::uint32_t x) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const std::uint32_t before = __shfl_up_sync(kAllLanes, x, distance);
    if (lane_index() >= distance) x += before;
  }
  return x;
}

// ---------------------------------------------------------------- memory

// The areas of memory, a part of the parameters of a kernel.
struct BlockMemory {
  unsigned char* common;
  unsigned char* blocks;
  std::int64_t block_size;

  template <class T>
  __device__ T* operator[](const Array<T>& array) const {
    unsigned char* const base = array.area == Area::shared ? shared_memory<unsigned char>()
                                : array.area == Area::block
                                    ? blocks + std::int64_t{blockIdx.x} * block_size
                                    : common;
    return reinterpret_cast<T*>(base + array.offset);
  }
};

// By all threads of the block.
template <class T>
__device__ void copy_to(T* to, const T* from, std::int64_t size) {
#pragma unroll 1
  for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) to[i] = from[i];
}

// ---------------------------------------------------------------- frequencies

// Long division, 32 bits at a time; the last digit is rounded up.
__device__ inline Ratio make_ratio(std::int32_t codes, std::uint32_t sum) {
  const std::uint32_t numerator = kFrequencyTotal - codes;
  const std::uint64_t high = std::uint64_t{numerator % sum} << 32;
  const std::uint64_t low = high % sum << 32;
  const std::uint64_t last = low / sum + 1;  // may be 2^32
  const std::uint64_t rest = high / sum + (last >> 32);
  return {numerator / sum + static_cast<std::uint32_t>(rest >> 32),
          static_cast<std::uint32_t>(rest), static_cast<std::uint32_t>(last)};
}

// floor(running (2^24 - K) / sum), for running <= sum. Exact: the ratio is too large by at most
// 2^-64, the product by at most 2^-32 of what separates it from the next multiple of 1 / sum.
__device__ inline std::uint32_t times(const Ratio& ratio, std::uint32_t running) {
  const std::uint64_t fraction =
      std::uint64_t{running} * ratio.fraction_high + __umulhi(running, ratio.fraction_low);
  return running * ratio.whole + static_cast<std::uint32_t>(fraction >> 32);
}

// The frequency table of one position: running sums C_0 .. C_K and their ratio.
struct RunningSums {
  const std::uint32_t* sums;
  Ratio ratio;
  std::int32_t codes;

  // F_k
  __device__ std::uint32_t cumulative(std::int32_t k) const { return k + times(ratio, sums[k]); }
};

// The code with F_code * scale <= point < F_(code + 1) * scale, by a warp; point < 2^24 scale.
// Two ballots: which block of 32 codes, which code of it. (Above 1024 codes, more.)
__device__ inline CodeInterval find_code(const RunningSums& table, std::uint64_t scale,
                                         std::uint64_t point) {
  const int lane = lane_index();
  const std::int32_t last = table.codes - 1;
  std::int32_t block = 0;
  for (std::int32_t first = 0; first <= last; first += kWarp * kFrequencyBlock) {
    const std::int32_t k = first + lane * kFrequencyBlock;
    const bool reached = k <= last && table.cumulative(k) * scale <= point;
    const unsigned reached_by = __ballot_sync(kAllLanes, reached);
    block = first / kFrequencyBlock + __popc(reached_by) - 1;
    if (reached_by != kAllLanes) break;
  }
  const std::int32_t k = min(block * kFrequencyBlock + lane, last);
  const std::uint32_t start = table.cumulative(k);
  const std::uint32_t end = table.cumulative(k + 1);
  const bool reached = block * kFrequencyBlock + lane <= last && start * scale <= point;
  const int chosen = __popc(__ballot_sync(kAllLanes, reached)) - 1;
  const std::uint32_t chosen_start = __shfl_sync(kAllLanes, start, chosen);
  const std::uint32_t chosen_end = __shfl_sync(kAllLanes, end, chosen);
  return {block * kFrequencyBlock + chosen, chosen_start, chosen_end - chosen_start};
}

// ---------------------------------------------------------------- stages

// Carries out the stages of one pass.
struct PassRunner {
  const DevicePass& pass;
  const BlockMemory& memory;

  // The row of a ring where row 0 of the first tile is in the slot of step t.
  __device__ std::int32_t row_zero(const Ring& ring, int t) const {
    int slot = t % ring.slots;
    if (slot < 0) slot += ring.slots;
    return slot * pass.tiles * pass.tile_rows + pass.margin - pass.wavefront.rows(t).begin;
  }

  __device__ std::int32_t stream_row(const Stream& stream, int t) const {
    return t < 0 || stream.slots == 0 ? 0 : t % stream.slots * pass.max_positions;
  }

  // -------------------------------------------------------------- before a stage

  // Works out a stage's step t, by one warp: where its inputs lie, and zeros around its outputs.
  // `warps` will carry it out.
  __device__ void prepare(const Stage& stage, int t, int warps, StageStep* result) const {
    const RowRange rows = pass.wavefront.rows(t);
    if (lane_index() == 0) *result = describe(stage, t, rows, warps);
    place_halves(stage, t, rows);
    if (stage.output.slots != 0) clear_margins(stage.output, t, rows);
  }

  __device__ StageStep describe(const Stage& stage, int t, const RowRange& rows, int warps) const {
    StageStep step = {};
    step.t = t;
    step.rows = rows;
    step.count = rows.size() * pass.tiles;
    if (pass.tiles > 1) step.positions = {rows.size(), pass.tile_rows - rows.size()};
    step.before = step.count > 0 ? pass.before[t] : 0;
    step.group = group_size(stage.conv.row_tiles, step.count, warps);
    if (stage.output.slots != 0) step.output_row = row_zero(stage.output, t) + rows.begin;
    step.stream_row = stream_row(stage.stream, t);
    step.condition_row = stream_row(stage.condition, t);
    return step;
  }

  // Column tiles of an item: two, unless that takes longer because warps are left over.
  __device__ static int group_size(int row_tiles, int count, int warps) {
    const int columns = (count + kColumnTile - 1) / kColumnTile;
    const int rounds_of_one = (row_tiles * columns + warps - 1) / warps;
    const int rounds_of_two = (row_tiles * ((columns + 1) / 2) + warps - 1) / warps;
    return rounds_of_one < 2 * rounds_of_two ? 1 : 2;
  }

  __device__ void place_halves(const Stage& stage, int t, const RowRange& rows) const {
    if (stage.conv.mmas == 0) return;
    std::int32_t* const halves = reinterpret_cast<std::int32_t*>(memory[stage.halves]);
    for (int i = lane_index(); i < 2 * stage.conv.mmas; i += kWarp) {
      const Half half = stage.conv.halves[i];
      const int from = t + step_of(half.tap.row, half.tap.column, pass.wavefront.lag);
      const std::int32_t row = row_zero(stage.input, from) + rows.begin + half.tap.row;
      halves[i] = row * (stage.input.stride / kHalf) + half.piece;
    }
  }

  __device__ void clear_margins(const Ring& ring, int t, const RowRange& rows) const {
    const int vectors = ring.stride / kHalf;
    uint4* const first = reinterpret_cast<uint4*>(memory[ring.rows]) +
                         std::int64_t{row_zero(ring, t) + rows.begin} * vectors;
    for (int tile = 0; tile < pass.tiles; ++tile) {
      for (int i = 0; i <= pass.margin; ++i) {
        const int row = tile * pass.tile_rows + (i < pass.margin ? i - pass.margin : rows.size());
        for (int v = lane_index(); v < vectors; v += kWarp) {
          first[std::int64_t{row} * vectors + v] = make_uint4(0, 0, 0, 0);
        }
      }
    }
  }

  // By all threads: a ring as it is before the first step.
  __device__ void clear(const Ring& ring) const {
    uint4* const vectors = reinterpret_cast<uint4*>(memory[ring.rows]);
    const std::int64_t size =
        std::int64_t{ring.slots} * pass.tiles * pass.tile_rows * (ring.stride / kHalf);
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      vectors[i] = make_uint4(0, 0, 0, 0);
    }
  }

  // -------------------------------------------------------------- positions

  // Row and column in the map of position n of a step.
  __device__ Offset place_of(const StageStep& step, int n) const {
    const int row = step.rows.begin + step.positions.place(n);
    return {row, step.t - pass.wavefront.lag * row};
  }
  // Where its code is in the map.
  __device__ std::int64_t cell(const StageStep& step, int n) const {
    const Offset place = place_of(step, n);
    return std::int64_t{place.row} * pass.wavefront.width + place.column;
  }
  // Its number in coding order.
  __device__ std::int32_t order(const StageStep& step, int n) const {
    return step.before + step.positions.place(n);
  }

  // Its row of the stage's output.
  __device__ std::int8_t* output_row(const Stage& stage, const StageStep& step, int n) const {
    return memory[stage.output.rows] +
           (std::int64_t{step.output_row} + step.positions.row(n)) * stage.output.stride;
  }

  // -------------------------------------------------------------- stages

  // One of the stages that do not need the codes of this map.
  __device__ void run_condition(const Stage& stage, const StageStep& step,
                                const Workers& workers) const {
    if (step.count == 0) return;
    if (stage.action == Action::embed_coarser) {
      embed_coarser(stage, step, workers);
    } else {
      convolve<true>(stage, step, {0, step.count}, workers);
    }
  }

  // One of the others.
  __device__ void run_layer(const Stage& stage, const StageStep& step,
                            const Workers& workers) const {
    if (step.count == 0) return;
    if (stage.action == Action::embed_codes) {
      embed_codes(stage, step, workers);
    } else if (stage.action == Action::attend) {
      attend(stage, step, workers);
    } else {
      convolve<false>(stage, step, {0, step.count}, workers);
    }
  }

  // The vectors of all coarser maps, side by side: a warp per position, a lane per map.
  __device__ void embed_coarser(const Stage& stage, const StageStep& step,
                                const Workers& workers) const {
    for (int n = workers.warp; n < step.count; n += workers.warps) {
      const std::int32_t* const* const maps = pass.tile[step.positions.tile(n)].coarser;
      const Offset place = place_of(step, n);
      std::int8_t* const out = output_row(stage, step, n);
      for (int j = lane_index(); j < pass.num_coarser; j += kWarp) {
        const CoarserMap map = pass.coarser[j];
        const int row = place.row / map.factor, column = place.column / map.factor;
        // Another block may have written it while this one ran: not from the first-level cache.
        const std::int64_t code = __ldcg(maps[j] + std::int64_t{row} * map.width + column);
        const int down = place.row - row * map.factor, right = place.column - column * map.factor;
        const std::int8_t* const vector =
            map.table + ((code * map.factor + down) * map.factor + right) * map.channels;
        for (int c = 0; c < map.channels; ++c) out[map.begin + c] = vector[c];
      }
    }
  }

  // A warp per position, a lane per channel.
  __device__ void embed_codes(const Stage& stage, const StageStep& step,
                              const Workers& workers) const {
    const int channels = pass.embedding_channels;
    for (int n = workers.warp; n < step.count; n += workers.warps) {
      const std::int64_t code = pass.tile[step.positions.tile(n)].codes[cell(step, n)];
      const std::int8_t* const vector = pass.embedding + code * channels;
      std::int8_t* const out = output_row(stage, step, n);
      for (int c = lane_index(); c < channels; c += kWarp) out[c] = vector[c];
    }
  }

  // -------------------------------------------------------------- convolutions

  // The sums of an item, in one thread's registers.
  template <int kGroup>
  struct Sums {
    std::int32_t sum[kGroup][4];
    int row;         // of the convolution: that of sum[.][0]; the other one is row + 8
    int first, end;  // positions: that of sum[0][0], and where all end
    int2 shift;      // of both rows

    // Calls use(position, sum of row, sum of row + 8), rounded, for each position.
    template <class Use>
    __device__ void each(const Use& use) const {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const int n = first + j * kColumnTile;
        if (n < end) use(n, sum[j][0] >> shift.x, sum[j][2] >> shift.y);
        if (n + 1 < end) use(n + 1, sum[j][1] >> shift.x, sum[j][3] >> shift.y);
      }
    }
  };

  // The positions columns.begin .. columns.end - 1 of the step.
  template <bool kCondition>
  __device__ void convolve(const Stage& stage, const StageStep& step, const RowRange& columns,
                           const Workers& workers) const {
    if (step.group == 1) {
      convolve_by<kCondition, 1>(stage, step, columns, workers);
    } else {
      convolve_by<kCondition, 2>(stage, step, columns, workers);
    }
  }

  template <bool kCondition, int kGroup>
  __device__ void convolve_by(const Stage& stage, const StageStep& step, const RowRange& columns,
                              const Workers& workers) const {
    const int row_tiles = stage.conv.row_tiles;
    int row_tile = workers.warp, column = columns.begin;
    for (;;) {
      while (row_tile >= row_tiles) {
        row_tile -= row_tiles;
        column += kGroup * kColumnTile;
      }
      if (column >= columns.end) return;
      const Sums<kGroup> sums = multiply<kGroup>(stage, step, columns, row_tile, column);
      finish<kCondition>(stage, step, columns.begin, sums);
      row_tile += workers.warps;
    }
  }

  template <int kGroup>
  __device__ Sums<kGroup> multiply(const Stage& stage, const StageStep& step,
                                   const RowRange& columns, int row_tile, int column) const {
    const int g = lane_index() / 4, q = lane_index() % 4;
    const int row = row_tile * kRowTile + g;
    const int2 low = stage.conv.rounding[row], high = stage.conv.rounding[row + 8];
    Sums<kGroup> sums;
    sums.row = row;
    sums.first = column + 2 * q;
    sums.end = columns.end;
    sums.shift = make_int2(low.y, high.y);
    const std::int8_t* input[kGroup];
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      sums.sum[j][0] = sums.sum[j][1] = low.x;
      sums.sum[j][2] = sums.sum[j][3] = high.x;
      // Columns that do not exist read what the first one reads.
      const int n = column + j * kColumnTile + g;
      const int at = step.positions.row(n < columns.end ? n : columns.begin);
      input[j] = memory[stage.input.rows] + std::int64_t{at} * stage.input.stride + 4 * q;
    }

    const int mmas = stage.conv.mmas;
    const int2* const halves = memory[stage.halves];
    const uint4* const weights =
        (stage.weights.exists() ? memory[stage.weights] : stage.conv.weights) +
        std::int64_t{row_tile} * mmas * kWarp + lane_index();
#pragma unroll 4
    for (int i = 0; i < mmas; ++i) {
      const uint4 w = weights[i * kWarp];
      const std::uint32_t a[4] = {w.x, w.y, w.z, w.w};
      const int2 half = halves[i];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const std::uint32_t b[2] = {word_at(input[j] + std::int64_t{half.x} * kHalf),
                                    word_at(input[j] + std::int64_t{half.y} * kHalf)};
        mma_s8(sums.sum[j], a, b);
      }
    }
    return sums;
  }

  __device__ static std::uint32_t word_at(const std::int8_t* bytes) {
    return *reinterpret_cast<const std::uint32_t*>(bytes);
  }

  // -------------------------------------------------------------- what becomes of sums

  template <bool kCondition, int kGroup>
  __device__ void finish(const Stage& stage, const StageStep& step, int first,
                         const Sums<kGroup>& sums) const {
    if constexpr (kCondition) {
      if (stage.action == Action::condition_inner) return finish_relu(stage, step, sums);
    } else {
      if (stage.action == Action::gate) return finish_gate(stage, step, sums);
      if (stage.action == Action::project) return remember(stage, step, sums);
      if (stage.action == Action::logits) return finish_logits(first, sums);
    }
    finish_stream<kCondition>(stage, step, sums);
  }

  // Rows r and r + 8 are tanh and sigmoid of one channel (prior_network.cu).
  template <int kGroup>
  __device__ void finish_gate(const Stage& stage, const StageStep& step,
                              const Sums<kGroup>& sums) const {
    const PriorTables& tables = *memory[pass.tables];
    std::int8_t* const out =
        output_row(stage, step, 0) + sums.row / kRowTile * (kRowTile / 2) + sums.row % kRowTile;
    const std::int32_t stride = stage.output.stride;
    sums.each([&](int n, std::int32_t a, std::int32_t b) {
      out[std::int64_t{step.positions.row(n)} * stride] =
          static_cast<std::int8_t>(gate(tables.tanh[gate_index(a)], tables.sigmoid[gate_index(b)]));
    });
  }

  template <int kGroup>
  __device__ void finish_relu(const Stage& stage, const StageStep& step,
                              const Sums<kGroup>& sums) const {
    std::int8_t* const out = output_row(stage, step, 0) + sums.row;
    const std::int32_t stride = stage.output.stride;
    sums.each([&](int n, std::int32_t low, std::int32_t high) {
      std::int8_t* const at = out + std::int64_t{step.positions.row(n)} * stride;
      at[0] = static_cast<std::int8_t>(relu(low));
      at[8] = static_cast<std::int8_t>(relu(high));
    });
  }

  // Sums join the stream, or begin it; the next stage reads its activation.
  //
  //                     base of the sum
  //     condition_in    0
  //     first           constant + condition stream
  //     others          stream
  template <bool kCondition, int kGroup>
  __device__ void finish_stream(const Stage& stage, const StageStep& step,
                                const Sums<kGroup>& sums) const {
    std::int16_t* const stream = row_of(stage.stream, step.stream_row) + sums.row;
    const std::int32_t stream_stride = stage.stream.stride;
    std::int8_t* const out = output_row(stage, step, 0) + sums.row;
    const std::int32_t out_stride = stage.output.stride;
    const std::int16_t* base = stream;
    const std::int32_t* constants = nullptr;
    if (stage.action == Action::condition_in) base = nullptr;
    if (!kCondition && stage.action == Action::first) {
      base = stage.condition.slots != 0 ? row_of(stage.condition, step.condition_row) + sums.row
                                        : nullptr;
      constants = pass.constants + sums.row;
    }
    const std::int32_t padded = stage.conv.row_tiles * kRowTile;
    sums.each([&](int n, std::int32_t low, std::int32_t high) {
      std::int32_t x = 0, y = 0;
      if (base != nullptr) {
        x = base[std::int64_t{n} * stream_stride];
        y = base[std::int64_t{n} * stream_stride + 8];
      }
      if (!kCondition && constants != nullptr) {
        const std::int32_t* const of_tile =
            constants + std::int64_t{step.positions.tile(n)} * padded;
        x += of_tile[0];
        y += of_tile[8];
      }
      x = add_to_stream(x, low);
      y = add_to_stream(y, high);
      stream[std::int64_t{n} * stream_stride] = static_cast<std::int16_t>(x);
      stream[std::int64_t{n} * stream_stride + 8] = static_cast<std::int16_t>(y);
      std::int8_t* const at = out + std::int64_t{step.positions.row(n)} * out_stride;
      at[0] = static_cast<std::int8_t>(activation(x));
      at[8] = static_cast<std::int8_t>(activation(y));
    });
  }

  template <int kGroup>
  __device__ void finish_logits(int first, const Sums<kGroup>& sums) const {
    std::int32_t* const out = logits(0) + sums.row;
    const std::int32_t stride = pass.logit_stride;
    sums.each([&](int n, std::int32_t low, std::int32_t high) {
      out[std::int64_t{n - first} * stride] = low;
      out[std::int64_t{n - first} * stride + 8] = high;
    });
  }

  __device__ std::int16_t* row_of(const Stream& stream, std::int32_t row) const {
    return memory[stream.rows] + std::int64_t{row} * stream.stride;
  }

  __device__ std::int32_t* logits(int row) const {
    return memory[pass.logits] + std::int64_t{row} * pass.logit_stride;
  }

  // -------------------------------------------------------------- attention

  __device__ std::int64_t head_of(const KeyStore& keys, int tile, int head) const {
    return (std::int64_t{tile} * pass.heads + head) * keys.capacity * keys.channels;
  }

  // Sums of a projection: channels of queries, keys and values.
  template <int kGroup>
  __device__ void remember(const Stage& stage, const StageStep& step,
                           const Sums<kGroup>& sums) const {
    std::int32_t per_position;
    if (std::int8_t* const at = key_place(stage.keys, sums.row, &per_position)) {
      sums.each([&](int n, std::int32_t x, std::int32_t) {
        at[key_offset(stage.keys, step, n, per_position)] = static_cast<std::int8_t>(saturate8(x));
      });
    }
    if (std::int8_t* const at = key_place(stage.keys, sums.row + 8, &per_position)) {
      sums.each([&](int n, std::int32_t, std::int32_t x) {
        at[key_offset(stage.keys, step, n, per_position)] = static_cast<std::int8_t>(saturate8(x));
      });
    }
  }

  // Where a row of a projection goes for the first position of the first tile (null: nowhere, it
  // fills up a row tile), and how far apart positions are.
  __device__ std::int8_t* key_place(const KeyStore& keys, int row,
                                    std::int32_t* per_position) const {
    const int heads = row / keys.channels, channel = row - heads * keys.channels;
    const int part = heads / pass.heads;
    if (part > 2) return nullptr;
    const std::int64_t begin = head_of(keys, 0, heads - part * pass.heads);
    *per_position = part == 2 ? 1 : keys.channels;
    if (part == 2) return memory[keys.values] + begin + std::int64_t{channel} * keys.capacity;
    return memory[part == 0 ? keys.queries : keys.keys] + begin + channel;
  }

  __device__ std::int64_t key_offset(const KeyStore& keys, const StageStep& step, int n,
                                     std::int32_t per_position) const {
    return head_of(keys, step.positions.tile(n), 0) + std::int64_t{order(step, n)} * per_position;
  }

  // A warp per position and head.
  __device__ void attend(const Stage& stage, const StageStep& step, const Workers& workers) const {
    std::int32_t* const scores =
        memory[pass.scores] + std::int64_t{workers.warp} * pass.score_stride;
    int n = 0, head = workers.warp;
    for (;;) {
      while (head >= pass.heads) head -= pass.heads, ++n;
      if (n >= step.count) return;
      attend_head(stage, step, n, head, scores);
      head += workers.warps;
    }
  }

  // The mean of the values of all positions of earlier steps and of n itself, weighted by
  // exp(score - largest score). Weights are kept as bytes, low and high, less 128 each, four keys
  // to a word, as dp4a takes them:
  //
  //     sum of w v  =  sum of (256 high + low) v  +  (256 * 128 + 128) * sum of v
  //
  // Keys beyond the last one seen have weight zero: -128 twice.
  __device__ void attend_head(const Stage& stage, const StageStep& step, int n, int head,
                              std::int32_t* scores) const {
    const KeyStore& store = stage.keys;
    const std::int64_t begin = head_of(store, step.positions.tile(n), head);
    const std::int32_t seen = step.before, self = order(step, n);
    const std::int8_t* const keys = memory[store.keys] + begin;
    const std::int8_t* const query =
        memory[store.queries] + begin + std::int64_t{self} * store.channels;

    std::int32_t top = dot(query, keys + std::int64_t{self} * store.channels, store.channels);
    const std::int32_t own_score = top;
#pragma unroll 1
    for (std::int32_t key = lane_index(); key < seen; key += kWarp) {
      const std::int32_t score =
          dot(query, keys + std::int64_t{key} * store.channels, store.channels);
      scores[key] = score;
      top = max(top, score);
    }
    top = warp_maximum(top);
    __syncwarp();

    const std::uint32_t own = attention_weight(top, own_score);
    const std::int64_t total = own + weigh_keys(scores, seen, top);
    const std::int8_t* const values = memory[store.values] + begin;
    std::int8_t* const out = output_row(stage, step, n) + head * (pass.hidden / pass.heads);
#pragma unroll 1
    for (int c = 0; c < pass.hidden / pass.heads; c += kChannels) {
      const std::int8_t* const from = values + std::int64_t{c} * store.capacity;
      std::int64_t sum = sum_values(from, store, scores, seen);
      const int channel = c + lane_index();
      if (lane_index() < kChannels && channel < pass.hidden / pass.heads) {
        sum += std::int64_t{own} * from[std::int64_t{lane_index()} * store.capacity + self];
        out[channel] = static_cast<std::int8_t>(attention_mean(sum, total));
      }
    }
    __syncwarp();
  }

  __device__ static std::int32_t dot(const std::int8_t* a, const std::int8_t* b, int channels) {
    std::int32_t sum = 0;
    for (int c = 0; c < channels; c += 4) {
      sum = __dp4a(static_cast<int>(word_at(a + c)), static_cast<int>(word_at(b + c)), sum);
    }
    return sum;
  }

  __device__ std::uint32_t attention_weight(std::int32_t top, std::int32_t score) const {
    const std::uint32_t distance =
        (static_cast<std::uint32_t>(top) - static_cast<std::uint32_t>(score)) >> kScoreShift;
    return memory[pass.tables]->exp[min(distance, static_cast<std::uint32_t>(kExpSize))];
  }

  // Scores become weights, in place: of four keys the low bytes and the high bytes, and nothing.
  // A lane takes four keys at a time, and finds them again in sum_values. Their sum, of all lanes.
  __device__ std::int64_t weigh_keys(std::int32_t* scores, std::int32_t seen,
                                     std::int32_t top) const {
    long long total = 0;
#pragma unroll 1
    for (std::int32_t key = 4 * lane_index(); key < seen; key += 4 * kWarp) {
      std::uint32_t low = 0, high = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t weight = key + i < seen ? attention_weight(top, scores[key + i]) : 0;
        total += weight;
        low |= (weight & 255) << 8 * i;
        high |= (weight >> 8) << 8 * i;
      }
      constexpr std::uint32_t less_128 = 0x80808080u;
      scores[key] = static_cast<std::int32_t>(low ^ less_128);
      scores[key + 1] = static_cast<std::int32_t>(high ^ less_128);
    }
    return warp_sum(total);
  }

  static constexpr int kChannels = 4;       // of values, summed together
  static constexpr int kSegment = 1 << 20;  // keys; of a lane 2^15, whose sums of 2^14 fit int32

  // Weighted sums of kChannels channels of values from `from` on: lane i has that of channel i.
  __device__ std::int64_t sum_values(const std::int8_t* from, const KeyStore& store,
                                     const std::int32_t* weights, std::int32_t seen) const {
    std::int64_t result = 0;
#pragma unroll 1
    for (std::int32_t begin = 0; begin < seen; begin += kSegment) {
      const std::int32_t end = min(begin + kSegment, seen);
      std::int32_t low[kChannels] = {}, high[kChannels] = {}, plain[kChannels] = {};
#pragma unroll 1
      for (std::int32_t key = begin + 4 * lane_index(); key < end; key += 4 * kWarp) {
        const std::int32_t weight_low = weights[key], weight_high = weights[key + 1];
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
          // Heads have whole groups of four channels.
          const auto value =
              static_cast<int>(word_at(from + std::int64_t{i} * store.capacity + key));
          low[i] = __dp4a(weight_low, value, low[i]);
          high[i] = __dp4a(weight_high, value, high[i]);
          plain[i] = __dp4a(0x01010101, value, plain[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
        const long long sum = warp_sum(256ll * high[i] + low[i] + (256ll * 128 + 128) * plain[i]);
        if (lane_index() == i) result += sum;
      }
    }
    return result;
  }

  // -------------------------------------------------------------- frequency tables

  // The first `count` rows of logits become running sums of weights, with their ratios.
  __device__ void make_frequencies(int count, const SamplingRule& rule,
                                   const Workers& workers) const {
    for (int first = workers.warp; first < count; first += kWarp * workers.warps) {
      // One lane for each of up to 32 rows: divisions take long.
      std::uint32_t sum = 1;
      for (int i = 0; i < kWarp; ++i) {
        const int n = first + i * workers.warps;
        if (n >= count) break;
        const std::uint32_t of_row = weigh(logits(n), rule);
        if (lane_index() == i) sum = of_row;
      }
      const int n = first + lane_index() * workers.warps;
      if (n < count) memory[pass.ratios][n] = make_ratio(pass.codes, sum);
    }
  }

  // logits[k] becomes C_k, for k = 0..codes; the result is C_codes. A lane takes four codes at a
  // time.
  __device__ std::uint32_t weigh(std::int32_t* row, const SamplingRule& rule) const {
    int4* const quads = reinterpret_cast<int4*>(row);
    std::int32_t top = row[0];
    for (int k = 4 * lane_index(); k < pass.codes; k += 4 * kWarp) {
      const int4 x = quads[k / 4];
      top = max(top, x.x);
      if (k + 1 < pass.codes) top = max(top, x.y);
      if (k + 2 < pass.codes) top = max(top, x.z);
      if (k + 3 < pass.codes) top = max(top, x.w);
    }
    top = warp_maximum(top);
    const bool whole = rule.nucleus >= SamplingRule::kWholeNucleus;
    const std::uint32_t least = whole ? 0 : lightest(row, top, rule);

    std::uint32_t sum = 0;
    for (int first = 0; first <= pass.codes; first += 4 * kWarp) {
      const int k = first + 4 * lane_index();
      int4 x = make_int4(0, 0, 0, 0);
      if (k <= pass.codes) x = quads[k / 4];
      const std::uint32_t a = weight(top, x.x, k, rule.sharpness, least);
      const std::uint32_t b = weight(top, x.y, k + 1, rule.sharpness, least);
      const std::uint32_t c = weight(top, x.z, k + 2, rule.sharpness, least);
      const std::uint32_t d = weight(top, x.w, k + 3, rule.sharpness, least);
      const std::uint32_t running = sum + warp_running_sum(a + b + c + d);
      const std::uint32_t before = running - (a + b + c + d);
      if (k <= pass.codes) {
        quads[k / 4] =
            make_int4(static_cast<int>(before), static_cast<int>(before + a),
                      static_cast<int>(before + a + b), static_cast<int>(before + a + b + c));
      }
      sum = __shfl_sync(kAllLanes, running, kWarp - 1);
    }
    return sum;
  }

  // The least weight inside the nucleus of a row of logits.
  __device__ std::uint32_t lightest(const std::int32_t* row, std::int32_t top,
                                    const SamplingRule& rule) const {
    const auto sum_from = [&](std::uint32_t least) {
      std::uint32_t sum = 0;
#pragma unroll 1
      for (int k = lane_index(); k < pass.codes; k += kWarp) {
        sum += weight(top, row[k], k, rule.sharpness, least);
      }
      return static_cast<std::uint32_t>(warp_sum(static_cast<long long>(sum)));
    };
    return lightest_in_nucleus(rule, sum_from);
  }

  // Of code k; zero if there is none or if it weighs less than `least`.
  __device__ std::uint32_t weight(std::int32_t top, std::int32_t logit, int k, int sharpness,
                                  std::uint32_t least) const {
    if (k >= pass.codes) return 0;
    const std::uint32_t distance =
        static_cast<std::uint32_t>(top) - static_cast<std::uint32_t>(logit);
    const std::uint64_t index =
        std::uint64_t{distance} * static_cast<std::uint32_t>(sharpness) >> 8;
    const std::uint32_t found = memory[pass.tables]->exp[index < kExpSize ? index : kExpSize];
    return found >= least ? found : 0;
  }

  __device__ RunningSums table(int row) const {
    return {reinterpret_cast<const std::uint32_t*>(logits(row)), memory[pass.ratios][row],
            pass.codes};
  }
};

}  // namespace vqcodec::cuda
