#include "prior/prior_pass.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"
#include "nn/convolution.h"
#include "prior/prior_arithmetic.h"

namespace vqcodec {
namespace {

constexpr int kLogitRows = 8;       // positions whose logits are computed together
constexpr int kQueryRows = 4;       // queries that look at the keys together
constexpr int kKeyBlock = 1 << 15;  // keys whose weighted values are summed in int32

// A product of at least this many multiply-adds is shared out to all threads, unless they are
// at work on maps already: some 50 microseconds on one core.
constexpr std::int64_t kLargeProduct = std::int64_t{1} << 22;
constexpr int kPanelsPerTask = 8;

int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

// Sets the weights outside the nucleus to zero.
void keep_nucleus(const SamplingRule& rule, std::uint16_t* weights, int codes) {
  const std::uint32_t least = lightest_in_nucleus(rule, [&](std::uint32_t from) {
    std::uint32_t sum = 0;
    for (int k = 0; k < codes; ++k) sum += weights[k] >= from ? weights[k] : 0;
    return sum;
  });
  for (int k = 0; k < codes; ++k) weights[k] = weights[k] >= least ? weights[k] : 0;
}

// Whether all maps of two tiles have the same shapes.
[[maybe_unused]] bool same_shapes(const PriorNetwork& network, const PriorTile& a,
                                  const PriorTile& b) {
  const auto same = [](const CodeMap& x, const CodeMap& y) {
    return x.height == y.height && x.width == y.width;
  };
  return same(a.own, b.own) &&
         std::equal(a.coarser, a.coarser + network.coarser.size(), b.coarser, same);
}

// Tiles as the constructor of a pass expects them.
std::vector<PriorTile> checked(const PriorNetwork& network, Schedule schedule,
                               std::vector<PriorTile> tiles) {
  VQCODEC_ASSERT(!tiles.empty());
  for (const PriorTile& tile : tiles) {
    VQCODEC_ASSERT(check_tile(network, tile).ok());
    VQCODEC_ASSERT(same_shapes(network, tile, tiles.front()));
    // Stepwise, other threads may still be at work on the coarser maps.
    VQCODEC_ASSERT(schedule == Schedule::stepwise || check_known_tile(network, tile).ok());
  }
  return tiles;
}

// The exponential table at distances that are first multiplied by sharpness / 256.
std::vector<std::uint16_t> sharpened(const PriorTables& tables, int sharpness) {
  std::vector<std::uint16_t> table;
  for (std::int64_t distance = 0;; ++distance) {
    const std::int64_t index = (distance * sharpness) >> 8;
    if (index >= kExpSize) break;
    table.push_back(tables.exp[index]);
  }
  table.push_back(0);
  return table;
}

std::vector<std::int64_t> step_offsets(const Wavefront& wavefront) {
  std::vector<std::int64_t> offsets{0};
  for (int t = 0; t < wavefront.steps(); ++t) {
    offsets.push_back(offsets.back() + wavefront.rows(t).size());
  }
  return offsets;
}

}  // namespace

// ---------------------------------------------------------------- buffers

struct PriorPass::Positions {
  int t;
  RowRange rows;              // of every tile
  int count;                  // of all tiles
  const std::int32_t* index;  // Ring::index of each, from the first row of the step
};

struct PriorPass::Scratch {
  std::vector<std::int32_t> index;  // of the rows of a step
  std::vector<std::int32_t> iota;   // 0, 1, 2, ...
  AlignedArray<std::int32_t> sums;
  AlignedArray<std::int32_t> base;
  AlignedArray<std::int16_t> inner;
  std::vector<std::ptrdiff_t> taps;
  // Of the logits of kLogitRows positions, or of the scores of kQueryRows queries.
  AlignedArray<std::uint16_t> weights;
  std::vector<std::uint32_t> before;
  AlignedArray<std::int16_t> split;  // weights in bytes: low, high, low, ...
  std::vector<std::int64_t> mean;
};

PriorPass::PriorPass(const PriorNetwork& network, Variant variant, Schedule schedule,
                     std::vector<PriorTile> tiles, CodeSource& source, const SamplingRule& rule)
    : network_(network),
      kernels_(kernels_of(variant).integer),
      schedule_(schedule),
      rule_(rule),
      tiles_(checked(network, schedule, std::move(tiles))),
      source_(source),
      wavefront_{tiles_[0].own.height, tiles_[0].own.width, network.lag},
      steps_(wavefront_.steps()),
      max_positions_(static_cast<int>(tiles_.size()) * wavefront_.widest()),
      offset_(step_offsets(wavefront_)),
      exp_(sharpened(network.tables, rule.sharpness)) {
  VQCODEC_ASSERT(check_rule(rule).ok());
  for (const PriorTile& tile : tiles_) {
    const std::int16_t* of_class = &network.classes[tile.class_id * network.hidden];
    const std::int16_t* of_level = &network.levels[tile.level * network.hidden];
    for (int c = 0; c < network.hidden; ++c) constant_.push_back(of_class[c] + of_level[c]);
  }
  list_stages();
  allocate();
}

void PriorPass::list_stages() {
  const int lookahead = network_.lag + 1;  // steps to the neighbour at the lower right
  int lead = network_.condition_lead();
  if (!network_.coarser.empty()) {
    stages_.push_back({&PriorPass::embed_coarser, 0, lead});
    stages_.push_back({&PriorPass::condition_in, 0, lead -= lookahead});
    for (std::size_t i = 0; i < network_.condition.size(); ++i) {
      stages_.push_back({&PriorPass::condition_block, static_cast<int>(i), lead -= lookahead});
    }
  }
  const Stage embed = {&PriorPass::embed_codes, 0, 0};
  if (schedule_ == Schedule::whole_map) stages_.push_back(embed);
  stages_.push_back({&PriorPass::first, 0, 0});
  for (std::size_t i = 0; i < network_.layers.size(); ++i) {
    const int layer = static_cast<int>(i);
    if (network_.layers[i].attention) {
      stages_.push_back({&PriorPass::project, layer, 0});
      stages_.push_back({&PriorPass::attend, layer, 0});
    } else {
      stages_.push_back({&PriorPass::gate_block, layer, 0});
    }
  }
  stages_.push_back({&PriorPass::choose_codes, 0, 0});
  if (schedule_ == Schedule::stepwise) stages_.push_back(embed);
}

void PriorPass::allocate() {
  const bool whole = schedule_ == Schedule::whole_map;
  const int tiles = static_cast<int>(tiles_.size());
  const int margin = std::max(network_.reach, 1);
  // Slots for the steps that taps reach, from the first to the last of them. A whole map has a
  // slot for each of its steps, and zeros where taps reach beyond.
  const auto ring = [&](int channels, const std::vector<Offset>& taps) {
    int first = 0, last = 0;
    for (const Offset& tap : taps) {
      first = std::min(first, step_of(tap.row, tap.column, network_.lag));
      last = std::max(last, step_of(tap.row, tap.column, network_.lag));
    }
    return Ring(wavefront_, tiles, margin, channels, last - first + (whole ? steps_ : 1));
  };

  codes_ = ring(network_.embedding_channels, network_.first.taps());
  if (whole) {
    // All layers share two rings: their input and their output.
    std::vector<Offset> taps;
    for (const Block& layer : network_.layers) {
      taps.insert(taps.end(), layer.in.taps().begin(), layer.in.taps().end());
    }
    for (int i = 0; i < 2; ++i) rings_.push_back(ring(network_.hidden, taps));
  } else {
    for (const Block& layer : network_.layers) {
      rings_.push_back(ring(network_.hidden, layer.in.taps()));
    }
    rings_.push_back(ring(network_.hidden, network_.logits.taps()));
  }
  if (!network_.coarser.empty()) {
    const std::vector<Offset>& window = network_.condition_in.taps();
    coarser_ = ring(network_.condition_channels, window);
    // One more for what the last block writes and nobody reads.
    const std::size_t blocks = network_.condition.size() + 1;
    for (std::size_t i = 0; i < (whole ? 2 : blocks); ++i) {
      condition_rings_.push_back(ring(network_.hidden, window));
    }
  }

  const auto rows = [&](int slots, int channels) {
    return AlignedArray<std::int16_t>(static_cast<std::size_t>(slots) * max_positions_ * channels +
                                      1);
  };
  stream_slots_ = whole ? steps_ : 1;
  stream_ = rows(stream_slots_, network_.hidden);
  if (!network_.coarser.empty()) {
    condition_slots_ = whole ? steps_ : network_.condition_lead() - network_.lag;
    condition_stream_ = rows(condition_slots_, network_.hidden);
  }

  key_capacity_ = round_up(static_cast<int>(offset_.back()), kPanel);
  key_stores_.resize(network_.layers.size());
  for (std::size_t i = 0; i < network_.layers.size(); ++i) {
    if (!network_.layers[i].attention) continue;
    if (qkv_.empty()) qkv_ = rows(stream_slots_, 3 * network_.hidden);
    const int channels = network_.hidden / network_.heads;
    const std::size_t keys = static_cast<std::size_t>(tiles) * network_.heads * key_capacity_;
    key_stores_[i].keys = AlignedArray<std::int8_t>(keys * channel_stride(channels));
    key_stores_[i].values = AlignedArray<std::int8_t>(keys * round_up(channels, kPanel));
  }
}

std::size_t PriorPass::feature_bytes() const {
  std::size_t bytes = coarser_.bytes() + codes_.bytes();
  for (const Ring& ring : rings_) bytes += ring.bytes();
  for (const Ring& ring : condition_rings_) bytes += ring.bytes();
  bytes += (stream_.size() + condition_stream_.size() + qkv_.size()) * sizeof(std::int16_t);
  for (const KeyStore& store : key_stores_) bytes += store.keys.size() + store.values.size();
  return bytes;
}

std::shared_ptr<PriorPass::Scratch> PriorPass::make_scratch() const {
  auto scratch = std::make_shared<Scratch>();
  std::size_t outputs = kPanel, channels = 1, taps = 1;
  const auto grow = [&](const Conv& conv) {
    outputs = std::max(outputs, static_cast<std::size_t>(conv.num_panels()) * kPanel);
    channels = std::max(channels, static_cast<std::size_t>(channel_stride(conv.inputs())));
    taps = std::max(taps, conv.taps().size());
  };
  bool attention = false;
  grow(network_.first);
  if (!network_.coarser.empty()) grow(network_.condition_in);
  for (const std::vector<Block>* blocks : {&network_.condition, &network_.layers}) {
    for (const Block& block : *blocks) {
      grow(block.in);
      grow(block.out);
      attention |= block.attention;
    }
  }
  const std::size_t positions = static_cast<std::size_t>(max_positions_);
  const std::size_t logits = static_cast<std::size_t>(network_.logits.num_panels()) * kPanel;
  const std::size_t keys = attention ? static_cast<std::size_t>(key_capacity_) : 0;
  const std::size_t values =
      attention ? static_cast<std::size_t>(round_up(network_.hidden, kPanel)) : 0;

  scratch->index.resize(positions);
  scratch->iota.resize(std::max<std::size_t>(positions, 2 * kQueryRows));
  for (std::size_t i = 0; i < scratch->iota.size(); ++i) {
    scratch->iota[i] = static_cast<std::int32_t>(i);
  }
  scratch->sums = AlignedArray<std::int32_t>(std::max(
      {positions * outputs, kLogitRows * logits, kQueryRows * keys, 2 * kQueryRows * values}));
  scratch->base = AlignedArray<std::int32_t>(positions * network_.hidden);
  scratch->inner = AlignedArray<std::int16_t>(positions * channels);
  scratch->taps.resize(taps);
  scratch->weights = AlignedArray<std::uint16_t>(std::max(logits, keys));
  scratch->before.resize(logits / kFrequencyBlock + 1);
  scratch->split = AlignedArray<std::int16_t>(2 * kQueryRows * keys);
  scratch->mean.resize(2 * kQueryRows * values);
  return scratch;
}

// ---------------------------------------------------------------- helpers

PriorPass::Positions PriorPass::positions(int t, Scratch& scratch) const {
  const RowRange rows = wavefront_.rows(t);
  int count = 0;
  for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
    for (int place = 0; place < rows.size(); ++place) {
      scratch.index[count++] = codes_.index(static_cast<int>(tile), place);
    }
  }
  return {t, rows, count, scratch.index.data()};
}

