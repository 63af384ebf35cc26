#include "prior/prior_frequencies.h"

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"
#include "coding/wavefront_order.h"
#include "prior/prior_pass.h"

namespace vqcodec {
namespace {

constexpr int kStepsPerTask = 8;

// Knows the codes, and notes their intervals.
class KnownCodes final : public CodeSource {
 public:
  KnownCodes(const CodeMap& map, int lag, std::int64_t* start, std::int64_t* frequency)
      : start_(start), frequency_(frequency) {
    const Wavefront wavefront{map.height, map.width, lag};
    codes_.reserve(static_cast<std::size_t>(map.size()));
    for (int t = 0; t < wavefront.steps(); ++t) {
      const RowRange rows = wavefront.rows(t);
      for (int row = rows.begin; row < rows.end; ++row) {
        codes_.push_back(map.codes[std::int64_t{row} * map.width + t - lag * row]);
      }
    }
  }

  std::int32_t choose(int, std::int64_t position, const FrequencyTable& table) override {
    const CodeInterval interval = table.of(codes_[static_cast<std::size_t>(position)]);
    start_[position] = interval.start;
    frequency_[position] = interval.frequency;
    return interval.code;
  }

 private:
  std::vector<std::int32_t> codes_;  // in coding order
  std::int64_t* start_;
  std::int64_t* frequency_;
};

}  // namespace

Status prior_frequencies(const PriorNetwork& network, const PriorTile& tile, Variant variant,
                         std::int64_t* start, std::int64_t* frequency) {
  if (Status status = check_known_tile(network, tile); !status.ok()) return status;

  KnownCodes source(tile.own, network.lag, start, frequency);
  PriorPass pass(network, variant, Schedule::whole_map, {tile}, source);
  const int steps = pass.wavefront().steps();
  const int tasks = (steps + kStepsPerTask - 1) / kStepsPerTask;
  for (const PriorPass::Stage& stage : pass.stages()) {
    parallel_for(tasks, [&](std::int64_t task) {
      const auto scratch = pass.make_scratch();
      const int first = static_cast<int>(task) * kStepsPerTask;
      const int last = std::min(first + kStepsPerTask, steps);
      for (int t = first; t < last; ++t) pass.run(stage, t, *scratch);
    });
  }
  return {};
}

}  // namespace vqcodec
