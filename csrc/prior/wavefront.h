// wavefront_decode, wavefront_sample and wavefront_choose on the CPU: the maps of pictures, code by
// code.
// Definition: wavefront in vqcodec/ops/reference/prior.py.
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

#include <functional>
#include <vector>

#include "base/status.h"
#include "coding/sampling_rule.h"
#include "nn/instruction_set.h"
#include "prior/jobs.h"
#include "prior/prior_network.h"

namespace vqcodec {

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

}  // namespace vqcodec