FeatureRows<std::int16_t> PriorPass::rows_of(Ring& ring, const Positions& at) {
  return {ring.data() + ring.offset(at.t, at.rows.begin), at.index, ring.stride(), at.count};
}

FeatureRows<std::int16_t> PriorPass::inner_rows(int channels, int count, Scratch& scratch) const {
  return {scratch.inner.data(), scratch.iota.data(), channel_stride(channels), count};
}

// scratch.sums = conv at the given positions of a ring.
void PriorPass::convolve(const Conv& conv, Ring& inputs, const Positions& at, Scratch& scratch) {
  if (at.count == 0) return;
  const std::vector<Offset>& taps = conv.taps();
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const int t = at.t + step_of(taps[i].row, taps[i].column, wavefront_.lag);
    scratch.taps[i] = inputs.offset(t, at.rows.begin + taps[i].row);
  }
  product(conv, {inputs.data(), at.index, inputs.stride(), at.count}, scratch.taps.data(), scratch);
}

// scratch.sums = a 1x1 convolution of given rows.
void PriorPass::multiply(const Conv& conv, const FeatureRows<std::int16_t>& inputs,
                         Scratch& scratch) {
  const std::ptrdiff_t tap = 0;
  product(conv, {inputs.base, inputs.rows, inputs.stride, inputs.count}, &tap, scratch);
}

