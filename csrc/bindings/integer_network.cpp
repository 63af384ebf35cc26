// Integer networks, and the autoencoder that is made of them.
#include <memory>
#include <string>
#include <vector>

#include "bindings/network_arguments.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

// Python can only pass them on.
using NetworkPointer = std::shared_ptr<IntegerNetwork>;
using AutoencoderPointer = std::shared_ptr<Autoencoder>;

NetworkPointer load_network(const InputShapes& inputs, const py::sequence& layers,
                            const std::vector<std::int64_t>& outputs) {
  return std::const_pointer_cast<IntegerNetwork>(integer_network(inputs, layers, outputs));
}

std::vector<PlaneArray> run_network(const NetworkPointer& network,
                                    const std::vector<PlaneArray>& planes,
                                    const std::string& requested) {
  const Variant variant = variant_of(requested);
  const NetworkCall call(*network, planes);
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::run_network(*network, variant, call.size, call.inputs, call.outputs,
                                interrupted);
  });
  return call.made;
}

AutoencoderPointer load_autoencoder(const MapTuples& maps, const NetworkPointer& analysis,
                                    const std::vector<NetworkPointer>& latents,
                                    const NetworkPointer& synthesis) {
  return std::const_pointer_cast<Autoencoder>(
      integer_autoencoder(maps, analysis, {latents.begin(), latents.end()}, synthesis));
}

PixelArray autoencoder_pixels(const AutoencoderPointer& autoencoder, const MapArrays& maps,
                              const std::pair<std::int64_t, std::int64_t>& window,
                              const std::tuple<int, int, int, int>& box,
                              const std::string& requested) {
  const Variant variant = variant_of(requested);
  const PixelCall call(*autoencoder, maps, window, box);
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_pixels(*autoencoder, variant, call.size, call.maps, call.box,
                                       call.pixels, interrupted);
  });
  return call.made;
}

std::vector<PlaneArray> autoencoder_features(const AutoencoderPointer& autoencoder,
                                             const PixelArray& pixels,
                                             const std::string& requested) {
  const Variant variant = variant_of(requested);
  const FeatureCall call(*autoencoder, pixels);
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_features(*autoencoder, variant, call.size, call.pixels,
                                         call.features, interrupted);
  });
  return call.made;
}

// stride: its number, coarse to fine
PlaneArray autoencoder_latents(const AutoencoderPointer& autoencoder, std::size_t stride,
                               const PlaneArray& features, const MapArrays& maps,
                               const std::string& requested) {
  const Variant variant = variant_of(requested);
  const LatentCall call(*autoencoder, stride, features, maps);
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::autoencoder_latents(*autoencoder, call.stride, variant, call.size,
                                        call.features, call.maps, call.latents, interrupted);
  });
  return call.made;
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
