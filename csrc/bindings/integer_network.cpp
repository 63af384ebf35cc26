// Integer networks, and the autoencoder that is made of them.
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "autoencoder/autoencoder.h"
#include "bindings/arguments.h"
#include "network/integer_network.h"
#include "network/plane_rows.h"
#include "network/row_pass.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

using NetworkPointer = std::shared_ptr<IntegerNetwork>;
using PlaneArray = Array<std::int16_t>;

// (weight, bias, shift, offsets): offsets are int32, phases x taps x 2.
KernelTensors kernel(py::handle object) {
  const auto tensors = object.cast<py::tuple>();
  if (tensors.size() != 4) raise_invalid("a kernel must be (weight, bias, shift, offsets)");
  const auto weight = as<std::int8_t>("weight", tensors[0], 4);
  const auto bias = as<std::int32_t>("bias", tensors[1], 2);
  const auto shift = as<std::uint8_t>("shift", tensors[2], 2);
  const auto offsets = as<std::int32_t>("offsets", tensors[3], 3);
  for (int axis : {0, 1}) {
    if (bias.shape(axis) != weight.shape(axis) || shift.shape(axis) != weight.shape(axis)) {
      raise_invalid("weight, bias and shift must agree on phases and outputs");
    }
  }
  if (offsets.shape(0) != weight.shape(0) || offsets.shape(1) != weight.shape(2) ||
      offsets.shape(2) != 2) {
    raise_invalid("offsets must be phases x taps x 2");
  }
  KernelTensors found = {weight.data(),   bias.data(),     shift.data(),    weight.shape(0),
                         weight.shape(1), weight.shape(2), weight.shape(3), {}};
  const std::int32_t* offset = offsets.data();
  for (py::ssize_t i = 0; i < offsets.size(); i += 2) {
    found.offsets.push_back({offset[i], offset[i + 1]});
  }
  return found;
}

Activation activation(const std::string& name) {
  if (name == "relu") return Activation::relu;
  if (name == "leaky") return Activation::leaky;
  if (name != "none") raise_invalid("activation must be none, relu or leaky, got '" + name + "'");
  return Activation::none;
}

// ("unshuffle", source, factor), ("convolution", source, kernel, stride, upscale, activation),
// ("residual", source, first, second, activation), ("concatenate", sources), ("add", a, b) or
// ("subtract", a, b)
LayerTensors layer(py::handle object) {
  const auto parts = object.cast<py::tuple>();
  const auto name = parts.size() == 0 ? std::string() : parts[0].cast<std::string>();
  const auto expect = [&](std::size_t size) {
    if (parts.size() != size) raise_invalid("layer '" + name + "' has a wrong number of parts");
  };
  const auto number = [&](int part) { return parts[part].cast<std::int64_t>(); };
  LayerTensors found;
  if (name == "concatenate") {
    expect(2);
    found.kind = LayerKind::concatenate;
    found.sources = parts[1].cast<std::vector<std::int64_t>>();
    return found;
  }
  if (name == "add" || name == "subtract") {
    expect(3);
    found.kind = name == "add" ? LayerKind::add : LayerKind::subtract;
    found.sources = {number(1), number(2)};
    return found;
  }
  if (name == "unshuffle") {
    expect(3);
    found.kind = LayerKind::unshuffle;
    found.factor = number(2);
  } else if (name == "convolution") {
    expect(6);
    found.kind = LayerKind::convolution;
    found.first = kernel(parts[2]);
    found.stride = number(3);
    found.upscale = number(4);
    found.activation = activation(parts[5].cast<std::string>());
  } else if (name == "residual") {
    expect(5);
    found.kind = LayerKind::residual;
    found.first = kernel(parts[2]);
    found.second = kernel(parts[3]);
    found.activation = activation(parts[4].cast<std::string>());
  } else {
    raise_invalid("unknown layer '" + name + "'");
  }
  found.sources = {number(1)};
  return found;
}

