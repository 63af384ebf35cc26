// wavefront_decode and wavefront_sample on a GPU: the fused loop that makes codes.
// Definition: wavefront in vqcodec/ops/reference/prior.py, to the bit.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "base/status.h"
#include "coding/sampling_rule.h"
#include "cuda/prior_network.h"
#include "prior/jobs.h"

namespace vqcodec::cuda {

// As prior/wavefront.h, on the device that holds the networks. Arguments and results are in host
// memory.
Status wavefront_decode(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<DecodeJob>& jobs, cudaStream_t stream,
                        WavefrontOutcome* outcome);
Status wavefront_sample(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<SampleJob>& jobs, const SamplingRule& rule,
                        cudaStream_t stream, WavefrontOutcome* outcome);

}  // namespace vqcodec::cuda
