// What a block of threads computes when it applies an integer prior to maps: the host plans it
// here, the kernels carry it out with the functions of prior_layers.cuh.
//
// As in prior/prior_pass.h, features are stored by wavefront step. A ring has a slot for each
// of the last few steps (or, for a whole map that is known, for every step):
//
//     slot of step t:   [ zeros above ][ the rows that have a position in step t ][ zero ]
//
// Position (r, c) has its neighbour (r + dr, c + dc) in the slot of step t + dc + lag * dr, for
// all positions of the step. So a convolution is one matrix product,
//
//     outputs x positions  +=  (outputs x K)  *  (K x positions)
//                              weights           rows of the input's ring
//
// with K = the 16-byte pieces ("halves") of all taps. Two halves make the 32 of one mma_s8:
//
//     3 taps, 48 channels:   half   0     1     2     3     4     5     6     7     8     -
//                            tap    0     0     0     1     1     1     2     2     2   zeros
//                            from   0    16    32     0    16    32     0    16    32
//                            mma   '----0----' '----1----' '----2----' '----3----' '----4----'
//
// A pass is a list of stages, each a convolution and what becomes of its sums:
//
//     coarser codes      embed_coarser                    codes so far        embed_codes
//         |              condition_in                         |               first
//         |              condition_inner, condition_out       v               gate, add
//         '---------- condition stream ------------------->   + -> stream     project, attend, add
//                                                                  |          logits
//                                                                  v
//                                                           frequency table -> code
//
// Stepwise (wavefront.cu), the stages before `first` do not need the codes of this map. Each runs
// some steps ahead ("lead"), and a step further than it must: so all of them can run side by side,
// while other threads decode the codes of the step.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/host_device.h"
#include "coding/wavefront_order.h"
#include "cuda/memory.h"
#include "cuda/prior_network.h"
#include "prior/prior_arithmetic.h"
#include "prior/schedule.h"

namespace vqcodec::cuda {

// ---------------------------------------------------------------- memory

// Where an array lies: in the block's shared memory, in its own part of global memory, or in
// global memory of all blocks.
enum class Area : std::int32_t { shared, block, common };

template <class T>
struct Array {
  Area area = Area::common;
  std::int64_t offset = -1;  // in bytes; -1: there is none

  VQCODEC_HOST_DEVICE bool exists() const { return offset >= 0; }
};

// Places arrays. Those that are asked for first get the shared memory.
class MemoryPlan {
 public:
  explicit MemoryPlan(std::int64_t shared_limit) : shared_limit_(shared_limit) {}

  template <class T>
  Array<T> place(Area area, std::int64_t size) {
    std::int64_t& used = used_[static_cast<int>(area)];
    const Array<T> array = {area, used};
    used += bytes<T>(size);
    return array;
  }
  // In shared memory while there is some, else in the block's part of global memory.
  template <class T>
  Array<T> place_hot(std::int64_t size) {
    return place<T>(fits<T>(size) ? Area::shared : Area::block, size);
  }
  template <class T>
  bool fits(std::int64_t size) const {
    return used(Area::shared) + bytes<T>(size) <= shared_limit_;
  }
  std::int64_t used(Area area) const { return used_[static_cast<int>(area)]; }

 private:
  template <class T>
  static std::int64_t bytes(std::int64_t size) {
    return round_up(size * static_cast<std::int64_t>(sizeof(T)), 16);
  }

  std::int64_t shared_limit_;
  std::int64_t used_[3] = {};
};

// ---------------------------------------------------------------- features

// int8 rows, one for each position of a step, as drawn above. Rows are `stride` bytes apart: an
// odd multiple of 16, so that the eight rows that a warp reads together lie in different banks.
struct Ring {
  Array<std::int8_t> rows;
  std::int32_t slots = 0;
  std::int32_t stride = 0;
};

// int16 rows, positions of a step side by side, without margins.
struct Stream {
  Array<std::int16_t> rows;
  std::int32_t slots = 0;
  std::int32_t stride = 0;  // elements
};

// What attention remembers, by tile, head and position in coding order. `channels` of a head,
// padded with zeros to a multiple of four.
struct KeyStore {
  Array<std::int8_t> queries;  // tile, head, position, channel
  Array<std::int8_t> keys;     // likewise
  Array<std::int8_t> values;   // tile, head, channel, position
  std::int32_t capacity = 0;   // positions
  std::int32_t channels = 0;   // of a head, padded
};

// ---------------------------------------------------------------- stages

enum class Action : std::int32_t {
  embed_coarser,    // output = vectors of the coarser maps' codes
  condition_in,     // stream = sums; output = activation
  condition_inner,  // output = relu(sums)
  condition_out,    // stream += sums; output = activation
  embed_codes,      // output = vectors of this map's codes
  first,            // stream = constant + condition stream + sums; output = activation
  gate,             // output = tanh * sigmoid
  add,              // stream += sums; output = activation
  project,          // queries, keys, values = sums
  attend,           // output = weighted means of values
  logits,
};

// The positions of a step are counted through all tiles: n = tile * rows + place.
struct Positions {
  std::int32_t per_tile;  // rows of the step; 0 if there is only one tile
  std::int32_t gap;       // rows of a ring between the last position of a tile and the next tile

