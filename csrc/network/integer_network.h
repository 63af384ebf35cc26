// An integer network, checked and packed for the kernels of nn/kernels.h: planes of int16 and the
// steps that make them (docs/FORMAT.md, "Autoencoder").
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "model/network_tensors.h"
#include "nn/convolution.h"
#include "nn/kernels.h"

namespace vqcodec {

// Adjacent phases of a convolution whose taps are the same: they are computed together.
struct PhaseGroup {
  Conv conv;  // (phases of the group) x outputs
  int first;
  int count;
};

// What makes one plane of others. Every layer is one step, but for a residual block whose second
// convolution sees more than one position: then its inner features are a plane of their own.
struct Step {
  LayerKind kind;
  std::vector<int> sources;
  int plane = 0;   // that the step makes
  int factor = 1;  // unshuffle
  // convolution, and the second one of a residual block
  std::vector<PhaseGroup> phases;
  int stride = 1;
  int upscale = 1;
  int addend = -1;  // a plane that is added to the sums, or -1
  Activation activation = Activation::none;
  Conv inner;  // residual: the first convolution
};

struct Plane {
  int channels = 0;
  int stride = 1;          // pixels of the image between positions
  bool convolved = false;  // some convolution reads it
};

// Immutable, and usable by any number of threads and by every variant of the kernels.
class IntegerNetwork {
 public:
  // invalid_argument: planes that do not exist yet, sizes that contradict each other or are out of
  // range, a sum that could leave int32.
  static Status create(const NetworkTensors& tensors,
                       std::shared_ptr<const IntegerNetwork>* network);

  int num_inputs = 0;
  std::vector<Plane> planes;  // inputs first
  std::vector<Step> steps;    // each reads planes that are inputs or made by steps before it
  std::vector<int> outputs;

  // The largest stride of a plane.
  int coarsest_stride() const;
  // Multiply-accumulates for an image of height x width pixels, which all strides divide.
  std::int64_t macs(int height, int width) const;
};

}  // namespace vqcodec
