#include "prior/wavefront.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/thread_pool.h"
#include "coding/code_bits.h"
#include "coding/frequency_table.h"
#include "coding/range_decoder.h"
#include "prior/prior_pass.h"

namespace vqcodec {
namespace {

static_assert(RangeDecoder::total == kFrequencyTotal, "the coder and the tables agree");

// How far a map is: the number of steps whose codes are written. Has a cache line to itself.
//
// Whoever waits for a step spins for a moment, as the next one is usually only microseconds away,
// and then sleeps: on a busy machine the thread that it waits for may need this very core.
class alignas(64) Progress {
 public:
  void publish(int steps) {
    // Sequentially consistent with `sleepers_`: either this thread sees the sleeper, or the sleeper
    // sees this step before it sleeps.
    steps_.store(steps);
    if (sleepers_.load() != 0) wake();
  }

  // Those who wait look at `stop` again. Called after it has been set.
  void wake() const {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
    }
    changed_.notify_all();
  }

  // Waits until `steps` steps are complete; false if `stop` is set first.
  bool wait_for(int steps, const std::atomic<bool>& stop) const {
    const auto ready = [&] { return steps_.load(std::memory_order_acquire) >= steps; };
    for (int tries = 0; tries < kSpins; ++tries) {
      if (ready()) return true;
      if (stop.load(std::memory_order_relaxed)) return false;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    changed_.wait(lock, [&] { return steps_.load() >= steps || stop.load(); });
    sleepers_.fetch_sub(1);
    return ready();
  }

 private:
  static constexpr int kSpins = 1000;
  std::atomic<int> steps_{0};
  mutable std::atomic<int> sleepers_{0};
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
};

// Decodes the streams of a group of tiles.
class Decoders final : public CodeSource {
 public:
  using Stream = ByteStream;

  void add(const ByteStream& stream) {
    tiles_.push_back({RangeDecoder(stream.data, stream.size), false});
  }
  bool corrupt(std::size_t tile) const { return tiles_[tile].corrupt; }

  std::int32_t choose(int number, std::int64_t, const FrequencyTable& table) override {
    Tile& tile = tiles_[static_cast<std::size_t>(number)];
    if (tile.corrupt) return 0;
    const std::uint64_t quantile = tile.decoder.quantile();
    if (quantile >= RangeDecoder::total) {
      tile.corrupt = true;
      return 0;
    }
    const CodeInterval found = table.find(static_cast<std::uint32_t>(quantile));
    tile.decoder.consume(found.start, found.frequency);
    return found.code;
  }

 private:
  struct Tile {
    RangeDecoder decoder;
    bool corrupt;
  };
  std::vector<Tile> tiles_;
};

// Draws the codes of a group of tiles.
class Samplers final : public CodeSource {
 public:
  using Stream = WordStream;

  void add(const WordStream& stream) { tiles_.push_back(stream.words); }
  bool corrupt(std::size_t) const { return false; }

  std::int32_t choose(int tile, std::int64_t position, const FrequencyTable& table) override {
    return table.find(tiles_[static_cast<std::size_t>(tile)][position]).code;
  }

 private:
  std::vector<const std::uint32_t*> tiles_;
};

// Chooses the codes of a group of tiles for an encoder.
class Choosers final : public CodeSource {
 public:
  using Stream = CandidateStream;

  void add(const CandidateStream& stream) { tiles_.push_back(stream); }
  bool corrupt(std::size_t) const { return false; }

  std::int32_t choose(int tile, std::int64_t position, const FrequencyTable& table) override {
    const CandidateStream& stream = tiles_[static_cast<std::size_t>(tile)];
    const std::int32_t* const codes = stream.codes + position * stream.count;
    const std::int32_t* const costs = stream.costs + position * stream.count;
    int best = 0;
    std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
    for (int i = 0; i < stream.count; ++i) {
      if (costs[i] >= lowest) continue;  // bits are never negative
      const std::int64_t cost = std::int64_t{costs[i]} + code_bits(table.of(codes[i]).frequency);
      if (cost < lowest) {
        lowest = cost;
        best = i;
      }
    }
    return codes[best];
  }

 private:
  std::vector<CandidateStream> tiles_;
};

template <class Source>
class WavefrontLoop {
 public:
  using Job = WavefrontJob<typename Source::Stream>;

  WavefrontLoop(const std::vector<const PriorNetwork*>& networks, const std::vector<Job>& jobs,
                const SamplingRule& rule, Variant variant, const std::function<bool()>& interrupted)
      : networks_(networks),
        jobs_(jobs),
        rule_(rule),
        variant_(variant),
        interrupted_(interrupted) {}

  void run(WavefrontOutcome* outcome) {
    const std::vector<Task> tasks = plan();
    corrupt_.assign(jobs_.size() * networks_.size(), 0);
    parallel_for(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t i) {
      try {
        run_task(tasks[static_cast<std::size_t>(i)]);
      } catch (...) {
        stop();  // nobody may wait for this map
        throw;
      }
    });
    outcome->interrupted = stop_;
    outcome->corrupt.assign(jobs_.size(), -1);
    for (std::size_t job = 0; job < jobs_.size(); ++job) {
      const auto begin = corrupt_.begin() + job * networks_.size();
      const auto found = std::find(begin, begin + networks_.size(), 1);
      if (found == begin + networks_.size()) continue;
      outcome->corrupt[job] = static_cast<int>(known_maps(jobs_[job]) + (found - begin));
    }
  }

