// wavefront_decode, wavefront_sample and wavefront_choose on the CPU: the maps of pictures, code by
// code.
// Definition: wavefront in vqcodec/ops/ref.py.
//
// One task produces one map of a group of equally shaped tiles, step by step. Tasks are taken
// in order of their maps, so with n threads n maps are at work, each some steps behind the map
// before it: as many as its conditioning stack looks ahead.
//
//     thread 1    map 0 ........ map 2 ............
//     thread 2       map 1 ............ map 3 ............
//
// With one thread every map finds the maps before it complete and never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "prior/prior_pass.h"

namespace vqcodec::cpu {

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
  const float* costs = nullptr;         // likewise: distortion, in bits
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
// check_tile; a known code that its codebook does not have.
Status check_jobs(const std::vector<const PriorNetwork*>& networks,
                  const std::vector<DecodeJob>& jobs);
Status check_jobs(const std::vector<const PriorNetwork*>& networks,
                  const std::vector<SampleJob>& jobs);
Status check_jobs(const std::vector<const PriorNetwork*>& networks,
                  const std::vector<ChooseJob>& jobs);

// invalid_argument: a number outside 1..65536.
Status check_rule(const SamplingRule& rule);

// networks[m] is the prior of the m-th map that is not known. `interrupted` is asked at every
// step, by all threads.
// invalid_argument: see check_jobs.
Status wavefront_decode(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<DecodeJob>& jobs, Variant variant,
                        const std::function<bool()>& interrupted, WavefrontOutcome* outcome);

// Each code is the one whose interval holds its word.
// invalid_argument: see check_jobs and check_rule.
Status wavefront_sample(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<SampleJob>& jobs, const SamplingRule& rule,
                        Variant variant, const std::function<bool()>& interrupted,
                        WavefrontOutcome* outcome);

// For an encoder: each code is the candidate with the lowest cost + bits, the first of equals. Bits
// are those of its frequency, given the codes chosen before it: what it will cost.
// invalid_argument: see check_jobs; a candidate that the codebook does not have; no candidates.
Status wavefront_choose(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<ChooseJob>& jobs, Variant variant,
                        const std::function<bool()>& interrupted, WavefrontOutcome* outcome);

}  // namespace vqcodec::cpu
