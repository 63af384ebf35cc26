#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "cpu/prior_frequencies.h"
#include "cpu/prior_network.h"
#include "cpu/prior_wavefront.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

using cpu::CodeMap;
using cpu::ConvTensors;
using cpu::PriorNetwork;
using cpu::PriorTensors;

// Contiguous, and of exactly this type: arguments are declared noconvert or cast by `as`.
template <class T>
using Array = py::array_t<T, py::array::c_style>;
using NetworkPointer = std::shared_ptr<PriorNetwork>;

[[noreturn]] void raise_invalid(const std::string& message) {
  raise_unless_ok(Status::invalid_argument(message));
  throw std::logic_error("unreachable");
}

// An array of the given type and number of dimensions; never converted or copied.
template <class T>
Array<T> as(const char* name, py::handle object, int dimensions) {
  if (!py::isinstance<Array<T>>(object)) {
    raise_invalid(std::string(name) + " must be a contiguous array of " +
                  std::string(py::str(py::dtype::of<T>())) + ", got " +
                  std::string(py::str(py::type::of(object))));
  }
  auto array = py::reinterpret_borrow<Array<T>>(object);
  if (array.ndim() != dimensions) {
    raise_invalid(std::string(name) + " must have " + std::to_string(dimensions) +
                  " dimensions, got " + std::to_string(array.ndim()));
  }
  return array;
}

template <class T>
cpu::TableView<T> table(const char* name, py::handle object) {
  const Array<T> array = as<T>(name, object, 2);
  return {array.data(), array.shape(0), array.shape(1)};
}

template <class T>
cpu::TableView<T> vector(const char* name, py::handle object) {
  const Array<T> array = as<T>(name, object, 1);
  return {array.data(), array.shape(0), 1};
}

// (weight, bias, shift)
ConvTensors conv(const py::tuple& tensors) {
  if (tensors.size() != 3) raise_invalid("a convolution must be (weight, bias, shift)");
  const auto weight = as<std::int8_t>("weight", tensors[0], 3);
  const auto bias = as<std::int32_t>("bias", tensors[1], 1);
  const auto shift = as<std::uint8_t>("shift", tensors[2], 1);
  if (bias.shape(0) != weight.shape(0) || shift.shape(0) != weight.shape(0)) {
    raise_invalid("weight, bias and shift must agree on the number of outputs");
  }
  return {weight.data(), bias.data(),     shift.data(),
          weight.shape(0), weight.shape(1), weight.shape(2)};
}

// (in, out, attention)
cpu::BlockTensors block(const py::tuple& tensors) {
  if (tensors.size() != 3) raise_invalid("a block must be (in, out, attention)");
  return {conv(tensors[0]), conv(tensors[1]), tensors[2].cast<bool>()};
}

NetworkPointer load_prior(int kernel, int first_kernel, int heads, int num_blocks,
                          std::vector<int> factors, const py::object& embedding,
                          const py::tuple& first, const py::object& classes,
                          const py::object& levels, const std::vector<py::object>& coarser,
                          const std::optional<py::tuple>& condition_in,
                          const std::vector<py::tuple>& condition,
                          const std::vector<py::tuple>& layers, const py::tuple& logits,
                          const py::object& tanh, const py::object& sigmoid,
                          const py::object& exp) {
  PriorTensors tensors;
  tensors.kernel = kernel;
  tensors.first_kernel = first_kernel;
  tensors.heads = heads;
  tensors.num_blocks = num_blocks;
  tensors.factors = std::move(factors);
  tensors.embedding = table<std::int8_t>("embedding", embedding);
  tensors.first = conv(first);
  tensors.classes = table<std::int16_t>("classes", classes);
  tensors.levels = table<std::int16_t>("levels", levels);
  for (const py::object& each : coarser) {
    tensors.coarser.push_back(table<std::int8_t>("coarser", each));
  }
  if (condition_in) tensors.condition_in = conv(*condition_in);
  for (const py::tuple& each : condition) tensors.condition.push_back(block(each));
  for (const py::tuple& each : layers) tensors.layers.push_back(block(each));
  tensors.logits = conv(logits);
  tensors.tanh = vector<std::int8_t>("tanh", tanh);
  tensors.sigmoid = vector<std::int8_t>("sigmoid", sigmoid);
  tensors.exp = vector<std::uint16_t>("exp", exp);

  std::shared_ptr<const PriorNetwork> network;
  raise_unless_ok(PriorNetwork::create(tensors, &network));
  return std::const_pointer_cast<PriorNetwork>(network);  // Python can only pass it on
}

cpu::Variant select(const std::string& requested) {
  cpu::Variant variant;
  raise_unless_ok(cpu::select_variant(requested, &variant));
  return variant;
}

CodeMap code_map(const Array<std::int32_t>& codes) {
  const auto side = [](py::ssize_t size) {
    if (size > (1 << 20)) raise_invalid("a map must be at most 1048576 codes wide and high");
    return static_cast<int>(size);
  };
  if (codes.ndim() != 2) raise_invalid("codes must have 2 dimensions");
  return {codes.data(), side(codes.shape(0)), side(codes.shape(1))};
}

py::tuple prior_frequencies(const NetworkPointer& prior, const Array<std::int32_t>& codes,
                            const std::vector<Array<std::int32_t>>& coarser, int class_id,
                            int level, const std::string& requested) {
  if (coarser.size() != prior->coarser.size()) {
    raise_invalid("the prior has " + std::to_string(prior->coarser.size()) +
                  " coarser maps, got " + std::to_string(coarser.size()));
  }
  std::vector<CodeMap> maps;
  for (const auto& map : coarser) maps.push_back(code_map(map));
  const cpu::PriorTile tile = {class_id, level, maps.data(), code_map(codes)};
  const cpu::Variant variant = select(requested);

  Array<std::int64_t> start(codes.size()), frequency(codes.size());
  std::int64_t* const start_out = start.mutable_data();
  std::int64_t* const frequency_out = frequency.mutable_data();
  Status status;
  {
    py::gil_scoped_release release;
    status = cpu::prior_frequencies(*prior, tile, variant, start_out, frequency_out);
  }
  raise_unless_ok(status);
  return py::make_tuple(start, frequency);
}