void PriorPass::product(const Conv& conv, const FeatureRows<const std::int16_t>& inputs,
                        const std::ptrdiff_t* taps, Scratch& scratch) {
  const std::ptrdiff_t stride = std::ptrdiff_t{conv.num_panels()} * kPanel;
  if (conv.macs() * inputs.count < kLargeProduct) {
    kernels_.product(conv.packed(), inputs, taps, scratch.sums.data(), stride);
    return;
  }
  parallel_for((conv.num_panels() + kPanelsPerTask - 1) / kPanelsPerTask, [&](std::int64_t task) {
    const int first = static_cast<int>(task) * kPanelsPerTask;
    const int count = std::min(kPanelsPerTask, conv.num_panels() - first);
    kernels_.product(conv.packed(first, count), inputs, taps, &scratch.sums[first * kPanel],
                     stride);
  });
}

// In a whole map every stage is complete before the next, so two rings take turns.
Ring& PriorPass::input_of(int layer) {
  return rings_[schedule_ == Schedule::whole_map ? layer % 2 : layer];
}

Ring& PriorPass::condition_input_of(int block) {
  return condition_rings_[schedule_ == Schedule::whole_map ? block % 2 : block];
}

std::int16_t* PriorPass::stream(int t) {
  const std::size_t row = static_cast<std::size_t>(t % stream_slots_) * max_positions_;
  return stream_.data() + row * network_.hidden;
}

