#include "bindings/network_arguments.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

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

PlaneArray plane_array(const Plane& plane, const ImageSize& size) {
  return PlaneArray(std::vector<py::ssize_t>{size.height / plane.stride, size.width / plane.stride,
                                             plane.channels});
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

// Planes for all outputs of a network.
void make_outputs(const IntegerNetwork& network, const ImageSize& size,
                  std::vector<PlaneArray>* made, std::vector<std::int16_t*>* outputs) {
  for (int output : network.outputs) {
    made->push_back(plane_array(network.planes[output], size));
    outputs->push_back(made->back().mutable_data());
  }
}

}  // namespace

std::shared_ptr<const IntegerNetwork> integer_network(const InputShapes& inputs,
                                                      const py::sequence& layers,
                                                      const std::vector<std::int64_t>& outputs) {
  NetworkTensors tensors;
  for (const auto& [channels, stride] : inputs) tensors.inputs.push_back({channels, stride});
  for (py::handle each : layers) tensors.layers.push_back(layer(each));
  tensors.outputs = outputs;
  std::shared_ptr<const IntegerNetwork> network;
  raise_unless_ok(IntegerNetwork::create(tensors, &network));
  return network;
}

std::shared_ptr<const Autoencoder> integer_autoencoder(
    const MapTuples& maps, const Autoencoder::Network& analysis,
    const std::vector<Autoencoder::Network>& latents, const Autoencoder::Network& synthesis) {
  std::vector<MapTensors> tensors;
  for (const auto& [stride, refines, codebook] : maps) {
    if (codebook.ndim() != 2) raise_invalid("a codebook must be codes x channels");
    tensors.push_back({stride, refines, {codebook.data(), codebook.shape(0), codebook.shape(1)}});
  }
  std::shared_ptr<const Autoencoder> autoencoder;
  raise_unless_ok(Autoencoder::create(tensors, analysis, latents, synthesis, &autoencoder));
  return autoencoder;
}

NetworkCall::NetworkCall(const IntegerNetwork& network, const std::vector<PlaneArray>& planes) {
  for (const PlaneArray& plane : planes) {
    if (plane.ndim() != 3) raise_invalid("a plane must be height x width x channels");
    inputs.push_back({plane.data(), plane.shape(0), plane.shape(1), plane.shape(2)});
  }
  raise_unless_ok(image_size(network, inputs, &size));
  make_outputs(network, size, &made, &outputs);
}

PixelCall::PixelCall(const Autoencoder& autoencoder, const MapArrays& arrays,
                     const std::pair<std::int64_t, std::int64_t>& window,
                     const std::tuple<int, int, int, int>& part)
    : size(checked_size(*autoencoder.synthesis, window.first, window.second)),
      maps(checked_maps(autoencoder, size, arrays)) {
  const auto [top, left, height, width] = part;
  if (top < 0 || left < 0 || height < 0 || width < 0 || height > size.height - top ||
      width > size.width - left) {
    raise_invalid("the box must lie within the window");
  }
  box = {top, left, height, width};
  made = PixelArray(std::vector<py::ssize_t>{height, width, 3});
  pixels = made.mutable_data();
}

FeatureCall::FeatureCall(const Autoencoder& autoencoder, const PixelArray& from) {
  if (from.ndim() != 3 || from.shape(2) != 3) raise_invalid("pixels must be height x width x 3");
  size = checked_size(*autoencoder.analysis, from.shape(0), from.shape(1));
  pixels = from.data();
  make_outputs(*autoencoder.analysis, size, &made, &features);
}

LatentCall::LatentCall(const Autoencoder& autoencoder, std::size_t number, const PlaneArray& from,
                       const MapArrays& arrays) {
  if (number >= autoencoder.latents.size()) raise_invalid("there is no such stride");
  if (from.ndim() != 3) raise_invalid("features must be height x width x channels");
  const IntegerNetwork& network = *autoencoder.latents[number];
  const Plane& read = network.planes[0];
  if (from.shape(2) != read.channels || from.shape(0) > kMaxSide || from.shape(1) > kMaxSide) {
    raise_invalid("features must have " + std::to_string(read.channels) + " channels");
  }
  stride = static_cast<int>(number);
  size = checked_size(network, from.shape(0) * read.stride, from.shape(1) * read.stride);
  features = from.data();
  maps = checked_maps(autoencoder, size, arrays);
  made = plane_array(network.planes[network.outputs[0]], size);
  latents = made.mutable_data();
}

}  // namespace vqcodec::bindings
