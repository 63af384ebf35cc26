// The prior's ops on the CPU.
#include <functional>
#include <string>

#include "bindings/prior_arguments.h"
#include "prior/prior_frequencies.h"
#include "prior/wavefront.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

using NetworkPointer = std::shared_ptr<PriorNetwork>;

NetworkPointer load_prior(const py::kwargs& tensors) {
  std::shared_ptr<const PriorNetwork> network;
  raise_unless_ok(PriorNetwork::create(prior_tensors(tensors), &network));
  return std::const_pointer_cast<PriorNetwork>(network);  // Python can only pass it on
}

py::tuple prior_frequencies(const NetworkPointer& prior, const Array<std::int32_t>& codes,
                            const std::vector<Array<std::int32_t>>& coarser, int class_id,
                            int level, const std::string& requested) {
  const std::vector<CodeMap> maps = coarser_maps(*prior, coarser);
  const PriorTile tile = {class_id, level, maps.data(), code_map(codes)};
  const Variant variant = variant_of(requested);

  Array<std::int64_t> start(codes.size()), frequency(codes.size());
  std::int64_t* const start_out = start.mutable_data();
  std::int64_t* const frequency_out = frequency.mutable_data();
  Status status;
  {
    py::gil_scoped_release release;
    status = vqcodec::prior_frequencies(*prior, tile, variant, start_out, frequency_out);
  }
  raise_unless_ok(status);
  return py::make_tuple(start, frequency);
}

std::vector<const PriorNetwork*> pointers(const std::vector<NetworkPointer>& priors) {
  std::vector<const PriorNetwork*> networks;
  for (const NetworkPointer& prior : priors) networks.push_back(prior.get());
  return networks;
}

py::tuple wavefront_decode(const std::vector<NetworkPointer>& priors,
                           const std::vector<DecodeTuple>& jobs, const std::string& requested) {
  const Variant variant = variant_of(requested);
  return run_wavefront(jobs, [&](const auto& unpacked, const auto& check, auto* outcome) {
    return vqcodec::wavefront_decode(pointers(priors), unpacked, variant, check, outcome);
  });
}

py::tuple wavefront_sample(const std::vector<NetworkPointer>& priors,
                           const std::vector<SampleTuple>& jobs, int sharpness, int nucleus,
                           const std::string& requested) {
  const Variant variant = variant_of(requested);
  return run_wavefront(jobs, [&](const auto& unpacked, const auto& check, auto* outcome) {
    return vqcodec::wavefront_sample(pointers(priors), unpacked, {sharpness, nucleus}, variant,
                                     check, outcome);
  });
}

py::tuple wavefront_choose(const std::vector<NetworkPointer>& priors,
                           const std::vector<ChooseTuple>& jobs, const std::string& requested) {
  const Variant variant = variant_of(requested);
  return run_wavefront(jobs, [&](const auto& unpacked, const auto& check, auto* outcome) {
    return vqcodec::wavefront_choose(pointers(priors), unpacked, variant, check, outcome);
  });
}

}  // namespace

void bind_prior(py::module_& module) {
  py::class_<PriorNetwork, NetworkPointer>(module, "PriorNetwork", py::module_local(),
                                           "A prior, packed for the kernels. Immutable.");
  module.def("load_prior", &load_prior);
  module.def("prior_frequencies", &prior_frequencies, py::arg("prior"), py::arg("codes"),
             py::arg("coarser"), py::arg("class_id"), py::arg("level"), py::arg("variant") = "");
  module.def("wavefront_decode", &wavefront_decode, py::arg("priors"), py::arg("jobs"),
             py::arg("variant") = "");
  module.def("wavefront_sample", &wavefront_sample, py::arg("priors"), py::arg("jobs"),
             py::arg("sharpness") = 256, py::arg("nucleus") = 65536, py::arg("variant") = "");
  module.def("wavefront_choose", &wavefront_choose, py::arg("priors"), py::arg("jobs"),
             py::arg("variant") = "");
}

}  // namespace vqcodec::bindings
