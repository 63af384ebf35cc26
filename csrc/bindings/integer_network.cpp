// Integer networks.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

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
    const Plane& plane = network->planes[output];
    made.emplace_back(std::vector<py::ssize_t>{size.height / plane.stride,
                                               size.width / plane.stride, plane.channels});
    outputs.push_back(made.back().mutable_data());
  }
  SignalCheck signal_check;
  bool complete;
  {
    py::gil_scoped_release release;
    complete = vqcodec::run_network(*network, variant, size, inputs, outputs, std::ref(signal_check));
  }
  if (!complete) throw py::error_already_set();
  return made;
}

}  // namespace

void bind_integer_network(py::module_& module) {
  py::class_<IntegerNetwork, NetworkPointer>(module, "IntegerNetwork", py::module_local(),
                                             "An integer network, packed for the kernels. Immutable.");
  module.def("load_network", &load_network, py::arg("inputs"), py::arg("layers"),
             py::arg("outputs"));
  module.def("run_network", &run_network, py::arg("network"), py::arg("planes"),
             py::arg("variant") = "");
}

}  // namespace vqcodec::bindings
