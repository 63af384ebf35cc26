#include "cuda/prior_pass.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace vqcodec::cuda {
namespace {

constexpr int kMapLogitRows = kColumnTile;  // of a known map, positions whose logits a block holds
constexpr int kKeyTile = 128;               // keys that a warp of attention takes at once

// The smallest stride >= size that is `remainder` modulo `multiple`.
std::int64_t stride_of(std::int64_t size, int multiple, int remainder) {
  return round_up(std::max<std::int64_t>(size - remainder, 0), multiple) + remainder;
}

// Steps from a position to the first and to the last that a convolution sees.
struct Reach {
  Reach(const vqcodec::Conv& conv, int lag) {
    for (const Offset& tap : conv.taps()) {
      first = std::min(first, step_of(tap.row, tap.column, lag));
      last = std::max(last, step_of(tap.row, tap.column, lag));
    }
  }
  int first = 0;
  int last = 0;
};

}  // namespace

PriorPass::PriorPass(const PriorNetwork& network, int height, int width, int tiles,
                     Schedule schedule, int warps, MemoryPlan* memory)
    : network_(network), schedule_(schedule), memory_(*memory) {
  const vqcodec::PriorNetwork& host = network.host();
  pass_.wavefront = {height, width, host.lag};
  pass_.tiles = tiles;
  pass_.margin = std::max(host.reach, 1);
  pass_.tile_rows = pass_.margin + pass_.wavefront.widest() + 1;
  pass_.max_positions = tiles * pass_.wavefront.widest();
  pass_.hidden = host.hidden;
  pass_.codes = host.codes;
  pass_.embedding_channels = host.embedding_channels;
  pass_.heads = host.heads;
  pass_.num_coarser = static_cast<std::int32_t>(host.coarser.size());
  pass_.network_tables = network.tables.data();
  pass_.embedding = network.embedding.data();
  std::int32_t begin = 0;
  for (std::size_t j = 0; j < host.coarser.size(); ++j) {
    const vqcodec::PriorNetwork::Coarser& map = host.coarser[j];
    coarser_.push_back({network.coarser[j].data(), map.factor, map.channels, begin, 0});
    begin += map.channels;
  }
  before_.push_back(0);
  for (int t = 0; t < pass_.wavefront.steps(); ++t) {
    before_.push_back(before_.back() + pass_.wavefront.rows(t).size());
  }

  // What every step reads is placed first, what runs ahead comes last.
  pass_.num_ahead = host.coarser.empty() ? 0 : 2 + 2 * static_cast<int>(host.condition.size());
  pass_.num_stages = pass_.num_ahead + 3;
  for (const vqcodec::Block& layer : host.layers) pass_.num_stages += layer.attention ? 3 : 2;
  pass_.tables = memory_.place_hot<PriorTables>(1);
  pass_.steps = memory_.place_hot<StageStep>(pass_.num_stages);
  pass_.stage = memory_.place_hot<Stage>(pass_.num_stages);
  list_layers();
  std::vector<Stage> layers = std::move(stages_);
  stages_.clear();
  if (!host.coarser.empty()) list_condition(&layers[1]);
  stages_.insert(stages_.end(), layers.begin(), layers.end());
  if (schedule == Schedule::whole_map) {
    std::int64_t mmas = 0;
    for (const Stage& stage : stages_) mmas = std::max<std::int64_t>(mmas, stage.conv.mmas);
    const Array<int2> halves = memory_.place_hot<int2>(mmas);  // one stage at a time
    for (Stage& stage : stages_) stage.halves = halves;
  }
  place_scores(warps);
}

