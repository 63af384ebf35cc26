// The kernels of integer networks on GPUs: one for every step, with all that belongs to it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/status.h"
#include "cuda/integer_network.h"
#include "cuda/window_pass.h"

namespace vqcodec::cuda {

// A step of a network on regions of its planes. Those of the sources hold all that it needs.
struct StepRegions {
  const PlaneView* sources = nullptr;  // as many as the step has
  PlaneView addend;                    // convolution; without data: none
  std::int32_t height = 0, width = 0;  // of the whole plane that is read
  PlaneView made;                      // from multiples of upscale to multiples of upscale
};

Status run_step(const NetworkStep& step, const StepRegions& regions, cudaStream_t stream);

// Copies what `to` has of `from`, whose region holds it.
Status copy_positions(const PlaneView& from, const PlaneView& to, cudaStream_t stream);

}  // namespace vqcodec::cuda
