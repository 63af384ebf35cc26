// What the bindings of the prior's ops share, whichever processor runs them: Python's tensors,
// jobs and results as csrc/prior and csrc/cuda take them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/bindings.h"
#include "model/prior_tensors.h"
#include "prior/jobs.h"
#include "prior/prior_network.h"
#include "prior/tiles.h"

namespace vqcodec::bindings {

// Views of the arrays of a prior, which must outlive them. The keys:
//     kernel, first_kernel, heads, num_blocks       numbers
//     factors                                       numbers, one for every coarser map
//     embedding, classes, levels, coarser           tables (a list of them for the last)
//     first, condition_in (or None), logits         (weight, bias, shift)
//     condition, layers                             lists of (in, out, attention)
//     tanh, sigmoid, exp                            vectors
PriorTensors prior_tensors(const pybind11::dict& tensors);

CodeMap code_map(const Array<std::int32_t>& codes);

ByteStream stream(const pybind11::bytes& bytes, std::int64_t codes);
WordStream stream(const Array<std::uint32_t>& words, std::int64_t codes);
// (codes, costs), each codes x count
using Candidates = std::pair<Array<std::int32_t>, Array<std::int32_t>>;
CandidateStream stream(const Candidates& candidates, std::int64_t codes);

// (class_id, level, given maps, shapes of the others, streams of the others)
template <class Stream>
using JobTuple = std::tuple<int, int, std::vector<Array<std::int32_t>>,
                            std::vector<std::pair<int, int>>, std::vector<Stream>>;
using DecodeTuple = JobTuple<pybind11::bytes>;
using SampleTuple = JobTuple<Array<std::uint32_t>>;
using ChooseTuple = JobTuple<Candidates>;

// Runs wavefront_decode or wavefront_sample: the maps of every job that were not given, and for
// every job the number of its first corrupt map, or -1. `loop(jobs, interrupted, outcome)` is
// called without the GIL.
template <class Stream, class Loop>
pybind11::tuple run_wavefront(const std::vector<JobTuple<Stream>>& jobs, const Loop& loop) {
  using Job = WavefrontJob<decltype(stream(std::declval<const Stream&>(), 0))>;
  std::vector<std::vector<Array<std::int32_t>>> results;
  std::vector<Job> unpacked;
  for (const auto& [class_id, level, given, shapes, streams] : jobs) {
    if (shapes.size() != streams.size()) raise_invalid("every map needs a shape and a stream");
    Job job{class_id, level, {}, {}, {}};
    for (const auto& map : given) job.maps.push_back(code_map(map));
    std::vector<Array<std::int32_t>> maps;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const auto [height, width] = shapes[i];
      if (height < 1 || width < 1) raise_invalid("a map must have at least one code");
      maps.emplace_back(std::vector<pybind11::ssize_t>{height, width});
      job.maps.push_back(code_map(maps.back()));
      job.outputs.push_back(maps.back().mutable_data());
      job.streams.push_back(stream(streams[i], job.maps.back().size()));
    }
    results.push_back(std::move(maps));
    unpacked.push_back(std::move(job));
  }

  SignalCheck signal_check;
  WavefrontOutcome outcome;
  Status status;
  {
    pybind11::gil_scoped_release release;
    status = loop(unpacked, std::ref(signal_check), &outcome);
  }
  raise_unless_ok(status);
  if (outcome.interrupted) throw pybind11::error_already_set();
  return pybind11::make_tuple(results, outcome.corrupt);
}

// What a prior is applied to, besides its own map: checks the number of coarser maps.
std::vector<CodeMap> coarser_maps(const PriorNetwork& network,
                                  const std::vector<Array<std::int32_t>>& coarser);

}  // namespace vqcodec::bindings