// Stages from `first` on: those that need the codes of this map.
void PriorPass::list_layers() {
  const vqcodec::PriorNetwork& host = network_.host();
  const bool whole = schedule_ == Schedule::whole_map;
  const Stream stream = place_stream(whole ? pass_.wavefront.steps() : 1);
  int inner_channels = 0;
  for (const vqcodec::Block& layer : host.layers) {
    inner_channels = std::max(inner_channels, layer.out.inputs());
  }
  const Ring inner = place_ring(inner_channels, 0, 0, nullptr);

  // A step's codes are known when the next one begins.
  const int embed_lead = whole ? 0 : -1;
  Ring input = place_ring(host.embedding_channels, embed_lead, 0, &host.first);
  add_stage(Action::embed_codes, embed_lead, {}, input, {});
  for (std::size_t i = 0; i <= host.layers.size(); ++i) {
    const bool last = i == host.layers.size();
    const Ring next = place_ring(host.hidden, 0, 0, last ? &host.logits : &host.layers[i].in);
    if (i == 0) {
      add_stage(Action::first, 0, input, next, stream, &network_.first);
    } else {
      add_stage(Action::add, 0, inner, next, stream, &network_.layers[i - 1].out);
    }
    if (last) {
      add_stage(Action::logits, 0, next, {}, {}, &network_.logits);
    } else if (host.layers[i].attention) {
      const KeyStore keys = place_keys();
      add_stage(Action::project, 0, next, {}, {}, &network_.layers[i].in).keys = keys;
      add_stage(Action::attend, 0, {}, inner, {}).keys = keys;
    } else {
      add_stage(Action::gate, 0, next, inner, {}, &network_.layers[i].in);
    }
  }

  pass_.logit_rows = whole ? kMapLogitRows : pass_.max_positions;
  // So that the eight rows and columns that a warp writes together lie in different banks.
  pass_.logit_stride = static_cast<std::int32_t>(
      stride_of(std::max(network_.logits.row_tiles * kRowTile, host.codes + 1), 8, 4));
  pass_.logits =
      memory_.place_hot<std::int32_t>(std::int64_t{pass_.logit_rows} * pass_.logit_stride);
  pass_.ratios = memory_.place_hot<Ratio>(pass_.logit_rows);
  place_weights();
}

// Stages before `first`, which reads the last of what they make.
void PriorPass::list_condition(Stage* first) {
  const vqcodec::PriorNetwork& host = network_.host();
  // A stage whose input is a 3x3 window needs the steps up to lag + 1 ahead of its own; one more,
  // so that they come from the round before.
  const int window = pass_.wavefront.lag + 2;
  const int blocks = static_cast<int>(host.condition.size());
  const int lead_in = 1 + blocks * (1 + window);
  const bool whole = schedule_ == Schedule::whole_map;
  const Stream stream = place_stream(whole ? pass_.wavefront.steps() : lead_in + 1);
  first->condition = stream;

  const Ring coarser =
      place_ring(host.condition_channels, lead_in + window, lead_in, &host.condition_in);
  add_stage(Action::embed_coarser, lead_in + window, {}, coarser, {});
  int lead = lead_in;
  Ring input = coarser, inner;
  for (int i = 0; i <= blocks; ++i) {
    // Nobody reads the last one.
    const vqcodec::Conv* const reader = i < blocks ? &host.condition[i].in : nullptr;
    const Ring next = place_ring(host.hidden, lead, lead - (i < blocks ? window : 0), reader);
    if (i == 0) {
      add_stage(Action::condition_in, lead, input, next, stream, &network_.condition_in);
    } else {
      add_stage(Action::condition_out, lead, inner, next, stream, &network_.condition[i - 1].out);
    }
    if (i == blocks) break;
    lead -= window;
    inner = place_ring(host.condition[i].out.inputs(), lead, lead - 1, nullptr);
    add_stage(Action::condition_inner, lead, next, inner, {}, &network_.condition[i].in);
    lead -= 1;
  }
  place_weights();
}

Stage& PriorPass::add_stage(Action action, int lead, const Ring& input, const Ring& output,
                            const Stream& stream, const Conv* conv) {
  Stage stage;
  stage.action = action;
  stage.lead = schedule_ == Schedule::whole_map ? 0 : lead;
  stage.input = input;
  stage.output = output;
  stage.stream = stream;
  if (conv != nullptr) {
    stage.conv = *conv;
    if (schedule_ == Schedule::stepwise) stage.halves = memory_.place_hot<int2>(conv->mmas);
  }
  stages_.push_back(stage);
  return stages_.back();
}

// Copies of the weights of all stages so far, as long as there is shared memory for them.
void PriorPass::place_weights() {
  if (schedule_ == Schedule::whole_map) return;
  for (Stage& stage : stages_) {
    const std::int64_t size = stage.conv.weight_vectors();
    if (size > 0 && memory_.fits<uint4>(size)) {
      stage.weights = memory_.place<uint4>(Area::shared, size);
    }
  }
}

