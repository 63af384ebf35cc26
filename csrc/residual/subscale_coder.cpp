#include "residual/subscale_coder.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

#include "base/check.h"
#include "base/thread_pool.h"
#include "nn/kernels.h"
#include "residual/decision_stream.h"

namespace vqcodec {
namespace {

// Samples of a row that are coded at a time.
constexpr int kSegment = 1024;

struct Pass {
  int half, pass, slice;
};

// In the order of coding.
std::vector<Pass> passes_of(const TileShape& shape) {
  int half = 1;
  while (half < std::max(shape.height, shape.width)) half *= 2;
  std::vector<Pass> passes;
  while ((half /= 2) >= 1) {
    for (int pass = 0; pass < kPasses; ++pass) {
      const int slice = half >= 8 ? 0 : half == 4 ? 1 : half == 2 ? 2 : 3 + pass;
      passes.push_back({half, pass, shape.slices == 1 ? 0 : slice});
    }
  }
  return passes;
}

int top_of(const Pass& pass) { return pass.pass == 1 ? 0 : pass.half; }
int left_of(const Pass& pass) { return pass.pass == 2 ? 0 : pass.half; }

// How many rows (or columns) first, first + 2 * half, ... there are below `end`.
std::int64_t rows_of(int first, int half, int end) {
  return first < end ? (end - first - 1) / (2 * half) + 1 : 0;
}

// The first sample of a stream: bits of probability 1/2.
std::uint16_t first_sample(int depth, DecisionReader* reader) {
  std::uint32_t sample = 0;
  for (int bit = 0; bit < depth; ++bit) {
    const std::uint64_t scale = reader->range >> 24, split = scale << 23;
    reader->corrupt |= reader->offset >= scale << 24;
    const bool yes = reader->offset < split;
    if (!yes) reader->offset -= split;
    reader->range = split;
    if (reader->range >> 32 == 0) {
      std::uint64_t word = 0;
      for (int i = 0; i < 4; ++i) {
        word = word << 8 | (reader->next != reader->end ? *reader->next++ : 0);
      }
      reader->range <<= 32;
      reader->offset = reader->offset << 32 | word;
    }
    sample = 2 * sample + (yes ? 1 : 0);
  }
  return static_cast<std::uint16_t>(sample);
}

// The samples of a segment.
template <class Use>
void for_samples(const SampleRow& row, int width, std::uint16_t* plane, const Use& use) {
  std::uint16_t* const samples = plane + static_cast<std::ptrdiff_t>(row.row) * width;
  for (int column = row.first; column < row.end; column += 2 * row.half) use(samples[column]);
}

}  // namespace

int bound_at(int bound, int half) {
  const int quarters = half == 1 ? 4 : half == 2 ? 3 : half == 4 ? 2 : 1;
  return (bound * quarters + 2) / 4;
}

// How many rows of all passes a channel has coded.
struct SampleTile::Progress {
  std::atomic<std::int64_t> rows[kSampleChannels] = {};
  std::atomic<bool> stopped{false};