NetworkPointer load_network(const std::vector<std::pair<std::int64_t, std::int64_t>>& inputs,
                            const py::sequence& layers, const std::vector<std::int64_t>& outputs) {
  NetworkTensors tensors;
  for (const auto& [channels, stride] : inputs) tensors.inputs.push_back({channels, stride});
  for (py::handle each : layers) tensors.layers.push_back(layer(each));
  tensors.outputs = outputs;
  std::shared_ptr<const IntegerNetwork> network;
  raise_unless_ok(IntegerNetwork::create(tensors, &network));
  return std::const_pointer_cast<IntegerNetwork>(network);  // Python can only pass it on
}

PlaneArray plane_array(const Plane& plane, const ImageSize& size) {
  return PlaneArray(std::vector<py::ssize_t>{size.height / plane.stride, size.width / plane.stride,
                                             plane.channels});
}

std::vector<PlaneArray> run_network(const NetworkPointer& network,
                                    const std::vector<PlaneArray>& planes,
                                    const std::string& requested) {
  const Variant variant = variant_of(requested);
  std::vector<InputPlane> inputs;
  for (const PlaneArray& plane : planes) {
    if (plane.ndim() != 3) raise_invalid("a plane must be height x width x channels");
    inputs.push_back({plane.data(), plane.shape(0), plane.shape(1), plane.shape(2)});
  }
  ImageSize size;
  raise_unless_ok(image_size(*network, inputs, &size));
  std::vector<PlaneArray> made;
  std::vector<std::int16_t*> outputs;
  for (int output : network->outputs) {
    made.push_back(plane_array(network->planes[output], size));
    outputs.push_back(made.back().mutable_data());
  }
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::run_network(*network, variant, size, inputs, outputs, interrupted);
  });
  return made;
}

using AutoencoderPointer = std::shared_ptr<Autoencoder>;
using MapArrays = std::vector<Array<std::int32_t>>;

// maps: (stride, the first channel that it refines or None, codebook) of each
AutoencoderPointer load_autoencoder(
    const std::vector<std::tuple<std::int64_t, std::optional<std::int64_t>, PlaneArray>>& maps,
    const NetworkPointer& analysis, const std::vector<NetworkPointer>& latents,
    const NetworkPointer& synthesis) {
  std::vector<MapTensors> tensors;
  for (const auto& [stride, refines, codebook] : maps) {
    if (codebook.ndim() != 2) raise_invalid("a codebook must be codes x channels");
    tensors.push_back({stride, refines, {codebook.data(), codebook.shape(0), codebook.shape(1)}});
  }
  std::shared_ptr<const Autoencoder> autoencoder;
  raise_unless_ok(Autoencoder::create(tensors, analysis, {latents.begin(), latents.end()},
                                      synthesis, &autoencoder));
  return std::const_pointer_cast<Autoencoder>(autoencoder);
}

ImageSize checked_size(const IntegerNetwork& network, std::int64_t height, std::int64_t width) {
  raise_unless_ok(check_size(network, height, width));
  return {static_cast<int>(height), static_cast<int>(width)};
}

CodeMaps checked_maps(const Autoencoder& autoencoder, const ImageSize& size,
                      const MapArrays& arrays) {
  CodeMaps maps;
  for (const auto& map : arrays) {
    if (map.ndim() != 2) raise_invalid("codes must have 2 dimensions");
    maps.push_back({map.data(), map.shape(0), map.shape(1)});
  }
  raise_unless_ok(check_maps(autoencoder, size, maps));
  return maps;
}

// window: height and width of the image, in pixels; box: top, left, height and width of what is
// wanted of it
Array<std::uint8_t> autoencoder_pixels(const AutoencoderPointer& autoencoder,
                                       const MapArrays& arrays,
                                       const std::pair<std::int64_t, std::int64_t>& window,
                                       const std::tuple<int, int, int, int>& box,
                                       const std::string& requested) {
  const Variant variant = variant_of(requested);
  const ImageSize size = checked_size(*autoencoder->synthesis, window.first, window.second);
  const CodeMaps maps = checked_maps(*autoencoder, size, arrays);
  const auto [top, left, height, width] = box;
  if (top < 0 || left < 0 || height < 0 || width < 0 || height > size.height - top ||
      width > size.width - left) {
    raise_invalid("the box must lie within the window");
  }
  Array<std::uint8_t> pixels(std::vector<py::ssize_t>{height, width, 3});
  std::uint8_t* const out = pixels.mutable_data();
  const Box wanted = {top, left, height, width};
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_pixels(*autoencoder, variant, size, maps, wanted, out, interrupted);
  });
  return pixels;
}

