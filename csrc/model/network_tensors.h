// The tensors of an integer network as they arrive from a model file. Nothing about them is
// trusted.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/convolution.h"
#include "nn/kernels.h"

namespace vqcodec {

// How many channels a plane has, and how many pixels of the image lie between its positions in each
// direction.
struct PlaneShape {
  std::int64_t channels = 0;
  std::int64_t stride = 0;
};

// A convolution of `phases` groups of `outputs` sums: weight is phases x outputs x taps x inputs.
struct KernelTensors {
  const std::int8_t* weight = nullptr;
  const std::int32_t* bias = nullptr;   // phases x outputs
  const std::uint8_t* shift = nullptr;  // phases x outputs
  std::int64_t phases = 0;
  std::int64_t outputs = 0;
  std::int64_t taps = 0;
  std::int64_t inputs = 0;
  std::vector<Offset> offsets;  // phases x taps
};

enum class LayerKind { unshuffle, convolution, residual, concatenate, add, subtract };

// A layer reads the planes `sources` and makes the next plane (docs/FORMAT.md, "Autoencoder").
struct LayerTensors {
  LayerKind kind = LayerKind::add;
  std::vector<std::int64_t> sources;
  std::int64_t factor = 1;                   // unshuffle
  KernelTensors first;                       // convolution, residual
  KernelTensors second;                      // residual
  std::int64_t stride = 1;                   // convolution
  std::int64_t upscale = 1;                  // convolution
  Activation activation = Activation::none;  // convolution, residual
};

// Planes 0, 1, ... are the inputs, the others are made by one layer each.
struct NetworkTensors {
  std::vector<PlaneShape> inputs;
  std::vector<LayerTensors> layers;
  std::vector<std::int64_t> outputs;  // numbers of planes
};

}  // namespace vqcodec