  // False if all work has stopped.
  bool wait(int channel, std::int64_t row, const std::function<bool()>& interrupted) {
    for (int spins = 0; rows[channel].load(std::memory_order_acquire) < row; ++spins) {
      if (stopped.load(std::memory_order_relaxed)) return false;
      if (spins < 1000) continue;
      if (interrupted()) stopped = true;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    return true;
  }
};

SampleTile::SampleTile(const TileShape& shape, Variant variant)
    : shape_(shape),
      kernels_(&kernels_of(variant).samples),
      progress_(std::make_unique<Progress>()) {
  VQCODEC_ASSERT(0 < shape.height && 0 < shape.width);
  VQCODEC_ASSERT(0 < shape.channels && shape.channels <= kSampleChannels);
  const std::size_t size = std::size_t{1} * shape.height * shape.width;
  for (int c = 0; c < shape.channels; ++c) {
    samples_.emplace_back(size);
    sizes_.emplace_back(size);
    rounded_.emplace_back(size);
    models_.emplace_back();
    start(c, models_.back().data());
  }
}

SampleTile::~SampleTile() = default;

SampleChannel SampleTile::channel_of(int number) {
  SampleChannel channel = {};
  channel.height = shape_.height;
  channel.width = shape_.width;
  channel.depth = shape_.depth;
  channel.channel = number;
  for (std::size_t c = 0; c < samples_.size(); ++c) {
    channel.samples[c] = samples_[c].data();
    channel.errors[c] = {sizes_[c].data(), rounded_[c].data()};
  }
  channel.model = models_[static_cast<std::size_t>(number)].data();
  channel.tables = &sample_tables();
  return channel;
}

// code(channel, row, slice) for every row of the slices known_ .. end - 1, in segments, until it is
// false. Then other channels stop, too.
template <class Code>
bool SampleTile::run(int number, int end, const std::function<bool()>& interrupted,
                     const Code& code) {
  const SampleChannel channel = channel_of(number);
  std::int64_t done = 0;
  for (const Pass& pass : passes_of(shape_)) {
    const std::int64_t rows = rows_of(top_of(pass), pass.half, shape_.height);
    if (pass.slice < known_) {
      done += rows;
      continue;
    }
    if (pass.slice >= end) break;
    const std::int64_t last = done + rows;
    SampleRow row = {};
    row.half = pass.half;
    row.pass = pass.pass;
    row.bound = bound_at(shape_.bound, pass.half);
    for (row.row = top_of(pass); row.row < shape_.height; row.row += 2 * pass.half) {
      // Channels before are looked at one row ahead.
      if (number > 0 && !progress_->wait(number - 1, std::min(done + 2, last), interrupted))
        return false;
      for (std::int64_t first = left_of(pass); first < shape_.width;
           first += std::int64_t{2} * pass.half * kSegment) {
        row.first = static_cast<int>(first);
        row.end = static_cast<int>(
            std::min<std::int64_t>(shape_.width, first + std::int64_t{2} * pass.half * kSegment));
        if (!code(channel, row, pass.slice) || interrupted()) {
          progress_->stopped = true;
          return false;
        }
      }
      progress_->rows[number].store(++done, std::memory_order_release);
    }
    VQCODEC_ASSERT(done == last);
  }
  return true;
}

// How many bytes the samples of the slices known_ .. end - 1 take as they are.
std::vector<std::size_t> SampleTile::plain_sizes(int end) const {
  std::vector<std::size_t> sizes(static_cast<std::size_t>(end - known_));
  const std::size_t bytes = static_cast<std::size_t>(shape_.depth) / 8;
  if (known_ == 0) sizes[0] = bytes;
  for (const Pass& pass : passes_of(shape_)) {
    if (pass.slice < known_ || pass.slice >= end) continue;
    const std::int64_t rows = rows_of(top_of(pass), pass.half, shape_.height);
    const std::int64_t columns = rows_of(left_of(pass), pass.half, shape_.width);
    sizes[static_cast<std::size_t>(pass.slice - known_)] +=
        static_cast<std::size_t>(rows * columns) * bytes;
  }
  return sizes;
}

bool SampleTile::encode(int channel, int end, Streams* streams,
                        const std::function<bool()>& interrupted) {
  struct Slice {
    RangeEncoder encoder;
    std::vector<std::uint8_t> plain;  // the samples as they are
  };
  std::vector<Slice> slices(static_cast<std::size_t>(end - known_));
  const std::vector<std::size_t> sizes = plain_sizes(end);
  for (std::size_t i = 0; i < slices.size(); ++i) slices[i].plain.reserve(sizes[i]);
  std::vector<Decision> decisions(std::size_t{kMostDecisions} *
                                  static_cast<std::size_t>(std::min(kSegment, shape_.width)));
  const auto keep = [&](Slice& slice, std::uint16_t sample) {
    if (shape_.depth == 16) slice.plain.push_back(static_cast<std::uint8_t>(sample >> 8));
    slice.plain.push_back(static_cast<std::uint8_t>(sample));
  };
  if (known_ == 0) {
    const std::uint16_t first = *samples(channel);
    for (int bit = shape_.depth - 1; bit >= 0; --bit)
      add_decision(2 * 32768 + (first >> bit & 1), &slices[0].encoder);
    keep(slices[0], first);
  }
  const bool complete = run(
      channel, end, interrupted, [&](const SampleChannel& of, const SampleRow& row, int number) {
        Slice& slice = slices[static_cast<std::size_t>(number - known_)];
        for_samples(row, shape_.width, samples(channel),
                    [&](std::uint16_t sample) { keep(slice, sample); });
        const std::ptrdiff_t count = kernels_->encode_row(of, row, decisions.data());
        VQCODEC_ASSERT(count <= static_cast<std::ptrdiff_t>(decisions.size()));
        for (std::ptrdiff_t i = 0; i < count; ++i) {
          add_decision(decisions[static_cast<std::size_t>(i)], &slice.encoder);
        }
        return true;
      });
  for (Slice& slice : slices) {
    std::vector<std::uint8_t> stream = slice.encoder.finish();
    streams->push_back(stream.size() < slice.plain.size() ? stream : slice.plain);
  }
  return complete;
}

bool SampleTile::decode(int channel, int end, const std::vector<Bytes>& streams, bool* corrupt,
                        const std::function<bool()>& interrupted) {
  VQCODEC_ASSERT(streams.size() == static_cast<std::size_t>(end - known_));
  struct Slice {
    DecisionReader reader;
    const std::uint8_t* plain;  // the samples as they are, or null
  };
  std::vector<Slice> slices;
  const std::vector<std::size_t> sizes = plain_sizes(end);
  for (std::size_t i = 0; i < streams.size(); ++i) {
    const Bytes& stream = streams[i];
    Slice slice = {read_decisions(stream.data, stream.size), nullptr};
    if (stream.size == sizes[i] && stream.size != 0) slice.plain = stream.data;
    *corrupt |= stream.size > sizes[i];
    slices.push_back(slice);
  }
  if (*corrupt) {
    stop();
    return true;
  }
  const auto plain = [&](Slice& slice) {
    std::uint32_t sample = *slice.plain++;
    if (shape_.depth == 16) sample = sample << 8 | *slice.plain++;
    return static_cast<std::uint16_t>(sample);
  };
  if (known_ == 0) {
    *samples(channel) = slices[0].plain != nullptr ? plain(slices[0])
                                                   : first_sample(shape_.depth, &slices[0].reader);
  }
  std::vector<Decision> decisions;
  const bool complete = run(
      channel, end, interrupted, [&](const SampleChannel& of, const SampleRow& row, int number) {
        Slice& slice = slices[static_cast<std::size_t>(number - known_)];
        if (slice.plain == nullptr) {
          kernels_->decode_row(of, row, &slice.reader);
          return !slice.reader.corrupt;
        }
        // What an encoder would learn is learned.
        decisions.resize(std::size_t{kMostDecisions} *
                         static_cast<std::size_t>(std::min(kSegment, shape_.width)));
        for_samples(row, shape_.width, samples(channel),
                    [&](std::uint16_t& sample) { sample = plain(slice); });
        kernels_->encode_row(of, row, decisions.data());
        return true;
      });
  for (const Slice& slice : slices) *corrupt |= slice.reader.corrupt;
  return complete || *corrupt;
}

bool SampleTile::draw(int channel, int end, std::optional<std::uint64_t> seed,
                      const std::function<bool()>& interrupted) {
  // Every channel has a sequence of its own.
  std::uint64_t state =
      seed.value_or(0) + static_cast<std::uint64_t>(channel) * 0xD1342543DE82EF95u;
  if (known_ == 0) *samples(channel) = static_cast<std::uint16_t>(1u << (shape_.depth - 1));
  return run(channel, end, interrupted, [&](const SampleChannel& of, const SampleRow& row, int) {
    kernels_->draw_row(of, row, seed ? &state : nullptr);
    return true;
  });
}

void SampleTile::stop() { progress_->stopped = true; }

void SampleTile::fill(int channel) {
  std::uint16_t* const plane = samples(channel);
  const int height = shape_.height, width = shape_.width;
  for (const Pass& pass : passes_of(shape_)) {
    if (pass.slice < known_) continue;
    const int half = pass.half, step = pass.pass == 0 ? half : 0;
    // Across the diagonals, or above, below, left and right.
    const int taps[4][2] = {{-half, -step}, {half, step}, {step, -half}, {-step, half}};
    for (int y = top_of(pass); y < height; y += 2 * half) {
      for (int x = left_of(pass); x < width; x += 2 * half) {
        std::uint32_t sum = 0, count = 0;
        for (const auto& tap : taps) {
          const int yy = y + tap[0], xx = x + tap[1];
          // In pass 1, rows above and below are known; in pass 2 all.
          if (yy < 0 || xx < 0 || yy >= height || xx >= width) continue;
          sum += plane[static_cast<std::ptrdiff_t>(yy) * width + xx];
          ++count;
        }
        plane[static_cast<std::ptrdiff_t>(y) * width + x] =
            static_cast<std::uint16_t>((sum + count / 2) / count);
      }
    }
  }
}

bool code_samples(SampleJob job, int end, std::vector<TileJob>* tiles,
                  const std::function<bool()>& interrupted) {
  struct Task {
    TileJob* tile;
    int channel;
    bool corrupt;
    bool done;
  };
  std::vector<Task> tasks;
  for (TileJob& tile : *tiles) {
    for (int c = 0; c < tile.tile->shape().channels; ++c) tasks.push_back({&tile, c, false, false});
    tile.written.resize(static_cast<std::size_t>(tile.tile->shape().channels));
  }
  const auto work = [&](int channel, TileJob& tile, bool* corrupt) {
    const auto c = static_cast<std::size_t>(channel);
    switch (job) {
      case SampleJob::encode: return tile.tile->encode(channel, end, &tile.written[c], interrupted);
      case SampleJob::decode:
        return tile.tile->decode(channel, end, tile.read[c], corrupt, interrupted);
      case SampleJob::draw: break;
    }
    return tile.tile->draw(channel, end, tile.seed, interrupted);
  };
  // Tasks begin in order, so that no channel waits for one that has not begun.
  std::atomic<std::size_t> next{0};
  parallel_for(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t) {
    Task& task = tasks[next.fetch_add(1)];
    SampleTile& tile = *task.tile->tile;
    try {
      task.done = work(task.channel, *task.tile, &task.corrupt);
    } catch (...) {
      tile.stop();
      throw;
    }
  });
  for (const Task& task : tasks) task.tile->corrupt |= task.corrupt;
  for (TileJob& tile : *tiles) tile.tile->advance(end);
  // Channels of a corrupt tile stop.
  return std::all_of(tasks.begin(), tasks.end(),
                     [](const Task& task) { return task.done || task.tile->corrupt; });
}

}  // namespace vqcodec
