// What the wavefront loop is asked to do, and how it shares the work out: the same on the CPU and
// on a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"
#include "prior/prior_network.h"
#include "prior/tiles.h"

namespace vqcodec {

// Where the codes of one map come from: the bytes of a range coder, 24-bit uniform words, or
// candidates with their costs.
struct ByteStream {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
};
struct WordStream {
  const std::uint32_t* words = nullptr;  // below 2^24, one for every code, in coding order
};
struct CandidateStream {
  const std::int32_t* codes = nullptr;  // `count` for every code of the map, in coding order
  const std::int32_t* costs = nullptr;  // likewise: of anything but the code's bits, in 1/256 bit
  int count = 0;
};

// One picture: `maps` are all its maps, coarse to fine. The first ones are known; the others are
// written, each to its own memory, and have a stream each.
template <class Stream>
struct WavefrontJob {
  int class_id = 0;
  int level = 0;
  std::vector<CodeMap> maps;
  std::vector<std::int32_t*> outputs;  // of the maps that are not known
  std::vector<Stream> streams;         // likewise
};

using DecodeJob = WavefrontJob<ByteStream>;
using SampleJob = WavefrontJob<WordStream>;
using ChooseJob = WavefrontJob<CandidateStream>;

struct WavefrontOutcome {
  // `interrupted` said true: codes are missing.
  bool interrupted = false;
  // For every job the number of its first map (counting all, from 0) whose stream no encoder can
  // have written, or -1. Codes from there on mean nothing, but are in range.
  std::vector<int> corrupt;
};

// invalid_argument: numbers of maps and streams that do not fit the networks; see also
// check_tile; a known code that its codebook does not have; for a ChooseJob a candidate that the
// codebook does not have, or none.
template <class Stream>
Status check_jobs(const std::vector<const PriorNetwork*>& networks,
                  const std::vector<WavefrontJob<Stream>>& jobs);

// Numbers of jobs whose maps have equal shapes and which go through the loop together.
using JobGroup = std::vector<std::size_t>;

// Small tiles are grouped, so that a step has at least about kGroupPositions positions: fewer would
// not keep the arithmetic units busy. `lag` is that of the finest map's prior. Every job has a map.
inline constexpr int kGroupPositions = 32;
template <class Stream>
std::vector<JobGroup> group_by_shape(const std::vector<WavefrontJob<Stream>>& jobs, int lag);

}  // namespace vqcodec