std::int16_t* PriorPass::condition_stream(int t) {
  const std::size_t row = static_cast<std::size_t>(t % condition_slots_) * max_positions_;
  return condition_stream_.data() + row * network_.hidden;
}

std::int16_t* PriorPass::qkv(int t) {
  const std::size_t row = static_cast<std::size_t>(t % stream_slots_) * max_positions_;
  return qkv_.data() + row * 3 * network_.hidden;
}

// ---------------------------------------------------------------- stages

void PriorPass::embed_coarser(int t, int, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  coarser_.clear_margins(t);
  const FeatureRows<std::int16_t> rows = rows_of(coarser_, at);
  int i = 0;
  for (const PriorTile& tile : tiles_) {
    for (int row = at.rows.begin; row < at.rows.end; ++row) {
      const int column = t - wavefront_.lag * row;
      std::int16_t* out = row_of(rows, i++);
      for (std::size_t j = 0; j < network_.coarser.size(); ++j) {
        const PriorNetwork::Coarser& before = network_.coarser[j];
        const CodeMap& map = tile.coarser[j];
        const int f = before.factor;
        const std::size_t code = map.codes[std::int64_t{row / f} * map.width + column / f];
        VQCODEC_ASSERT(code < static_cast<std::size_t>(before.codes));
        const std::size_t place = row % f * f + column % f;
        const std::int8_t* vector = &before.table[(code * f * f + place) * before.channels];
        out = std::copy_n(vector, before.channels, out);
      }
    }
  }
}