// A ring between a stage and the one that reads it with `reader` (null: only at its own step).
// Stepwise, the slots are those between what one writes and what the other still reads.
Ring PriorPass::place_ring(int channels, int writer_lead, int reader_lead,
                           const vqcodec::Conv* reader) {
  Reach reach{vqcodec::Conv(), 0};
  if (reader != nullptr) reach = Reach(*reader, pass_.wavefront.lag);
  const bool whole = schedule_ == Schedule::whole_map;

  Ring ring;
  ring.slots = whole ? pass_.wavefront.steps() + reach.last - reach.first
                     : std::max(writer_lead - reader_lead - reach.first + 1, 1);
  ring.stride = static_cast<std::int32_t>(stride_of(round_up(channels, kHalf), 2 * kHalf, kHalf));
  const std::int64_t rows = std::int64_t{ring.slots} * pass_.tiles * pass_.tile_rows;
  if (rows * (ring.stride / kHalf) > std::numeric_limits<std::int32_t>::max()) {
    status_ = Status::unsupported("CUDA: the map is too large");
  }
  const std::int64_t bytes = rows * ring.stride;
  ring.rows = whole ? memory_.place<std::int8_t>(Area::common, bytes)
                    : memory_.place_hot<std::int8_t>(bytes);
  return ring;
}

Stream PriorPass::place_stream(int slots) {
  Stream stream;
  stream.slots = slots;
  // As for the logits, but of half the size.
  stream.stride = static_cast<std::int32_t>(stride_of(round_up(pass_.hidden, kRowTile), 8, 4));
  const std::int64_t size = std::int64_t{slots} * pass_.max_positions * stream.stride;
  stream.rows = schedule_ == Schedule::whole_map ? memory_.place<std::int16_t>(Area::common, size)
                                                 : memory_.place_hot<std::int16_t>(size);
  return stream;
}

KeyStore PriorPass::place_keys() {
  const Area area = schedule_ == Schedule::whole_map ? Area::common : Area::block;
  KeyStore store;
  store.channels = network_.head_channels();
  store.capacity = static_cast<std::int32_t>(round_up(before_.back(), kKeyTile));
  const std::int64_t size =
      std::int64_t{pass_.tiles} * pass_.heads * store.capacity * store.channels;
  store.queries = memory_.place<std::int8_t>(area, size);
  store.keys = memory_.place<std::int8_t>(area, size);
  store.values = memory_.place<std::int8_t>(area, size);
  return store;
}

void PriorPass::place_scores(int warps) {
  pass_.score_stride = static_cast<std::int32_t>(round_up(before_.back(), kKeyTile));
  const bool attention = std::any_of(stages_.begin(), stages_.end(), [](const Stage& stage) {
    return stage.action == Action::attend;
  });
  if (attention) {
    pass_.scores = memory_.place_hot<std::int32_t>(std::int64_t{warps} * pass_.score_stride);
  }
}

void PriorPass::add_tile(int class_id, int level, std::int32_t* codes,
                         std::vector<const std::int32_t*> coarser) {
  const vqcodec::PriorNetwork& host = network_.host();
  const std::size_t padded = static_cast<std::size_t>(round_up(host.hidden, kRowTile));
  const std::int16_t* of_class = &host.classes[std::int64_t{class_id} * host.hidden];
  const std::int16_t* of_level = &host.levels[std::int64_t{level} * host.hidden];
  const std::size_t begin = constants_.size();
  constants_.resize(begin + padded);
  for (int c = 0; c < host.hidden; ++c) constants_[begin + c] = of_class[c] + of_level[c];
  tiles_.push_back({codes, nullptr});
  coarser_codes_.push_back(std::move(coarser));
}

void PriorPass::add_to(DeviceImage* image, DevicePass* result) {
  *result = pass_;
  for (std::size_t i = 0; i < tiles_.size(); ++i) {
    image->add(coarser_codes_[i], &tiles_[i].coarser);
  }
  image->add(stages_, &result->stages);
  image->add(before_, &result->before);
  image->add(constants_, &result->constants);
  image->add(tiles_, &result->tile);
  image->add(coarser_, &result->coarser);
}

}  // namespace vqcodec::cuda