// Lets Python's signal handlers run (Ctrl-C): asked often and from any thread, it looks some
// times a second on the thread that called.
class SignalCheck {
 public:
  bool operator()() {
    if (std::this_thread::get_id() != caller_) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return false;
    next_ = now + std::chrono::milliseconds(50);
    py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  }

 private:
  const std::thread::id caller_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now();
};

cpu::ByteStream stream(const py::bytes& bytes, std::int64_t) {
  const std::string_view view = bytes;
  return {reinterpret_cast<const std::uint8_t*>(view.data()), view.size()};
}

cpu::WordStream stream(const Array<std::uint32_t>& words, std::int64_t codes) {
  if (words.ndim() != 1 || words.shape(0) != codes) {
    raise_invalid("words must have shape [" + std::to_string(codes) + "], one for every code");
  }
  return {words.data()};
}

// (class_id, level, given maps, shapes of the others, streams of the others)
template <class Stream>
using JobTuple = std::tuple<int, int, std::vector<Array<std::int32_t>>,
                            std::vector<std::pair<int, int>>, std::vector<Stream>>;

// Runs wavefront_decode or wavefront_sample: the maps of every job that were not given, and for
// every job the number of its first corrupt map, or -1.
template <class Stream, class Loop>
py::tuple run_wavefront(const std::vector<NetworkPointer>& priors,
                        const std::vector<JobTuple<Stream>>& jobs, const Loop& loop) {
  using Job = cpu::WavefrontJob<decltype(stream(std::declval<const Stream&>(), 0))>;
  std::vector<const PriorNetwork*> networks;
  for (const NetworkPointer& prior : priors) networks.push_back(prior.get());

  std::vector<std::vector<Array<std::int32_t>>> results;
  std::vector<Job> unpacked;
  for (const auto& [class_id, level, given, shapes, streams] : jobs) {
    if (shapes.size() != streams.size()) raise_invalid("every map needs a shape and a stream");
    Job job{class_id, level, {}, {}, {}};
    for (const auto& map : given) job.maps.push_back(code_map(map));
    std::vector<Array<std::int32_t>> maps;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const auto [height, width] = shapes[i];
      if (height < 1 || width < 1) raise_invalid("a map must have at least one code");
      maps.emplace_back(std::vector<py::ssize_t>{height, width});
      job.maps.push_back(code_map(maps.back()));
      job.outputs.push_back(maps.back().mutable_data());
      job.streams.push_back(stream(streams[i], job.maps.back().size()));
    }
    results.push_back(std::move(maps));
    unpacked.push_back(std::move(job));
  }

  SignalCheck signal_check;
  cpu::WavefrontOutcome outcome;
  Status status;
  {
    py::gil_scoped_release release;
    status = loop(networks, unpacked, std::ref(signal_check), &outcome);
  }
  raise_unless_ok(status);
  if (outcome.interrupted) throw py::error_already_set();
  return py::make_tuple(results, outcome.corrupt);
}

py::tuple wavefront_decode(const std::vector<NetworkPointer>& priors,
                           const std::vector<JobTuple<py::bytes>>& jobs,
                           const std::string& requested) {
  const cpu::Variant variant = select(requested);
  return run_wavefront<py::bytes>(
      priors, jobs, [&](const auto& networks, const auto& unpacked, auto check, auto* outcome) {
        return cpu::wavefront_decode(networks, unpacked, variant, check, outcome);
      });
}

py::tuple wavefront_sample(const std::vector<NetworkPointer>& priors,
                           const std::vector<JobTuple<Array<std::uint32_t>>>& jobs,
                           int sharpness, const std::string& requested) {
  const cpu::Variant variant = select(requested);
  return run_wavefront<Array<std::uint32_t>>(
      priors, jobs, [&](const auto& networks, const auto& unpacked, auto check, auto* outcome) {
        return cpu::wavefront_sample(networks, unpacked, sharpness, variant, check, outcome);
      });
}

}  // namespace

void bind_prior(py::module_& module) {
  py::class_<PriorNetwork, NetworkPointer>(module, "PriorNetwork",
                                           "A prior, packed for the kernels. Immutable.");
  module.def("load_prior", &load_prior, py::kw_only(), py::arg("kernel"), py::arg("first_kernel"),
             py::arg("heads"), py::arg("num_blocks"), py::arg("factors"), py::arg("embedding"),
             py::arg("first"), py::arg("classes"), py::arg("levels"), py::arg("coarser"),
             py::arg("condition_in"), py::arg("condition"), py::arg("layers"), py::arg("logits"),
             py::arg("tanh"), py::arg("sigmoid"), py::arg("exp"));
  module.def("prior_frequencies", &prior_frequencies, py::arg("prior"), py::arg("codes"),
             py::arg("coarser"), py::arg("class_id"), py::arg("level"), py::arg("variant") = "");
  module.def("wavefront_decode", &wavefront_decode, py::arg("priors"), py::arg("jobs"),
             py::arg("variant") = "");
  module.def("wavefront_sample", &wavefront_sample, py::arg("priors"), py::arg("jobs"),
             py::arg("sharpness") = 256, py::arg("variant") = "");
}

}  // namespace vqcodec::bindings