void PriorPass::condition_in(int t, int, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  convolve(network_.condition_in, coarser_, at, scratch);
  Ring& next = condition_input_of(0);
  next.clear_margins(t);
  std::fill_n(scratch.base.data(), at.count * network_.hidden, 0);
  kernels_.begin_stream(scratch.sums.data(), network_.condition_in.num_panels() * kPanel,
                        network_.hidden, scratch.base.data(), condition_stream(t),
                        rows_of(next, at));
}

void PriorPass::condition_block(int t, int block, Scratch& scratch) {
  const Block& condition = network_.condition[block];
  const Positions at = positions(t, scratch);
  convolve(condition.in, condition_input_of(block), at, scratch);
  const int channels = condition.in.outputs();
  const FeatureRows<std::int16_t> inner = inner_rows(channels, at.count, scratch);
  kernels_.clamp(scratch.sums.data(), condition.in.num_panels() * kPanel, channels, 0, inner);
  multiply(condition.out, inner, scratch);
  Ring& next = condition_input_of(block + 1);
  next.clear_margins(t);
  kernels_.add_to_stream(scratch.sums.data(), condition.out.num_panels() * kPanel, network_.hidden,
                         condition_stream(t), rows_of(next, at));
}

void PriorPass::embed_codes(int t, int, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  codes_.clear_margins(t);
  const FeatureRows<std::int16_t> out = rows_of(codes_, at);
  const int channels = network_.embedding_channels;
  int i = 0;
  for (const PriorTile& tile : tiles_) {
    for (int row = at.rows.begin; row < at.rows.end; ++row) {
      const int column = t - wavefront_.lag * row;
      const std::size_t code = tile.own.codes[std::int64_t{row} * wavefront_.width + column];
      VQCODEC_ASSERT(code < static_cast<std::size_t>(network_.codes));
      std::copy_n(&network_.embedding[code * channels], channels, row_of(out, i++));
    }
  }
}

void PriorPass::first(int t, int, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  convolve(network_.first, codes_, at, scratch);
  const int hidden = network_.hidden;
  for (int i = 0; i < at.count; ++i) {
    const std::int32_t* constant = &constant_[i / at.rows.size() * hidden];
    std::copy_n(constant, hidden, &scratch.base[i * hidden]);
  }
  if (!network_.coarser.empty()) {
    const std::int16_t* condition = condition_stream(t);
    for (int i = 0; i < at.count * hidden; ++i) scratch.base[i] += condition[i];
  }
  Ring& next = input_of(0);
  next.clear_margins(t);
  kernels_.begin_stream(scratch.sums.data(), network_.first.num_panels() * kPanel, hidden,
                        scratch.base.data(), stream(t), rows_of(next, at));
}

void PriorPass::gate_block(int t, int layer, Scratch& scratch) {
  const Block& block = network_.layers[layer];
  const Positions at = positions(t, scratch);
  convolve(block.in, input_of(layer), at, scratch);
  const int channels = block.out.inputs();
  const FeatureRows<std::int16_t> inner = inner_rows(channels, at.count, scratch);
  kernels_.gate(scratch.sums.data(), block.in.num_panels() * kPanel, channels, network_.tables.tanh,
                network_.tables.sigmoid, inner);
  multiply(block.out, inner, scratch);
  Ring& next = input_of(layer + 1);
  next.clear_margins(t);
  kernels_.add_to_stream(scratch.sums.data(), block.out.num_panels() * kPanel, network_.hidden,
                         stream(t), rows_of(next, at));
}

