// One pass of an integer prior over a code map: all features between the codes that are known
// and the frequency table of every position.
//
// Features are stored by wavefront step, not by row:
//
//     slot of step t:   [ zeros above ][ the rows that have a position in step t ][ zero ]
//
// Position (r, c) has its neighbour (r + dr, c + dc) in the slot of step t + dc + lag * dr, for
// all positions of the step. So a convolution is one matrix product whose inputs lie side by
// side, and features that no later step reads are forgotten: a few steps of each layer live in a
// ring, some tens of kB that do not grow with the height of the map. (Attention reads all
// earlier positions; its keys and values are kept.)
//
// A pass is a list of stages, each a function of a step:
//
//     coarser codes, lead L          codes known so far, embedded
//          | condition.in                 | first
//          | condition blocks             v
//          '-- lead 0 ----------------->  + -> layers -> logits -> frequency table -> code
//
// A stage with lead d runs d steps ahead. `stepwise` runs all stages at t, then at t + 1: this is
// how maps are decoded. `whole_map` runs each stage at all steps: the codes must be known, and
// the steps of a stage may run in parallel.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/instruction_set.h"
#include "prior/prior_network.h"
#include "coding/frequency_table.h"

namespace vqcodec::cpu {

// A code map, row by row, without gaps.
struct CodeMap {
  const std::int32_t* codes = nullptr;
  int height = 0;
  int width = 0;

  std::int64_t size() const { return std::int64_t{height} * width; }
};

// One picture of a batch.
struct PriorTile {
  int class_id = 0;
  int level = 0;
  const CodeMap* coarser = nullptr;  // the maps before, as many as the prior has
  CodeMap own;
  std::int32_t* chosen = nullptr;  // stepwise: the codes of `own`, to be written
};

// invalid_argument unless the prior can be applied to the tile: number and sizes of the maps,
// class, level. Does not look at codes.
Status check_tile(const PriorNetwork& network, const PriorTile& tile);

// invalid_argument unless all codes of a map are in 0..codes-1. `name` is for the message.
Status check_codes(const CodeMap& map, int codes, const std::string& name);

// Says which code a position has.
class CodeSource {
 public:
  virtual ~CodeSource() = default;

  // Called once for every position; `position` counts in coding order. Calls for one tile come
  // in coding order when the pass is stepwise, in any order and from any thread when it is not.
  virtual std::int32_t choose(int tile, std::int64_t position, const FrequencyTable& table) = 0;
};

enum class Schedule { stepwise, whole_map };

const PriorKernel& prior_kernel(Variant variant);

// A ring of slots of int16 feature rows, as drawn above.
class Plane {
 public:
  Plane() = default;
  // Slots for `num_slots` steps, each with room for `tiles` times `widest` rows.
  Plane(const Wavefront& wavefront, int tiles, int margin, int channels, int num_slots);

  std::int16_t* data() { return data_.data(); }
  std::ptrdiff_t stride() const { return stride_; }
  // Where in data() a row of the first tile is in the slot of step t: one that the slot has, or
  // one of the zeros around them.
  std::ptrdiff_t offset(int t, int row) const;
  // From there to the row `place` rows further down, of another tile, in units of stride().
  int index(int tile, int place) const { return tile * rows_per_tile_ + place; }
  std::size_t bytes() const { return data_.size() * sizeof(std::int16_t); }

  // Zeroes the rows around those of step t.
  void clear_margins(int t);

 private:
  Wavefront wavefront_ = {};
  int tiles_ = 0;
  int margin_ = 0;  // zero rows above
  int rows_per_tile_ = 0;
  int num_slots_ = 0;
  std::ptrdiff_t stride_ = 0;  // of rows
  AlignedVector<std::int16_t> data_;
};

class PriorPass {
 public:
  // Buffers of one thread.
  struct Scratch;

  struct Stage {
    void (PriorPass::*run)(int t, int index, Scratch& scratch);
    int index;  // of the layer or block
    int lead;
  };

