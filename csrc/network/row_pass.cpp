#include "network/row_pass.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "base/thread_pool.h"
#include "nn/fixed_point.h"

namespace vqcodec {
namespace {

// Columns of one piece of work at most: enough to use a panel of weights often, and few enough for
// their features to stay in the first-level cache.
constexpr int kMaxColumns = 64;
constexpr int kColumnMultiple = 8;  // rows of the kernels' tiles

// Rows go in larger blocks, with fewer waits of threads for each other, while features take no more
// than this. Convolutions use every feature so often that it does not matter which cache holds
// them.
constexpr std::size_t kFeatureBytes = std::size_t{4} << 20;
constexpr int kMostBlocks = 8;  // multiples of the coarsest stride that go at a time, at most

constexpr auto kIota = [] {
  std::array<std::int32_t, kMaxColumns> numbers{};
  for (int i = 0; i < kMaxColumns; ++i) numbers[i] = i;
  return numbers;
}();

int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

int clamped_row(int row, int height) { return clamp(row, 0, height - 1); }

}  // namespace

// ---------------------------------------------------------------- planes and stages

// The rows of a plane that are needed. Margins left and right hold its edge positions.
struct RowPass::Ring {
  int height = 0, width = 0, channels = 0;
  std::ptrdiff_t stride = 0;  // from one position to the next
  int left = 0, right = 0;    // positions in the margins
  int capacity = 0;           // rows
  int made = 0;               // rows that have been written, or are being written
  AlignedArray<std::int16_t> data;