// Queries, keys and values of a step; keys and values join those of the steps before.
void PriorPass::project(int t, int layer, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  const Conv& conv = network_.layers[layer].in;
  convolve(conv, input_of(layer), at, scratch);
  const int hidden = network_.hidden;
  std::int16_t* const rows = qkv(t);
  kernels_.clamp(scratch.sums.data(), conv.num_panels() * kPanel, 3 * hidden, -128,
                 {rows, scratch.iota.data(), 3 * hidden, at.count});

  KeyStore& store = key_stores_[layer];
  const int channels = hidden / network_.heads;
  const std::size_t capacity = static_cast<std::size_t>(key_capacity_);
  for (int i = 0; i < at.count; ++i) {
    const int tile = i / at.rows.size();
    const std::size_t key = static_cast<std::size_t>(offset_[t]) + i % at.rows.size();
    for (int head = 0; head < network_.heads; ++head) {
      const std::size_t begin = (static_cast<std::size_t>(tile) * network_.heads + head) * capacity;
      std::int8_t* const keys = &store.keys[begin * channel_stride(channels)];
      std::int8_t* const values = &store.values[begin * round_up(channels, kPanel)];
      const std::ptrdiff_t row = std::ptrdiff_t{i} * 3 * hidden;
      const std::int16_t* const k = rows + row + hidden + head * channels;
      const std::int16_t* const v = k + hidden;
      for (int c = 0; c < channels; ++c) {
        const std::size_t key_pair = key / kPanel * (channel_stride(channels) / 2) + c / 2;
        keys[(key_pair * kPanel + key % kPanel) * 2 + c % 2] = static_cast<std::int8_t>(k[c]);
        const std::size_t value_pair = c / kPanel * (capacity / 2) + key / 2;
        values[(value_pair * kPanel + c % kPanel) * 2 + key % 2] = static_cast<std::int8_t>(v[c]);
      }
    }
  }
}

void PriorPass::attend(int t, int layer, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  const Conv& conv = network_.layers[layer].out;
  const int per_tile = at.rows.size();
  for (int tile = 0; tile < static_cast<int>(tiles_.size()); ++tile) {
    for (int first = 0; first < per_tile; first += kQueryRows) {
      const int count = std::min(kQueryRows, per_tile - first);
      for (int head = 0; head < network_.heads; ++head) {
        attend_head(t, tile, first, count, head, key_stores_[layer], scratch);
      }
    }
  }
  multiply(conv, inner_rows(network_.hidden, at.count, scratch), scratch);
  Ring& next = input_of(layer + 1);
  next.clear_margins(t);
  kernels_.add_to_stream(scratch.sums.data(), conv.num_panels() * kPanel, network_.hidden,
                         stream(t), rows_of(next, at));
}

