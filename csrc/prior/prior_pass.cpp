#include "prior/prior_pass.h"

#include <algorithm>
#include <utility>

#include "base/thread_pool.h"

namespace vqcodec::cpu {
namespace {

constexpr int kLogitRows = 8;        // positions whose logits are computed together
constexpr int kQueryRows = 4;        // queries that look at the keys together
constexpr int kKeyBlock = 1 << 15;   // keys whose weighted values are summed in int32

// A product of at least this many multiply-adds is shared out to all threads, unless they are
// at work on maps already: some 50 microseconds on one core.
constexpr std::int64_t kLargeProduct = std::int64_t{1} << 22;
constexpr int kPanelsPerTask = 8;

int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

int positive_modulo(int x, int n) { return (x % n + n) % n; }

int channel_stride(int channels) { return round_up(channels, 2); }

// Sets the weights outside the nucleus to zero.
void keep_nucleus(const SamplingRule& rule, std::uint16_t* weights, int codes) {
  const auto sum_from = [&](std::uint32_t least) {
    std::uint32_t sum = 0;
    for (int k = 0; k < codes; ++k) sum += weights[k] >= least ? weights[k] : 0;
    return sum;
  };
  const std::uint32_t sum = sum_from(0);
  std::uint32_t low = 0, high = 65535;  // the lightest weight that stays: enough from low on
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    if (rule.enough(sum_from(middle), sum)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  for (int k = 0; k < codes; ++k) weights[k] = weights[k] >= low ? weights[k] : 0;
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

const PriorKernel& prior_kernel(Variant variant) {
#ifdef VQCODEC_X86
  switch (variant) {
    case Variant::scalar: break;
    case Variant::avx2: return kPriorAvx2;
    case Variant::avx512: return kPriorAvx512;
  }
#else
  (void)variant;
#endif
  return kPriorScalar;
}

Status check_tile(const PriorNetwork& network, const PriorTile& tile) {
  const auto expect = [](const std::string& what, std::int64_t found, std::int64_t low,
                         std::int64_t high) {
    if (low <= found && found <= high) return Status();
    return Status::invalid_argument(what + " must be in " + std::to_string(low) + ".." +
                                    std::to_string(high) + ", got " + std::to_string(found));
  };
  constexpr int max_side = 1 << 20;
  Status status = expect("class", tile.class_id, 0, network.num_classes - 1);
  if (status.ok()) status = expect("level", tile.level, 0, network.num_levels - 1);
  if (status.ok()) status = expect("height of a map", tile.own.height, 1, max_side);
  if (status.ok()) status = expect("width of a map", tile.own.width, 1, max_side);
  if (status.ok()) status = expect("codes of a map", tile.own.size(), 1, std::int64_t{1} << 28);
  for (std::size_t j = 0; status.ok() && j < network.coarser.size(); ++j) {
    const CodeMap& map = tile.coarser[j];
    const int factor = network.coarser[j].factor;
    status = expect("height of a coarser map", map.height,
                    (tile.own.height - 1) / factor + 1, max_side);
    if (!status.ok()) break;
    status = expect("width of a coarser map", map.width, (tile.own.width - 1) / factor + 1,
                    max_side);
  }
  return status;
}

Status check_codes(const CodeMap& map, int codes, const std::string& name) {
  for (std::int64_t i = 0; i < map.size(); ++i) {
    if (map.codes[i] < 0 || map.codes[i] >= codes) {
      return Status::invalid_argument(name + ": codes must be in 0.." + std::to_string(codes - 1) +
                                      ", got " + std::to_string(map.codes[i]));
    }
  }
  return {};
}

// ---------------------------------------------------------------- planes

Plane::Plane(const Wavefront& wavefront, int tiles, int margin, int channels, int num_slots)
    : wavefront_(wavefront),
      tiles_(tiles),
      margin_(margin),
      rows_per_tile_(margin + wavefront.widest() + 1),
      num_slots_(num_slots),
      stride_(channel_stride(channels)),
      data_(static_cast<std::size_t>(num_slots) * tiles * rows_per_tile_ * stride_, 0) {}

std::ptrdiff_t Plane::offset(int t, int row) const {
  const std::ptrdiff_t slot = positive_modulo(t, num_slots_);
  return (slot * tiles_ * rows_per_tile_ + margin_ + row - wavefront_.rows(t).begin) * stride_;
}

void Plane::clear_margins(int t) {
  const RowRange rows = wavefront_.rows(t);
  for (int tile = 0; tile < tiles_; ++tile) {
    std::int16_t* const first = data_.data() + index(tile, 0) * stride_;
    std::fill_n(first + offset(t, rows.begin - margin_), margin_ * stride_, 0);
    std::fill_n(first + offset(t, rows.end), stride_, 0);
  }
}

// ---------------------------------------------------------------- buffers

struct PriorPass::Positions {
  int t;
  RowRange rows;              // of every tile
  int count;                  // of all tiles
  const std::int32_t* index;  // Plane::index of each, from the first row of the step
};

struct PriorPass::Scratch {
  std::vector<std::int32_t> index;  // of the rows of a step
  std::vector<std::int32_t> iota;   // 0, 1, 2, ...
  AlignedVector<std::int32_t> sums;
  AlignedVector<std::int32_t> base;
  AlignedVector<std::int16_t> inner;
  std::vector<std::ptrdiff_t> taps;
  // Of the logits of kLogitRows positions, or of the scores of kQueryRows queries.
  AlignedVector<std::uint16_t> weights;
  std::vector<std::uint32_t> before;
  AlignedVector<std::int16_t> split;  // weights in bytes: low, high, low, ...
  std::vector<std::int64_t> mean;
};

PriorPass::PriorPass(const PriorNetwork& network, Variant variant, Schedule schedule,
                     std::vector<PriorTile> tiles, CodeSource& source,
                     const SamplingRule& rule)
    : network_(network),
      kernel_(prior_kernel(variant)),
      schedule_(schedule),
      rule_(rule),
      tiles_(std::move(tiles)),
      source_(source),
      wavefront_{tiles_[0].own.height, tiles_[0].own.width, network.lag},
      steps_(wavefront_.steps()),
      max_positions_(static_cast<int>(tiles_.size()) * wavefront_.widest()),
      offset_(step_offsets(wavefront_)),
      exp_(sharpened(network.tables, rule.sharpness)) {
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
  const auto plane = [&](int channels, const std::vector<Offset>& taps) {
    int first = 0, last = 0;
    for (const Offset& tap : taps) {
      first = std::min(first, tap.steps(network_.lag));
      last = std::max(last, tap.steps(network_.lag));
    }
    return Plane(wavefront_, tiles, margin, channels, last - first + (whole ? steps_ : 1));
  };

  codes_ = plane(network_.embedding_channels, network_.first.taps());
  if (whole) {
    // All layers share two planes: their input and their output.
    std::vector<Offset> taps;
    for (const Block& layer : network_.layers) {
      taps.insert(taps.end(), layer.in.taps().begin(), layer.in.taps().end());
    }
    for (int i = 0; i < 2; ++i) planes_.push_back(plane(network_.hidden, taps));
  } else {
    for (const Block& layer : network_.layers) {
      planes_.push_back(plane(network_.hidden, layer.in.taps()));
    }
    planes_.push_back(plane(network_.hidden, network_.logits.taps()));
  }
  if (!network_.coarser.empty()) {
    const std::vector<Offset>& window = network_.condition_in.taps();
    coarser_ = plane(network_.condition_channels, window);
    // One more for what the last block writes and nobody reads.
    const std::size_t blocks = network_.condition.size() + 1;
    for (std::size_t i = 0; i < (whole ? 2 : blocks); ++i) {
      condition_planes_.push_back(plane(network_.hidden, window));
    }
  }

  const auto rows = [&](int slots, int channels) {
    return AlignedVector<std::int16_t>(
        static_cast<std::size_t>(slots) * max_positions_ * channels + 1, 0);
  };
  stream_slots_ = whole ? steps_ : 1;
  stream_ = rows(stream_slots_, network_.hidden);
  if (!network_.coarser.empty()) {
    condition_slots_ = whole ? steps_ : network_.condition_lead() - network_.lag;
    condition_stream_ = rows(condition_slots_, network_.hidden);
  }

  key_capacity_ = round_up(static_cast<int>(offset_.back()), kPanel);
  memory_.resize(network_.layers.size());
  for (std::size_t i = 0; i < network_.layers.size(); ++i) {
    if (!network_.layers[i].attention) continue;
    if (qkv_.empty()) qkv_ = rows(stream_slots_, 3 * network_.hidden);
    const int channels = network_.hidden / network_.heads;
    const std::size_t keys = static_cast<std::size_t>(tiles) * network_.heads * key_capacity_;
    memory_[i].keys.assign(keys * channel_stride(channels), 0);
    memory_[i].values.assign(keys * round_up(channels, kPanel), 0);
  }
}

std::size_t PriorPass::feature_bytes() const {
  std::size_t bytes = coarser_.bytes() + codes_.bytes();
  for (const Plane& plane : planes_) bytes += plane.bytes();
  for (const Plane& plane : condition_planes_) bytes += plane.bytes();
  bytes += (stream_.size() + condition_stream_.size() + qkv_.size()) * sizeof(std::int16_t);
  for (const Memory& memory : memory_) bytes += memory.keys.size() + memory.values.size();
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
  scratch->sums.resize(std::max({positions * outputs, kLogitRows * logits, kQueryRows * keys,
                                 2 * kQueryRows * values}));
  scratch->base.resize(positions * network_.hidden);
  scratch->inner.resize(positions * channels);
  scratch->taps.resize(taps);
  scratch->weights.resize(std::max(logits, keys));
  scratch->before.resize(logits / kFrequencyBlock + 1);
  scratch->split.resize(2 * kQueryRows * keys);
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

FeatureRows<std::int16_t> PriorPass::rows_of(Plane& plane, const Positions& at) {
  return {plane.data() + plane.offset(at.t, at.rows.begin), at.index, plane.stride(), at.count};
}

FeatureRows<std::int16_t> PriorPass::inner_rows(int channels, int count, Scratch& scratch) const {
  return {scratch.inner.data(), scratch.iota.data(), channel_stride(channels), count};
}

// scratch.sums = conv at the given positions of a plane.
void PriorPass::convolve(const Conv& conv, Plane& inputs, const Positions& at, Scratch& scratch) {
  if (at.count == 0) return;
  const std::vector<Offset>& taps = conv.taps();
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const int t = at.t + taps[i].steps(wavefront_.lag);
    scratch.taps[i] = inputs.offset(t, at.rows.begin + taps[i].row);
  }
  product(conv, {inputs.data(), at.index, inputs.stride(), at.count}, scratch.taps.data(),
          scratch);
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
    kernel_.product(conv.packed(), inputs, taps, scratch.sums.data(), stride);
    return;
  }
  parallel_for((conv.num_panels() + kPanelsPerTask - 1) / kPanelsPerTask, [&](std::int64_t task) {
    const int first = static_cast<int>(task) * kPanelsPerTask;
    const int count = std::min(kPanelsPerTask, conv.num_panels() - first);
    kernel_.product(conv.packed(first, count), inputs, taps, &scratch.sums[first * kPanel],
                    stride);
  });
}

// In a whole map every stage is complete before the next, so two planes take turns.
Plane& PriorPass::input_of(int layer) {
  return planes_[schedule_ == Schedule::whole_map ? layer % 2 : layer];
}

Plane& PriorPass::condition_input_of(int block) {
  return condition_planes_[schedule_ == Schedule::whole_map ? block % 2 : block];
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
  Plane& next = condition_input_of(0);
  next.clear_margins(t);
  std::fill_n(scratch.base.data(), at.count * network_.hidden, 0);
  kernel_.begin_stream(scratch.sums.data(), network_.condition_in.num_panels() * kPanel,
                       network_.hidden, scratch.base.data(), condition_stream(t),
                       rows_of(next, at));
}

void PriorPass::condition_block(int t, int block, Scratch& scratch) {
  const Block& condition = network_.condition[block];
  const Positions at = positions(t, scratch);
  convolve(condition.in, condition_input_of(block), at, scratch);
  const int channels = condition.in.outputs();
  const FeatureRows<std::int16_t> inner = inner_rows(channels, at.count, scratch);
  kernel_.clamp(scratch.sums.data(), condition.in.num_panels() * kPanel, channels, 0, inner);
  multiply(condition.out, inner, scratch);
  Plane& next = condition_input_of(block + 1);
  next.clear_margins(t);
  kernel_.add_to_stream(scratch.sums.data(), condition.out.num_panels() * kPanel, network_.hidden,
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
  Plane& next = input_of(0);
  next.clear_margins(t);
  kernel_.begin_stream(scratch.sums.data(), network_.first.num_panels() * kPanel, hidden,
                       scratch.base.data(), stream(t), rows_of(next, at));
}

void PriorPass::gate_block(int t, int layer, Scratch& scratch) {
  const Block& block = network_.layers[layer];
  const Positions at = positions(t, scratch);
  convolve(block.in, input_of(layer), at, scratch);
  const int channels = block.out.inputs();
  const FeatureRows<std::int16_t> inner = inner_rows(channels, at.count, scratch);
  kernel_.gate(scratch.sums.data(), block.in.num_panels() * kPanel, channels, network_.tables,
               inner);
  multiply(block.out, inner, scratch);
  Plane& next = input_of(layer + 1);
  next.clear_margins(t);
  kernel_.add_to_stream(scratch.sums.data(), block.out.num_panels() * kPanel, network_.hidden,
                        stream(t), rows_of(next, at));
}

// Queries, keys and values of a step; keys and values join those of the steps before.
void PriorPass::project(int t, int layer, Scratch& scratch) {
  const Positions at = positions(t, scratch);
  const Conv& conv = network_.layers[layer].in;
  convolve(conv, input_of(layer), at, scratch);
  const int hidden = network_.hidden;
  std::int16_t* const rows = qkv(t);
  kernel_.clamp(scratch.sums.data(), conv.num_panels() * kPanel, 3 * hidden, -128,
                {rows, scratch.iota.data(), 3 * hidden, at.count});

  Memory& memory = memory_[layer];
  const int channels = hidden / network_.heads;
  const std::size_t capacity = static_cast<std::size_t>(key_capacity_);
  for (int i = 0; i < at.count; ++i) {
    const int tile = i / at.rows.size();
    const std::size_t key = static_cast<std::size_t>(offset_[t]) + i % at.rows.size();
    for (int head = 0; head < network_.heads; ++head) {
      const std::size_t begin = (static_cast<std::size_t>(tile) * network_.heads + head) * capacity;
      std::int8_t* const keys = &memory.keys[begin * channel_stride(channels)];
      std::int8_t* const values = &memory.values[begin * round_up(channels, kPanel)];
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
        attend_head(t, tile, first, count, head, memory_[layer], scratch);
      }
    }
  }
  multiply(conv, inner_rows(network_.hidden, at.count, scratch), scratch);
  Plane& next = input_of(layer + 1);
  next.clear_margins(t);
  kernel_.add_to_stream(scratch.sums.data(), conv.num_panels() * kPanel, network_.hidden,
                        stream(t), rows_of(next, at));
}

// Attention of one head for rows first..first+count-1 of a tile's part of a step: into
// scratch.inner. A query sees the positions of earlier steps and itself.
void PriorPass::attend_head(int t, int tile, int first, int count, int head, const Memory& memory,
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
  const PackedConv keys = {&memory.keys[begin * channel_stride(channels)], nullptr, nullptr,
                           std::ptrdiff_t{key_pairs} * kPanel * 2, known / kPanel, 1, key_pairs};
  const std::int16_t* const queries =
      qkv(t) + (std::ptrdiff_t{tile} * per_tile + first) * 3 * hidden + head * channels;
  kernel_.product(keys, {queries, scratch.iota.data(), 3 * hidden, count}, &no_tap,
                  scratch.sums.data(), known);

  // Weights, split into bytes: rows 2 i and 2 i + 1.
  std::int64_t total[kQueryRows];
  for (int i = 0; i < count; ++i) {
    const std::int32_t* const scores = &scratch.sums[std::ptrdiff_t{i} * known];
    const int self = seen + first + i;
    std::int32_t top = scores[self];
    if (seen > 0) top = std::max(top, kernel_.maximum(scores, seen));
    std::uint16_t* const weights = scratch.weights.data();
    kernel_.weigh(scores, seen, top, kScoreShift, network_.tables.exp, kExpSize, weights);
    std::uint16_t own;
    kernel_.weigh(scores + self, 1, top, kScoreShift, network_.tables.exp, kExpSize, &own);
    total[i] = static_cast<std::int64_t>(kernel_.sum(weights, seen)) + own;

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
    const std::int8_t* const from = &memory.values[begin * round_up(channels, kPanel)] +
                                    std::ptrdiff_t{key} * kPanel;
    const PackedConv values = {from, nullptr, nullptr,
                               static_cast<std::ptrdiff_t>(capacity) * kPanel, panels, 1,
                               std::min(kKeyBlock, known - key) / 2};
    kernel_.product(values, {scratch.split.data() + key, scratch.iota.data(), known, 2 * count},
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
      kernel_.weigh(logits, codes, kernel_.maximum(logits, codes), 0, exp_.data(),
                    static_cast<std::uint32_t>(exp_.size() - 1), weights);
      if (rule_.nucleus < SamplingRule::kWholeNucleus) keep_nucleus(rule_, weights, codes);
      std::uint32_t sum = 0;
      for (int k = 0; k < codes; k += kFrequencyBlock) {
        scratch.before[k / kFrequencyBlock] = sum;
        sum += static_cast<std::uint32_t>(
            kernel_.sum(weights + k, std::min(kFrequencyBlock, codes - k)));
      }
      const int tile = (first + i) / at.rows.size();
      const int place = (first + i) % at.rows.size();
      const int row = at.rows.begin + place;
      const std::int64_t cell =
          std::int64_t{row} * wavefront_.width + t - wavefront_.lag * row;
      const std::int32_t code = source_.choose(tile, offset_[t] + place,
                                               {weights, scratch.before.data(), sum, codes});
      if (schedule_ == Schedule::stepwise) tiles_[tile].chosen[cell] = code;
    }
  }
}

}  // namespace vqcodec::cpu
