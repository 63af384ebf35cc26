#include "bindings/prior_arguments.h"

#include <string_view>

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

template <class T>
TableView<T> table(const char* name, py::handle object) {
  const Array<T> array = as<T>(name, object, 2);
  return {array.data(), array.shape(0), array.shape(1)};
}

template <class T>
TableView<T> vector(const char* name, py::handle object) {
  const Array<T> array = as<T>(name, object, 1);
  return {array.data(), array.shape(0), 1};
}

// (weight, bias, shift)
ConvTensors conv(py::handle object) {
  const auto tensors = object.cast<py::tuple>();
  if (tensors.size() != 3) raise_invalid("a convolution must be (weight, bias, shift)");
  const auto weight = as<std::int8_t>("weight", tensors[0], 3);
  const auto bias = as<std::int32_t>("bias", tensors[1], 1);
  const auto shift = as<std::uint8_t>("shift", tensors[2], 1);
  if (bias.shape(0) != weight.shape(0) || shift.shape(0) != weight.shape(0)) {
    raise_invalid("weight, bias and shift must agree on the number of outputs");
  }
  return {weight.data(),   bias.data(),     shift.data(),
          weight.shape(0), weight.shape(1), weight.shape(2)};
}

// (in, out, attention)
BlockTensors block(py::handle object) {
  const auto tensors = object.cast<py::tuple>();
  if (tensors.size() != 3) raise_invalid("a block must be (in, out, attention)");
  return {conv(tensors[0]), conv(tensors[1]), tensors[2].cast<bool>()};
}

}  // namespace

PriorTensors prior_tensors(const py::dict& tensors) {
  const auto get = [&](const char* name) -> py::object {
    if (!tensors.contains(name)) raise_invalid(std::string("a prior needs ") + name);
    return tensors[name];
  };
  PriorTensors found;
  found.kernel = get("kernel").cast<int>();
  found.first_kernel = get("first_kernel").cast<int>();
  found.heads = get("heads").cast<int>();
  found.num_blocks = get("num_blocks").cast<int>();
  found.factors = get("factors").cast<std::vector<int>>();
  found.embedding = table<std::int8_t>("embedding", get("embedding"));
  found.first = conv(get("first"));
  found.classes = table<std::int16_t>("classes", get("classes"));
  found.levels = table<std::int16_t>("levels", get("levels"));
  for (py::handle each : get("coarser")) {
    found.coarser.push_back(table<std::int8_t>("coarser", each));
  }
  const py::object condition_in = get("condition_in");
  if (!condition_in.is_none()) found.condition_in = conv(condition_in);
  for (py::handle each : get("condition")) found.condition.push_back(block(each));
  for (py::handle each : get("layers")) found.layers.push_back(block(each));
  found.logits = conv(get("logits"));
  found.tanh = vector<std::int8_t>("tanh", get("tanh"));
  found.sigmoid = vector<std::int8_t>("sigmoid", get("sigmoid"));
  found.exp = vector<std::uint16_t>("exp", get("exp"));
  return found;
}

CodeMap code_map(const Array<std::int32_t>& codes) {
  const auto side = [](py::ssize_t size) {
    if (size > (1 << 20)) raise_invalid("a map must be at most 1048576 codes wide and high");
    return static_cast<int>(size);
  };
  if (codes.ndim() != 2) raise_invalid("codes must have 2 dimensions");
  return {codes.data(), side(codes.shape(0)), side(codes.shape(1))};
}

std::vector<CodeMap> coarser_maps(const PriorNetwork& network,
                                  const std::vector<Array<std::int32_t>>& coarser) {
  if (coarser.size() != network.coarser.size()) {
    raise_invalid("the prior has " + std::to_string(network.coarser.size()) +
                  " coarser maps, got " + std::to_string(coarser.size()));
  }
  std::vector<CodeMap> maps;
  for (const auto& map : coarser) maps.push_back(code_map(map));
  return maps;
}

ByteStream stream(const py::bytes& bytes, std::int64_t) {
  const std::string_view view = bytes;
  return {reinterpret_cast<const std::uint8_t*>(view.data()), view.size()};
}

WordStream stream(const Array<std::uint32_t>& words, std::int64_t codes) {
  if (words.ndim() != 1 || words.shape(0) != codes) {
    raise_invalid("words must have shape [" + std::to_string(codes) + "], one for every code");
  }
  return {words.data()};
}

CandidateStream stream(const Candidates& candidates, std::int64_t codes) {
  const auto& [numbers, costs] = candidates;
  if (numbers.ndim() != 2 || numbers.shape(0) != codes || costs.ndim() != 2 ||
      costs.shape(0) != codes || costs.shape(1) != numbers.shape(1)) {
    raise_invalid("candidates and their costs must have shape [" + std::to_string(codes) +
                  ", count], one row for every code");
  }
  return {numbers.data(), costs.data(), static_cast<int>(numbers.shape(1))};
}

}  // namespace vqcodec::bindings