std::vector<PlaneArray> autoencoder_features(const AutoencoderPointer& autoencoder,
                                             const Array<std::uint8_t>& pixels,
                                             const std::string& requested) {
  const Variant variant = variant_of(requested);
  if (pixels.ndim() != 3 || pixels.shape(2) != 3)
    raise_invalid("pixels must be height x width x 3");
  const ImageSize size = checked_size(*autoencoder->analysis, pixels.shape(0), pixels.shape(1));
  std::vector<PlaneArray> features;
  std::vector<std::int16_t*> outputs;
  for (int output : autoencoder->analysis->outputs) {
    features.push_back(plane_array(autoencoder->analysis->planes[output], size));
    outputs.push_back(features.back().mutable_data());
  }
  const std::uint8_t* const from = pixels.data();
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_features(*autoencoder, variant, size, from, outputs, interrupted);
  });
  return features;
}

// stride: its number, coarse to fine
PlaneArray autoencoder_latents(const AutoencoderPointer& autoencoder, std::size_t stride,
                               const PlaneArray& features, const MapArrays& arrays,
                               const std::string& requested) {
  const Variant variant = variant_of(requested);
  if (stride >= autoencoder->latents.size()) raise_invalid("there is no such stride");
  if (features.ndim() != 3) raise_invalid("features must be height x width x channels");
  const IntegerNetwork& network = *autoencoder->latents[stride];
  const Plane& read = network.planes[0];
  if (features.shape(2) != read.channels || features.shape(0) > kMaxSide ||
      features.shape(1) > kMaxSide) {
    raise_invalid("features must have " + std::to_string(read.channels) + " channels");
  }
  const ImageSize size =
      checked_size(network, features.shape(0) * read.stride, features.shape(1) * read.stride);
  const CodeMaps maps = checked_maps(*autoencoder, size, arrays);
  PlaneArray latents = plane_array(network.planes[network.outputs[0]], size);
  const std::int16_t* const from = features.data();
  std::int16_t* const to = latents.mutable_data();
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_latents(*autoencoder, static_cast<int>(stride), variant, size, from,
                                        maps, to, interrupted);
  });
  return latents;
}

}  // namespace

void bind_integer_network(py::module_& module) {
  py::class_<IntegerNetwork, NetworkPointer>(
      module, "IntegerNetwork", py::module_local(),
      "An integer network, packed for the kernels. Immutable.");
  module.def("load_network", &load_network, py::arg("inputs"), py::arg("layers"),
             py::arg("outputs"));
  module.def("run_network", &run_network, py::arg("network"), py::arg("planes").noconvert(),
             py::arg("variant") = "");

  py::class_<Autoencoder, AutoencoderPointer>(module, "Autoencoder", py::module_local(),
                                              "Codebooks and networks. Immutable.");
  module.def("load_autoencoder", &load_autoencoder, py::arg("maps"), py::arg("analysis"),
             py::arg("latents"), py::arg("synthesis"));
  module.def("autoencoder_pixels", &autoencoder_pixels, py::arg("autoencoder"),
             py::arg("maps").noconvert(), py::arg("window"), py::arg("box"),
             py::arg("variant") = "");
  module.def("autoencoder_features", &autoencoder_features, py::arg("autoencoder"),
             py::arg("pixels").noconvert(), py::arg("variant") = "");
  module.def("autoencoder_latents", &autoencoder_latents, py::arg("autoencoder"), py::arg("stride"),
             py::arg("features").noconvert(), py::arg("maps").noconvert(), py::arg("variant") = "");
}

}  // namespace vqcodec::bindings