  VQCODEC_HOST_DEVICE int tile(int n) const { return per_tile == 0 ? 0 : n / per_tile; }
  VQCODEC_HOST_DEVICE int place(int n) const { return n - tile(n) * per_tile; }
  // Row of a ring's slot, from that of position 0.
  VQCODEC_HOST_DEVICE int row(int n) const { return n + tile(n) * gap; }
};

// What a stage needs to know about one step, worked out once for all threads (prepare).
struct StageStep {
  std::int32_t t;
  RowRange rows;       // of every tile
  std::int32_t count;  // positions of all tiles
  Positions positions;
  std::int32_t before;      // positions of earlier steps, of one tile
  std::int32_t group;       // column tiles that a warp computes together: 1 or 2
  std::int32_t output_row;  // of position 0, in the ring of the output
  std::int32_t stream_row;
  std::int32_t condition_row;
};

struct Stage {
  Action action = Action::embed_coarser;
  std::int32_t lead = 0;  // steps ahead
  Conv conv;              // none for embed_* and attend
  Array<uint4> weights;   // a copy of conv.weights, if there is room
  Ring input, output;
  Stream stream;
  Stream condition;  // first: what the conditioning stack made, if there is one
  KeyStore keys;
  Array<int2> halves;  // for every mma: where its two halves begin, in units of kHalf bytes
};

struct CoarserMap {
  const std::int8_t* table;  // code, place in the factor x factor square, channel
  std::int32_t factor;
  std::int32_t channels;
  std::int32_t begin;  // the first of its channels among those of all coarser maps
  std::int32_t width;  // of the map
};

// (2^24 - K) / (sum of the weights of a position) as a binary fraction, rounded up: what turns
// running sums into cumulative frequencies (coding/frequency_table.h) without a division.
struct Ratio {
  std::uint32_t whole;
  std::uint32_t fraction_high;
  std::uint32_t fraction_low;
};

// One picture of a group. The maps are in device memory.
struct DeviceTile {
  std::int32_t* codes;                 // of this map
  const std::int32_t* const* coarser;  // codes of the maps before
};

// A pass as the kernels read it: everything about one map of a group of equally shaped pictures.
// Pointers are to device memory.
struct DevicePass {
  Wavefront wavefront;
  std::int32_t tiles;
  std::int32_t margin;         // zero rows above
  std::int32_t tile_rows;      // rows of one tile in a slot: margin, widest step, one zero
  std::int32_t max_positions;  // of a step, all tiles
  std::int32_t hidden;
  std::int32_t codes;
  std::int32_t embedding_channels;
  std::int32_t heads;
  std::int32_t num_coarser;

  // Stages in order of execution; the first `num_ahead` do not depend on this map's codes.
  std::int32_t num_stages;
  std::int32_t num_ahead;
  const Stage* stages;            // the kernel copies them to `stage`
  const std::int32_t* before;     // positions of earlier steps, of one tile
  const std::int32_t* constants;  // tile, channel (padded to 16): class and level
  const DeviceTile* tile;
  const CoarserMap* coarser;
  const std::int8_t* embedding;
  const PriorTables* network_tables;  // likewise, to `tables`

  Array<PriorTables> tables;
  Array<Stage> stage;
  Array<StageStep> steps;  // of every stage

  // Logits of `logit_rows` positions; then, in place, running sums of their weights.
  Array<std::int32_t> logits;
  std::int32_t logit_rows;
  std::int32_t logit_stride;
  Array<Ratio> ratios;  // of those positions

  // Attention: for every warp one int32 per position of the map.
  Array<std::int32_t> scores;
  std::int32_t score_stride;
};

// ---------------------------------------------------------------- planning

// A pass, planned: what DevicePass points to, until it is copied to the device. Carried out by
// PassRunner (prior_layers.cuh).
class PriorPass {
 public:
  // For `tiles` maps of the same shape. `warps` of a block: attention has buffers for each.
  PriorPass(const PriorNetwork& network, int height, int width, int tiles, Schedule schedule,
            int warps, MemoryPlan* memory);
  PriorPass(const PriorPass&) = delete;
  PriorPass& operator=(const PriorPass&) = delete;

  // The next tile: device addresses of its maps' codes.
  void add_tile(int class_id, int level, std::int32_t* codes,
                std::vector<const std::int32_t*> coarser);
  // Widths of the coarser maps, of all tiles.
  void set_coarser_width(int map, int width) { coarser_[map].width = width; }

  // Sets *result, to point to arrays of the image once that is uploaded.
  void add_to(DeviceImage* image, DevicePass* result);

  // unsupported: a ring is too large for its indices.
  const Status& status() const { return status_; }

 private:
  void list_layers();
  void list_condition(Stage* first);
  Stage& add_stage(Action action, int lead, const Ring& input, const Ring& output,
                   const Stream& stream, const Conv* conv = nullptr);
  void place_weights();
  Ring place_ring(int channels, int writer_lead, int reader_lead, const vqcodec::Conv* reader);
  Stream place_stream(int slots);
  KeyStore place_keys();
  void place_scores(int warps);

  const PriorNetwork& network_;
  const Schedule schedule_;
  MemoryPlan& memory_;
  DevicePass pass_ = {};
  std::vector<Stage> stages_;
  std::vector<std::int32_t> before_;
  std::vector<std::int32_t> constants_;
  std::vector<DeviceTile> tiles_;
  std::vector<std::vector<const std::int32_t*>> coarser_codes_;
  std::vector<CoarserMap> coarser_;
  Status status_;
};

}  // namespace vqcodec::cuda