  // All tiles pass check_tile and have maps of the same shapes; codes that are read are in range.
  PriorPass(const PriorNetwork& network, Variant variant, Schedule schedule,
            std::vector<PriorTile> tiles, CodeSource& source, const SamplingRule& rule = {});

  const Wavefront& wavefront() const { return wavefront_; }
  const std::vector<Stage>& stages() const { return stages_; }
  std::shared_ptr<Scratch> make_scratch() const;

  // Memory that features take, scratch aside. Stepwise and without attention it depends on the
  // width of the map (or, if that is less, on lag times its height), not on its size.
  std::size_t feature_bytes() const;

  // Runs a stage at step t >= 0. Steps past the last one have no positions, but stages with a
  // lead must run at them, too.
  void run(const Stage& stage, int t, Scratch& scratch) {
    (this->*stage.run)(t, stage.index, scratch);
  }

 private:
  // The positions of a step, tile by tile.
  struct Positions;

  // Keys and values of one attention layer: int8, packed like weights, in coding order.
  struct Memory {
    AlignedVector<std::int8_t> keys;    // tile, head, panel of keys, pair of channels
    AlignedVector<std::int8_t> values;  // tile, head, panel of channels, pair of keys
  };

  void list_stages();
  void allocate();

  void embed_coarser(int t, int, Scratch& scratch);
  void condition_in(int t, int, Scratch& scratch);
  void condition_block(int t, int block, Scratch& scratch);
  void embed_codes(int t, int, Scratch& scratch);
  void first(int t, int, Scratch& scratch);
  void gate_block(int t, int layer, Scratch& scratch);
  void project(int t, int layer, Scratch& scratch);
  void attend(int t, int layer, Scratch& scratch);
  void choose_codes(int t, int, Scratch& scratch);

  Positions positions(int t, Scratch& scratch) const;
  void convolve(const Conv& conv, Plane& inputs, const Positions& at, Scratch& scratch);
  void multiply(const Conv& conv, const FeatureRows<std::int16_t>& inputs, Scratch& scratch);
  void product(const Conv& conv, const FeatureRows<const std::int16_t>& inputs,
               const std::ptrdiff_t* taps, Scratch& scratch);
  FeatureRows<std::int16_t> rows_of(Plane& plane, const Positions& at);
  FeatureRows<std::int16_t> inner_rows(int channels, int count, Scratch& scratch) const;
  void attend_head(int t, int tile, int first, int count, int head, const Memory& memory,
                   Scratch& scratch);

  Plane& input_of(int layer);
  Plane& condition_input_of(int block);
  std::int16_t* stream(int t);
  std::int16_t* condition_stream(int t);
  std::int16_t* qkv(int t);

  const PriorNetwork& network_;
  const PriorKernel& kernel_;
  const Schedule schedule_;
  const SamplingRule rule_;
  const std::vector<PriorTile> tiles_;
  CodeSource& source_;
  const Wavefront wavefront_;
  const int steps_;
  const int max_positions_;  // of a step, all tiles
  std::vector<std::int64_t> offset_;  // position at which a step begins, in coding order
  int key_capacity_ = 0;              // of each head of a Memory
  std::vector<std::uint16_t> exp_;    // of logits; the last entry is zero
  std::vector<std::int32_t> constant_;  // tiles x hidden: class and level
  std::vector<Stage> stages_;

  Plane coarser_;                         // embedded codes of the maps before
  std::vector<Plane> condition_planes_;   // inputs of the conditioning blocks
  Plane codes_;                           // embedded codes of this map
  std::vector<Plane> planes_;             // inputs of the layers, and of the logits
  int stream_slots_ = 0;
  int condition_slots_ = 0;
  AlignedVector<std::int16_t> stream_;            // slot, position, channel
  AlignedVector<std::int16_t> condition_stream_;  // likewise
  AlignedVector<std::int16_t> qkv_;               // likewise, of the attention layer at work
  std::vector<Memory> memory_;                    // by layer
};

}  // namespace vqcodec::cpu
