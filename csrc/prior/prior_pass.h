// One pass of an integer prior over a code map: all features between the codes that are known
// and the frequency table of every position.
//
// Features are stored by wavefront step, not by row (prior/ring.h), so that a convolution is one
// matrix product whose inputs lie side by side, and features that no later step reads are
// forgotten: a few steps of each layer live in a ring, some tens of kB that do not grow with the
// height of the map. (Attention reads all earlier positions; its keys and values are kept.)
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
#include <vector>

#include "base/aligned_array.h"
#include "coding/frequency_table.h"
#include "coding/sampling_rule.h"
#include "coding/wavefront_order.h"
#include "nn/instruction_set.h"
#include "nn/kernels.h"
#include "prior/prior_network.h"
#include "prior/ring.h"
#include "prior/schedule.h"
#include "prior/tiles.h"

namespace vqcodec {

// Says which code a position has.
class CodeSource {
 public:
  virtual ~CodeSource() = default;

  // Called once for every position; `position` counts in coding order. Calls for one tile come
  // in coding order when the pass is stepwise, in any order and from any thread when it is not.
  virtual std::int32_t choose(int tile, std::int64_t position, const FrequencyTable& table) = 0;
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

  // What one attention layer remembers: keys and values, int8, packed like weights, in coding
  // order.
  struct KeyStore {
    AlignedArray<std::int8_t> keys;    // tile, head, panel of keys, pair of channels
    AlignedArray<std::int8_t> values;  // tile, head, panel of channels, pair of keys
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
  void convolve(const Conv& conv, Ring& inputs, const Positions& at, Scratch& scratch);
  void multiply(const Conv& conv, const FeatureRows<std::int16_t>& inputs, Scratch& scratch);
  void product(const Conv& conv, const FeatureRows<const std::int16_t>& inputs,
               const std::ptrdiff_t* taps, Scratch& scratch);
  FeatureRows<std::int16_t> rows_of(Ring& ring, const Positions& at);
  FeatureRows<std::int16_t> inner_rows(int channels, int count, Scratch& scratch) const;
  void attend_head(int t, int tile, int first, int count, int head, const KeyStore& store,
                   Scratch& scratch);

  Ring& input_of(int layer);
  Ring& condition_input_of(int block);
  std::int16_t* stream(int t);
  std::int16_t* condition_stream(int t);
  std::int16_t* qkv(int t);

  const PriorNetwork& network_;
  const IntegerKernels& kernels_;
  const Schedule schedule_;
  const SamplingRule rule_;
  const std::vector<PriorTile> tiles_;
  CodeSource& source_;
  const Wavefront wavefront_;
  const int steps_;
  const int max_positions_;             // of a step, all tiles
  std::vector<std::int64_t> offset_;    // position at which a step begins, in coding order
  int key_capacity_ = 0;                // of each head of a KeyStore
  std::vector<std::uint16_t> exp_;      // of logits; the last entry is zero
  std::vector<std::int32_t> constant_;  // tiles x hidden: class and level
  std::vector<Stage> stages_;

  Ring coarser_;                       // embedded codes of the maps before
  std::vector<Ring> condition_rings_;  // inputs of the conditioning blocks
  Ring codes_;                         // embedded codes of this map
  std::vector<Ring> rings_;            // inputs of the layers, and of the logits
  int stream_slots_ = 0;
  int condition_slots_ = 0;
  AlignedArray<std::int16_t> stream_;            // slot, position, channel
  AlignedArray<std::int16_t> condition_stream_;  // likewise
  AlignedArray<std::int16_t> qkv_;               // likewise, of the attention layer at work
  std::vector<KeyStore> key_stores_;             // by layer
};

}  // namespace vqcodec