// Attention of one head for rows first..first+count-1 of a tile's part of a step: into
// scratch.inner. A query sees the positions of earlier steps and itself.
void PriorPass::attend_head(int t, int tile, int first, int count, int head, const KeyStore& store,
                            Scratch& scratch) {
  const int hidden = network_.hidden;
  const int channels = hidden / network_.heads;
  const int per_tile = wavefront_.rows(t).size();
  const std::size_t capacity = static_cast<std::size_t>(key_capacity_);
  const std::size_t begin = (static_cast<std::size_t>(tile) * network_.heads + head) * capacity;
  const int seen = static_cast<int>(offset_[t]);
  const int known = round_up(static_cast<int>(offset_[t + 1]), kPanel);
  const std::ptrdiff_t no_tap = 0;

  // Scores of all keys.
  const int key_pairs = channel_stride(channels) / 2;
  const PackedConv keys = {&store.keys[begin * channel_stride(channels)],
                           nullptr,
                           nullptr,
                           std::ptrdiff_t{key_pairs} * kPanel * 2,
                           known / kPanel,
                           1,
                           key_pairs};
  const std::int16_t* const queries =
      qkv(t) + (std::ptrdiff_t{tile} * per_tile + first) * 3 * hidden + head * channels;
  kernels_.product(keys, {queries, scratch.iota.data(), 3 * hidden, count}, &no_tap,
                   scratch.sums.data(), known);

  // Weights, split into bytes: rows 2 i and 2 i + 1.
  std::int64_t total[kQueryRows];
  for (int i = 0; i < count; ++i) {
    const std::int32_t* const scores = &scratch.sums[std::ptrdiff_t{i} * known];
    const int self = seen + first + i;
    std::int32_t top = scores[self];
    if (seen > 0) top = std::max(top, kernels_.maximum(scores, seen));
    std::uint16_t* const weights = scratch.weights.data();
    kernels_.weigh(scores, seen, top, kScoreShift, network_.tables.exp, kExpSize, weights);
    std::uint16_t own;
    kernels_.weigh(scores + self, 1, top, kScoreShift, network_.tables.exp, kExpSize, &own);
    total[i] = static_cast<std::int64_t>(kernels_.sum(weights, seen)) + own;

    std::int16_t* const low = &scratch.split[std::ptrdiff_t{2} * i * known];
    std::int16_t* const high = low + known;
    std::fill(low + seen, low + known, 0);
    std::fill(high + seen, high + known, 0);
    for (int k = 0; k < seen; ++k) {
      low[k] = weights[k] & 255;
      high[k] = static_cast<std::int16_t>(weights[k] >> 8);
    }
    low[self] = own & 255;
    high[self] = static_cast<std::int16_t>(own >> 8);
  }

  // Weighted sums of values.
  const int panels = (channels + kPanel - 1) / kPanel;
  const std::ptrdiff_t width = std::ptrdiff_t{panels} * kPanel;
  std::fill_n(scratch.mean.data(), 2 * count * width, 0);
  for (int key = 0; key < known; key += kKeyBlock) {
    const std::int8_t* const from =
        &store.values[begin * round_up(channels, kPanel)] + std::ptrdiff_t{key} * kPanel;
    const PackedConv values = {from,
                               nullptr,
                               nullptr,
                               static_cast<std::ptrdiff_t>(capacity) * kPanel,
                               panels,
                               1,
                               std::min(kKeyBlock, known - key) / 2};
    kernels_.product(values, {scratch.split.data() + key, scratch.iota.data(), known, 2 * count},
                     &no_tap, scratch.sums.data(), width);
    for (std::ptrdiff_t i = 0; i < 2 * count * width; ++i) scratch.mean[i] += scratch.sums[i];
  }
  for (int i = 0; i < count; ++i) {
    const std::int64_t* const low = &scratch.mean[2 * i * width];
    const std::int64_t* const high = low + width;
    std::int16_t* const out =
        &scratch.inner[(std::ptrdiff_t{tile} * per_tile + first + i) * channel_stride(hidden) +
                       head * channels];
    for (int c = 0; c < channels; ++c) {
      out[c] = static_cast<std::int16_t>(attention_mean(low[c] + 256 * high[c], total[i]));
    }
  }
}

void PriorPass::choose_codes(int t, int, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  const Conv& conv = network_.logits;
  const int codes = network_.codes;
  const std::ptrdiff_t width = std::ptrdiff_t{conv.num_panels()} * kPanel;
  FeatureRows<std::int16_t> inputs =
      rows_of(input_of(static_cast<int>(network_.layers.size())), at);
  for (int first = 0; first < at.count; first += kLogitRows) {
    inputs.rows = at.index + first;
    inputs.count = std::min(kLogitRows, at.count - first);
    multiply(conv, inputs, scratch);
    for (int i = 0; i < inputs.count; ++i) {
      const std::int32_t* const logits = &scratch.sums[i * width];
      std::uint16_t* const weights = scratch.weights.data();
      kernels_.weigh(logits, codes, kernels_.maximum(logits, codes), 0, exp_.data(),
                     static_cast<std::uint32_t>(exp_.size() - 1), weights);
      if (rule_.nucleus < SamplingRule::kWholeNucleus) keep_nucleus(rule_, weights, codes);
      std::uint32_t sum = 0;
      for (int k = 0; k < codes; k += kFrequencyBlock) {
        scratch.before[k / kFrequencyBlock] = sum;
        sum += static_cast<std::uint32_t>(
            kernels_.sum(weights + k, std::min(kFrequencyBlock, codes - k)));
      }
      const int tile = (first + i) / at.rows.size();
      const int place = (first + i) % at.rows.size();
      const int row = at.rows.begin + place;
      const std::int64_t cell = std::int64_t{row} * wavefront_.width + t - wavefront_.lag * row;
      const std::int32_t code =
          source_.choose(tile, offset_[t] + place, {weights, scratch.before.data(), sum, codes});
      if (schedule_ == Schedule::stepwise) tiles_[tile].chosen[cell] = code;
    }
  }
}

}  // namespace vqcodec
