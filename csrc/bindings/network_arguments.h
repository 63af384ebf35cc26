// What the bindings of integer networks share, whichever processor runs them: layers, planes and
// code maps as csrc/network, csrc/autoencoder and csrc/cuda take them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "autoencoder/autoencoder.h"
#include "bindings/arguments.h"
#include "bindings/bindings.h"
#include "network/integer_network.h"
#include "network/plane_rows.h"

namespace vqcodec::bindings {

using PlaneArray = Array<std::int16_t>;
using PixelArray = Array<std::uint8_t>;
using MapArrays = std::vector<Array<std::int32_t>>;

// inputs: (channels, stride) of each; layers: each is one of
//     ("unshuffle", source, factor)
//     ("convolution", source, kernel, stride, upscale, activation)
//     ("residual", source, first, second, activation)
//     ("concatenate", sources)
//     ("add", a, b), ("subtract", a, b)
// and kernels (weight, bias, shift, offsets); outputs: numbers of planes.
using InputShapes = std::vector<std::pair<std::int64_t, std::int64_t>>;
std::shared_ptr<const IntegerNetwork> integer_network(const InputShapes& inputs,
                                                      const pybind11::sequence& layers,
                                                      const std::vector<std::int64_t>& outputs);

// Of each: stride, the first channel that it refines or None, codebook.
using MapTuples = std::vector<std::tuple<std::int64_t, std::optional<std::int64_t>, PlaneArray>>;
std::shared_ptr<const Autoencoder> integer_autoencoder(
    const MapTuples& maps, const Autoencoder::Network& analysis,
    const std::vector<Autoencoder::Network>& latents, const Autoencoder::Network& synthesis);

// Arguments and results of run_network.
struct NetworkCall {
  NetworkCall(const IntegerNetwork& network, const std::vector<PlaneArray>& planes);

  ImageSize size;
  std::vector<InputPlane> inputs;
  std::vector<PlaneArray> made;
  std::vector<std::int16_t*> outputs;
};

// Arguments and results of the ops of an autoencoder.
// window: height and width of the image, in pixels; part: top, left, height and width of what is
// wanted of it.
struct PixelCall {
  PixelCall(const Autoencoder& autoencoder, const MapArrays& maps,
            const std::pair<std::int64_t, std::int64_t>& window,
            const std::tuple<int, int, int, int>& part);

  ImageSize size;
  CodeMaps maps;
  Box box;
  PixelArray made;
  std::uint8_t* pixels;
};

struct FeatureCall {
  FeatureCall(const Autoencoder& autoencoder, const PixelArray& from);

  ImageSize size;
  const std::uint8_t* pixels;
  std::vector<PlaneArray> made;
  std::vector<std::int16_t*> features;
};

// number: of the stride, coarse to fine.
struct LatentCall {
  LatentCall(const Autoencoder& autoencoder, std::size_t number, const PlaneArray& from,
             const MapArrays& arrays);

  int stride;
  ImageSize size;
  const std::int16_t* features;
  CodeMaps maps;
  PlaneArray made;
  std::int16_t* latents;
};

}  // namespace vqcodec::bindings