 private:
  // Tiles of equal shapes, and how far each of their maps is.
  struct Group {
    Group(JobGroup numbers, std::size_t maps) : jobs(std::move(numbers)), progress(maps) {}
    const JobGroup jobs;
    std::vector<Progress> progress;  // of the maps that are not known
  };
  struct Task {
    Group* group;
    std::size_t map;  // among those that are not known
  };

  std::size_t known_maps(const Job& job) const { return job.maps.size() - networks_.size(); }

  PriorTile tile(const Job& job, std::size_t map) const {
    return {job.class_id, job.level, job.maps.data(), job.maps[known_maps(job) + map],
            job.outputs[map]};
  }

  // As many groups as there are threads work side by side, map by map. A task waits only for
  // tasks before it in the list, so it does not matter how many threads take tasks from it.
  std::vector<Task> plan() {
    std::vector<Task> tasks;
    if (networks_.empty()) return tasks;
    for (JobGroup& jobs : group_by_shape(jobs_, networks_.back()->lag)) {
      groups_.push_back(std::make_unique<Group>(std::move(jobs), networks_.size()));
    }
    const auto abreast = static_cast<std::size_t>(get_num_threads());
    for (std::size_t first = 0; first < groups_.size(); first += abreast) {
      const std::size_t last = std::min(first + abreast, groups_.size());
      for (std::size_t map = 0; map < networks_.size(); ++map) {
        for (std::size_t g = first; g < last; ++g) tasks.push_back({groups_[g].get(), map});
      }
    }
    return tasks;
  }

  void run_task(const Task& task) {
    const PriorNetwork& network = *networks_[task.map];
    Group& group = *task.group;
    std::vector<PriorTile> tiles;
    Source source;
    for (std::size_t job : group.jobs) {
      tiles.push_back(tile(jobs_[job], task.map));
      source.add(jobs_[job].streams[task.map]);
    }
    PriorPass pass(network, variant_, Schedule::stepwise, std::move(tiles), source, rule_);
    const auto scratch = pass.make_scratch();

    const int lead = network.condition_lead();
    for (int t = -lead; t < pass.wavefront().steps(); ++t) {
      if (stop_.load(std::memory_order_relaxed)) return;
      if (interrupted_()) stop();
      if (!wait_for_coarser(task, pass.wavefront(), t + lead)) return;
      for (const PriorPass::Stage& stage : pass.stages()) {
        if (t + stage.lead >= 0) pass.run(stage, t + stage.lead, *scratch);
      }
      if (t >= 0) group.progress[task.map].publish(t + 1);
    }
    for (std::size_t i = 0; i < group.jobs.size(); ++i) {
      corrupt_[group.jobs[i] * networks_.size() + task.map] = source.corrupt(i);
    }
  }

  void stop() {
    stop_ = true;
    for (const std::unique_ptr<Group>& group : groups_) {
      for (const Progress& progress : group->progress) progress.wake();
    }
  }

  // Waits for the coarser maps' codes at the positions of step t; false when stopped.
  bool wait_for_coarser(const Task& task, const Wavefront& wavefront, int t) const {
    const PriorNetwork& network = *networks_[task.map];
    const std::size_t known = network.coarser.size() - task.map;
    const RowRange rows = wavefront.rows(t);
    for (std::size_t j = 0; j < task.map; ++j) {
      const int factor = network.coarser[known + j].factor;
      int steps = 0;
      for (int row = rows.begin; row < rows.end; ++row) {
        const int column = t - wavefront.lag * row;
        steps = std::max(steps, step_of(row / factor, column / factor, networks_[j]->lag) + 1);
      }
      if (!task.group->progress[j].wait_for(steps, stop_)) return false;
    }
    return true;
  }

  const std::vector<const PriorNetwork*>& networks_;
  const std::vector<Job>& jobs_;
  const SamplingRule rule_;
  const Variant variant_;
  const std::function<bool()>& interrupted_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<char> corrupt_;  // job, map
  std::atomic<bool> stop_{false};
};

template <class Source>
Status run(const std::vector<const PriorNetwork*>& networks,
           const std::vector<WavefrontJob<typename Source::Stream>>& jobs, const SamplingRule& rule,
           Variant variant, const std::function<bool()>& interrupted, WavefrontOutcome* outcome) {
  if (Status status = check_rule(rule); !status.ok()) return status;
  if (Status status = check_jobs(networks, jobs); !status.ok()) return status;
  WavefrontLoop<Source>(networks, jobs, rule, variant, interrupted).run(outcome);
  return {};
}

}  // namespace

Status wavefront_decode(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<DecodeJob>& jobs, Variant variant,
                        const std::function<bool()>& interrupted, WavefrontOutcome* outcome) {
  return run<Decoders>(networks, jobs, {}, variant, interrupted, outcome);
}

Status wavefront_sample(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<SampleJob>& jobs, const SamplingRule& rule,
                        Variant variant, const std::function<bool()>& interrupted,
                        WavefrontOutcome* outcome) {
  return run<Samplers>(networks, jobs, rule, variant, interrupted, outcome);
}

Status wavefront_choose(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<ChooseJob>& jobs, Variant variant,
                        const std::function<bool()>& interrupted, WavefrontOutcome* outcome) {
  return run<Choosers>(networks, jobs, {}, variant, interrupted, outcome);
}

}  // namespace vqcodec
