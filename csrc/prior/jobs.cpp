#include "prior/jobs.h"

#include <algorithm>
#include <string>

#include "coding/wavefront_order.h"

namespace vqcodec {
namespace {

Status check_stream(const PriorNetwork&, const CodeMap&, const ByteStream&) { return {}; }
Status check_stream(const PriorNetwork&, const CodeMap&, const WordStream&) { return {}; }
Status check_stream(const PriorNetwork& network, const CodeMap& map,
                    const CandidateStream& stream) {
  if (stream.count < 1) return Status::invalid_argument("every code needs a candidate");
  const std::int64_t size = map.size() * stream.count;
  for (std::int64_t i = 0; i < size; ++i) {
    if (stream.codes[i] < 0 || stream.codes[i] >= network.codes) {
      return Status::invalid_argument("candidates must be in 0.." +
                                      std::to_string(network.codes - 1) + ", got " +
                                      std::to_string(stream.codes[i]));
    }
  }
  return {};
}

template <class Stream>
Status check_job(const std::vector<const PriorNetwork*>& networks,
                 const WavefrontJob<Stream>& job) {
  if (job.maps.size() < networks.size() || job.outputs.size() != networks.size() ||
      job.streams.size() != networks.size()) {
    return Status::invalid_argument(
        "every prior needs a map and a stream: " + std::to_string(networks.size()) + " priors, " +
        std::to_string(job.maps.size()) + " maps, " + std::to_string(job.streams.size()) +
        " streams");
  }
  const std::size_t known = job.maps.size() - networks.size();
  for (std::size_t map = 0; map < networks.size(); ++map) {
    const PriorNetwork& network = *networks[map];
    const std::string name = "map " + std::to_string(known + map) + ": ";
    if (network.coarser.size() != known + map) {
      return Status::invalid_argument(name + "its prior has " +
                                      std::to_string(network.coarser.size()) +
                                      " coarser maps, expected " + std::to_string(known + map));
    }
    const PriorTile tile = {job.class_id, job.level, job.maps.data(), job.maps[known + map]};
    Status status = check_tile(network, tile);
    if (status.ok()) status = check_stream(network, tile.own, job.streams[map]);
    if (!status.ok()) return Status::invalid_argument(name + status.message());
    for (std::size_t j = 0; j < known; ++j) {
      status = check_codes(job.maps[j], network.coarser[j].codes, "map " + std::to_string(j));
      if (!status.ok()) return status;
    }
    for (std::size_t j = 0; j < map; ++j) {
      if (networks[j]->codes > network.coarser[known + j].codes) {
        return Status::invalid_argument(name + "its prior expects fewer codes of map " +
                                        std::to_string(known + j) + " than that map has");
      }
    }
  }
  return {};
}

// Height and width of every map.
template <class Stream>
std::vector<int> shapes(const WavefrontJob<Stream>& job) {
  std::vector<int> sides;
  for (const CodeMap& map : job.maps) sides.insert(sides.end(), {map.height, map.width});
  return sides;
}

}  // namespace

template <class Stream>
Status check_jobs(const std::vector<const PriorNetwork*>& networks,
                  const std::vector<WavefrontJob<Stream>>& jobs) {
  for (const WavefrontJob<Stream>& job : jobs) {
    if (Status status = check_job(networks, job); !status.ok()) return status;
  }
  return {};
}

template <class Stream>
std::vector<JobGroup> group_by_shape(const std::vector<WavefrontJob<Stream>>& jobs, int lag) {
  std::vector<std::size_t> order(jobs.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return shapes(jobs[a]) < shapes(jobs[b]); });
  std::vector<JobGroup> groups;
  for (std::size_t job : order) {
    const CodeMap& finest = jobs[job].maps.back();
    const Wavefront wavefront{finest.height, finest.width, lag};
    const auto size = static_cast<std::size_t>(std::max(1, kGroupPositions / wavefront.widest()));
    if (groups.empty() || groups.back().size() >= size ||
        shapes(jobs[groups.back().front()]) != shapes(jobs[job])) {
      groups.emplace_back();
    }
    groups.back().push_back(job);
  }
  return groups;
}

template Status check_jobs(const std::vector<const PriorNetwork*>&, const std::vector<DecodeJob>&);
template Status check_jobs(const std::vector<const PriorNetwork*>&, const std::vector<SampleJob>&);
template Status check_jobs(const std::vector<const PriorNetwork*>&, const std::vector<ChooseJob>&);
template std::vector<JobGroup> group_by_shape(const std::vector<DecodeJob>&, int);
template std::vector<JobGroup> group_by_shape(const std::vector<SampleJob>&, int);
template std::vector<JobGroup> group_by_shape(const std::vector<ChooseJob>&, int);

}  // namespace vqcodec