  std::ptrdiff_t row_size() const { return (left + width + right) * stride; }
  std::ptrdiff_t slot(int row) const { return row % capacity * row_size(); }
  // Position 0 of a row.
  std::int16_t* row(int number) { return data.data() + slot(number) + left * stride; }
  const std::int16_t* row(int number) const { return data.data() + slot(number) + left * stride; }
};

// Something that is done once for every unit: a row of the plane that it makes, or several rows of
// them.
struct RowPass::Stage {
  enum Kind { source, step, sink } kind;
  int index = 0;   // of the input or the step
  int plane = -1;  // that it makes
  int rows = 1;    // of this plane, for every unit
  int units = 0;
  int width = 0;  // columns of a unit
  int done = 0;   // units
  // Rows clamped(scale * unit + first), ..., clamped(scale * unit + last) of a plane.
  struct Need {
    int plane, scale, first, last;
  };
  std::vector<Need> needs;
  std::vector<int> outputs;  // sink: their numbers
};

// Buffers of one thread.
struct RowPass::Scratch {
  AlignedArray<std::int16_t> inner;   // of a residual block
  AlignedArray<std::int16_t> phases;  // of a convolution whose phases are computed together
  std::vector<std::ptrdiff_t> taps;
};

RowPass::RowPass(const IntegerNetwork& network, Variant variant, int height, int width,
                 const RowSource& source, RowSink& sink)
    : network_(network),
      kernels_(kernels_of(variant).integer),
      height_(height),
      width_(width),
      source_(source),
      sink_(sink),
      rings_(network.planes.size()) {
  for (std::size_t i = 0; i < rings_.size(); ++i) {
    const Plane& plane = network.planes[i];
    VQCODEC_ASSERT(height > 0 && height % plane.stride == 0);
    VQCODEC_ASSERT(width > 0 && width % plane.stride == 0);
    rings_[i].height = height / plane.stride;
    rings_[i].width = width / plane.stride;
    rings_[i].channels = plane.channels;
    // Only convolutions need whole pairs; without gaps, others copy many positions at once.
    rings_[i].stride = plane.convolved ? channel_stride(plane.channels) : plane.channels;
  }
  list_stages();
  const int coarsest = network.coarsest_stride();
  for (int blocks = kMostBlocks; blocks > 0; blocks /= 2) {
    block_ = blocks * coarsest;
    plan(block_);
    if (feature_bytes() <= kFeatureBytes) break;
  }
  for (Ring& ring : rings_) {
    ring.data = AlignedArray<std::int16_t>(static_cast<std::size_t>(ring.capacity) *
                                           static_cast<std::size_t>(ring.row_size()));
  }

  int inner = 0, phases = 0, taps = 1;
  for (const Step& step : network.steps) {
    if (step.kind == LayerKind::residual) inner = std::max(inner, step.inner.outputs());
    taps = std::max(taps, static_cast<int>(step.inner.taps().size()));
    for (const PhaseGroup& group : step.phases) {
      taps = std::max(taps, static_cast<int>(group.conv.taps().size()));
      if (group.count > 1) phases = std::max(phases, group.conv.outputs());
    }
  }
  scratch_.resize(static_cast<std::size_t>(get_num_threads()));
  for (Scratch& scratch : scratch_) {
    scratch.inner = AlignedArray<std::int16_t>(std::size_t{kMaxColumns} * channel_stride(inner));
    scratch.phases = AlignedArray<std::int16_t>(std::size_t{kMaxColumns} * phases);
    scratch.taps.resize(static_cast<std::size_t>(taps));
  }
}

RowPass::~RowPass() = default;

std::size_t RowPass::feature_bytes() const {
  std::size_t bytes = 0;
  for (const Ring& ring : rings_) {
    bytes += static_cast<std::size_t>(ring.capacity) * static_cast<std::size_t>(ring.row_size()) *
             sizeof(std::int16_t);
  }
  return bytes;
}

void RowPass::list_stages() {
  const auto add = [&](Stage stage, int plane) {
    const Ring& ring = rings_[plane];
    stage.units = ring.height / stage.rows;
    stage.width = ring.width / stage.rows;
    stages_.push_back(std::move(stage));
  };
  for (int input = 0; input < network_.num_inputs; ++input) {
    Stage stage;
    stage.kind = Stage::source;
    stage.index = stage.plane = input;
    add(std::move(stage), input);
  }
  for (std::size_t i = 0; i < network_.steps.size(); ++i) {
    const Step& step = network_.steps[i];
    Stage stage;
    stage.kind = Stage::step;
    stage.index = static_cast<int>(i);
    stage.plane = step.plane;
    stage.rows = step.upscale;
    const auto see = [&](const Conv& conv) {
      Ring& ring = rings_[step.sources[0]];
      for (const Offset& tap : conv.taps()) {
        Stage::Need& need = stage.needs[0];
        need.first = std::min(need.first, tap.row);
        need.last = std::max(need.last, tap.row);
        ring.left = std::max(ring.left, -tap.column);
        ring.right = std::max(ring.right, tap.column - (step.stride - 1));
      }
    };
    for (int plane : step.sources) {
      const int scale = step.kind == LayerKind::unshuffle ? step.factor : step.stride;
      stage.needs.push_back({plane, scale, 0, step.kind == LayerKind::unshuffle ? scale - 1 : 0});
    }
    if (step.kind == LayerKind::residual) see(step.inner);
    if (step.kind == LayerKind::convolution) {
      for (const PhaseGroup& group : step.phases) see(group.conv);
      if (step.addend >= 0) stage.needs.push_back({step.addend, 1, 0, 0});
    }
    add(std::move(stage), step.plane);
  }
  std::vector<bool> handed(network_.outputs.size(), false);
  for (std::size_t i = 0; i < network_.outputs.size(); ++i) {
    if (handed[i]) continue;
    const int stride = network_.planes[network_.outputs[i]].stride;
    Stage stage;
    stage.kind = Stage::sink;
    for (std::size_t j = i; j < network_.outputs.size(); ++j) {
      const int plane = network_.outputs[j];
      if (network_.planes[plane].stride != stride) continue;
      handed[j] = true;
      stage.outputs.push_back(static_cast<int>(j));
      stage.needs.push_back({plane, 1, 0, 0});
    }
    add(std::move(stage), network_.outputs[i]);
  }
}

// ---------------------------------------------------------------- the schedule

// Units of a stage that can be done once all inputs have the rows above `pixel_rows`.
int RowPass::available(const Stage& stage, int pixel_rows) const {
  if (stage.kind == Stage::source) {
    const int stride = network_.planes[stage.plane].stride;
    return std::min(pixel_rows, height_) / stride;
  }
  int last = stage.units;
  for (const Stage::Need& need : stage.needs) {
    const Ring& ring = rings_[need.plane];
    if (ring.made == ring.height) continue;
    // The last row that a unit reads has been made: scale * unit + last < made.
    const int reachable = ring.made - need.last;
    last = std::min(last, reachable <= 0 ? 0 : (reachable - 1) / need.scale + 1);
  }
  return std::max(last, stage.done);
}

// The first row of a plane that a stage will still read.
int RowPass::oldest_needed(int plane) const {
  int oldest = rings_[plane].made;
  for (const Stage& stage : stages_) {
    if (stage.done == stage.units) continue;
    for (const Stage::Need& need : stage.needs) {
      if (need.plane != plane) continue;
      const int row = clamped_row(stage.done * need.scale + need.first, rings_[plane].height);
      oldest = std::min(oldest, row);
    }
  }
  return oldest;
}

// Goes through the schedule without computing, to see how many rows of each plane it needs at once.
void RowPass::plan(int pixel_rows) {
  for (Ring& ring : rings_) ring.capacity = ring.made = 0;
  for (Stage& stage : stages_) stage.done = 0;
  for (std::int64_t rows = pixel_rows;; rows += pixel_rows) {
    const int until = static_cast<int>(std::min<std::int64_t>(rows, height_));
    for (Stage& stage : stages_) {
      const int count = available(stage, until) - stage.done;
      if (count == 0) continue;
      if (stage.plane >= 0) {
        Ring& ring = rings_[stage.plane];
        const int before = ring.made;
        ring.made += count * stage.rows;
        // What its readers still need, and never less than what is written at a time.
        ring.capacity =
            std::max({ring.capacity, ring.made - oldest_needed(stage.plane), ring.made - before});
      }
      stage.done += count;
    }
    if (until == height_) break;
  }
  for (Stage& stage : stages_) {
    VQCODEC_ASSERT(stage.done == stage.units);
    stage.done = 0;
  }
  for (Ring& ring : rings_) ring.made = 0;
}

bool RowPass::run(const std::function<bool()>& interrupted) {
  for (std::int64_t rows = block_;; rows += block_) {
    const int until = static_cast<int>(std::min<std::int64_t>(rows, height_));
    for (Stage& stage : stages_) {
      const int count = available(stage, until) - stage.done;
      if (count == 0) continue;
      if (interrupted()) return false;
      if (stage.plane >= 0) rings_[stage.plane].made += count * stage.rows;
      execute(stage, count);
      stage.done += count;
    }
    if (until == height_) return true;
  }
}

// The next `count` units of a stage, on all threads.
void RowPass::execute(const Stage& stage, int count) {
  const bool whole_rows = stage.kind != Stage::step;
  int chunks = 1, size = stage.width;
  if (!whole_rows) {
    chunks = (stage.width + kMaxColumns - 1) / kMaxColumns;
    size = round_up((stage.width + chunks - 1) / chunks, kColumnMultiple);
    chunks = (stage.width + size - 1) / size;
  }
  const std::int64_t parts = std::int64_t{count} * chunks;
  std::atomic<std::int64_t> next{0};
  const auto threads = std::min(static_cast<std::int64_t>(scratch_.size()), parts);
  parallel_for(threads, [&](std::int64_t thread) {
    for (std::int64_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < parts;) {
      const int begin = static_cast<int>(part % chunks) * size;
      run_part(stage, stage.done + static_cast<int>(part / chunks),
               {begin, std::min(begin + size, stage.width)},
               scratch_[static_cast<std::size_t>(thread)]);
    }
  });
}

void RowPass::run_part(const Stage& stage, int unit, Columns columns, Scratch& scratch) {
  if (stage.kind == Stage::sink) return hand_over(stage, unit);
  Ring& made = rings_[stage.plane];
  if (stage.kind == Stage::source) {
    source_.read(stage.index, unit, made.row(unit), made.stride);
  } else {
    const Step& step = network_.steps[static_cast<std::size_t>(stage.index)];
    switch (step.kind) {
      case LayerKind::unshuffle: unshuffle(step, unit, columns); break;
      case LayerKind::convolution: convolve(step, unit, columns, scratch); break;
      case LayerKind::residual: residual(step, unit, columns, scratch); break;
      case LayerKind::concatenate: concatenate(step, unit, columns); break;
      case LayerKind::add:
      case LayerKind::subtract: combine(step, unit, columns); break;
    }
  }
  const Columns written = {columns.begin * stage.rows, columns.end * stage.rows};
  for (int i = 0; i < stage.rows; ++i) fill_margins(made, unit * stage.rows + i, written);
}

// Repeats the first and last positions of a row, once they have been written.
void RowPass::fill_margins(Ring& ring, int row, Columns columns) {
  std::int16_t* const first = ring.row(row);
  if (columns.begin == 0) {
    for (int x = -ring.left; x < 0; ++x) {
      std::copy_n(first, ring.channels, first + x * ring.stride);
    }
  }
  if (columns.end == ring.width) {
    const std::int16_t* const last = first + (ring.width - 1) * ring.stride;
    for (int x = ring.width; x < ring.width + ring.right; ++x) {
      std::copy_n(last, ring.channels, first + x * ring.stride);
    }
  }
}

// ---------------------------------------------------------------- steps

// Every `stride`-th position of a row, from the beginning of its ring; taps go from there.
FeatureRows<const std::int16_t> RowPass::inputs_of(const Ring& ring, int stride,
                                                   Columns columns) const {
  const std::ptrdiff_t first = ring.left + std::ptrdiff_t{columns.begin} * stride;
  return {ring.data.data() + first * ring.stride, kIota.data(), stride * ring.stride,
          columns.end - columns.begin};
}

// Where the taps of a convolution lie that is applied at `row`, for inputs_of.
void RowPass::find_taps(const Conv& conv, const Ring& ring, int row, Scratch& scratch) const {
  std::ptrdiff_t* to = scratch.taps.data();
  for (const Offset& tap : conv.taps()) {
    *to++ = ring.slot(clamped_row(row + tap.row, ring.height)) + tap.column * ring.stride;
  }
}

void RowPass::convolve(const Step& step, int unit, Columns columns, Scratch& scratch) {
  for (const PhaseGroup& group : step.phases) convolve_group(step, group, unit, columns, scratch);
}

void RowPass::convolve_group(const Step& step, const PhaseGroup& group, int unit, Columns columns,
                             Scratch& scratch) {
  const Ring& from = rings_[step.sources[0]];
  Ring& to = rings_[step.plane];
  const FeatureRows<const std::int16_t> inputs = inputs_of(from, step.stride, columns);
  FeatureRows<const std::int16_t> addend = {nullptr, kIota.data(), 0, inputs.count};
  if (step.addend >= 0) {
    const Ring& ring = rings_[step.addend];
    addend.base = ring.row(unit) + columns.begin * ring.stride;
    addend.stride = ring.stride;
  }
  find_taps(group.conv, from, unit * step.stride, scratch);
  const int upscale = step.upscale, outputs = to.channels;
  // Where the first column of a phase goes.
  const auto target = [&](int phase) {
    return to.row(unit * upscale + phase / upscale) +
           (std::ptrdiff_t{columns.begin} * upscale + phase % upscale) * to.stride;
  };
  if (group.count == 1) {
    kernels_.convolve(group.conv.packed(), inputs, scratch.taps.data(), addend, step.activation,
                      outputs,
                      {target(group.first), kIota.data(), upscale * to.stride, inputs.count});
    return;
  }
  const std::ptrdiff_t size = group.conv.outputs();
  kernels_.convolve(group.conv.packed(), inputs, scratch.taps.data(), addend, step.activation,
                    group.conv.outputs(),
                    {scratch.phases.data(), kIota.data(), size, inputs.count});
  for (int begin = group.first, end; begin < group.first + group.count; begin = end) {
    // Phases that lie side by side.
    end = begin + 1;
    if (to.stride == outputs) end = std::min(round_up(end, upscale), group.first + group.count);
    const std::size_t bytes =
        sizeof(std::int16_t) * static_cast<std::size_t>((end - begin) * outputs);
    const std::int16_t* features = scratch.phases.data() + (begin - group.first) * outputs;
    std::int16_t* position = target(begin);
    for (int i = 0; i < inputs.count; ++i) {
      std::memcpy(position, features, bytes);
      features += size;
      position += upscale * to.stride;
    }
  }
}

void RowPass::residual(const Step& step, int unit, Columns columns, Scratch& scratch) {
  const Ring& from = rings_[step.sources[0]];
  Ring& to = rings_[step.plane];
  const FeatureRows<const std::int16_t> inputs = inputs_of(from, 1, columns);
  const FeatureRows<const std::int16_t> none = {nullptr, kIota.data(), 0, inputs.count};
  const std::ptrdiff_t stride = channel_stride(step.inner.outputs());
  find_taps(step.inner, from, unit, scratch);
  kernels_.convolve(step.inner.packed(), inputs, scratch.taps.data(), none, Activation::leaky,
                    step.inner.outputs(),
                    {scratch.inner.data(), kIota.data(), stride, inputs.count});

  const std::ptrdiff_t here = 0;
  const std::int16_t* const x = from.row(unit) + columns.begin * from.stride;
  kernels_.convolve(
      step.phases[0].conv.packed(), {scratch.inner.data(), kIota.data(), stride, inputs.count},
      &here, {x, kIota.data(), from.stride, inputs.count}, step.activation, to.channels,
      {to.row(unit) + columns.begin * to.stride, kIota.data(), to.stride, inputs.count});
}

void RowPass::unshuffle(const Step& step, int unit, Columns columns) {
  const Ring& from = rings_[step.sources[0]];
  Ring& to = rings_[step.plane];
  const int factor = step.factor, channels = from.channels;
  for (int i = 0; i < factor; ++i) {
    const std::int16_t* const row = from.row(unit * factor + i);
    for (int x = columns.begin; x < columns.end; ++x) {
      std::int16_t* position = to.row(unit) + x * to.stride + i * factor * channels;
      for (int j = 0; j < factor; ++j) {
        std::copy_n(row + (std::ptrdiff_t{x} * factor + j) * from.stride, channels, position);
        position += channels;
      }
    }
  }
}

void RowPass::concatenate(const Step& step, int unit, Columns columns) {
  Ring& to = rings_[step.plane];
  std::ptrdiff_t channel = 0;
  for (int source : step.sources) {
    const Ring& from = rings_[source];
    for (int x = columns.begin; x < columns.end; ++x) {
      std::copy_n(from.row(unit) + x * from.stride, from.channels,
                  to.row(unit) + x * to.stride + channel);
    }
    channel += from.channels;
  }
}

void RowPass::combine(const Step& step, int unit, Columns columns) {
  const Ring& first = rings_[step.sources[0]];
  const Ring& second = rings_[step.sources[1]];
  Ring& to = rings_[step.plane];
  const int sign = step.kind == LayerKind::subtract ? -1 : 1;
  for (int x = columns.begin; x < columns.end; ++x) {
    const std::int16_t* const a = first.row(unit) + x * first.stride;
    const std::int16_t* const b = second.row(unit) + x * second.stride;
    std::int16_t* const sum = to.row(unit) + x * to.stride;
    for (int c = 0; c < to.channels; ++c) {
      sum[c] = static_cast<std::int16_t>(saturate16(a[c] + sign * b[c]));
    }
  }
}

void RowPass::hand_over(const Stage& stage, int row) {
  std::vector<const std::int16_t*> rows;
  std::vector<std::ptrdiff_t> strides;
  for (const Stage::Need& need : stage.needs) {
    const Ring& ring = rings_[need.plane];
    rows.push_back(ring.row(row));
    strides.push_back(ring.stride);
  }
  sink_.write(stage.outputs.data(), static_cast<int>(stage.outputs.size()), row, rows.data(),
              strides.data());
}

}  // namespace vqcodec
