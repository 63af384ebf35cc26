// The kernels for GPUs. Memory of the device is passed as addresses, so that PyTorch, CuPy or
// anything else may own it; a stream likewise (0: the default stream).
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

#include "bindings/network_arguments.h"
#include "bindings/prior_arguments.h"
#include "cuda/autoencoder.h"
#include "cuda/codebook_statistics.h"
#include "cuda/integer_network.h"
#include "cuda/memory.h"
#include "cuda/nearest_codebook.h"
#include "cuda/prior_frequencies.h"
#include "cuda/prior_network.h"
#include "cuda/wavefront.h"
#include "cuda/window_pass.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

// Makes a device current for as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    raise_unless_ok(cuda::check(cudaGetDevice(&before_), "finding a device"));
    changed_ = device != before_;
    if (changed_) raise_unless_ok(cuda::check(cudaSetDevice(device), "choosing a device"));
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

cudaStream_t stream_at(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

// (number of devices, why there is none)
py::tuple devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();  // forgotten: it is no one else's
    return py::make_tuple(0, cudaGetErrorString(error));
  }
  return py::make_tuple(count, "");
}

// (name, compute capability, multiprocessors)
py::tuple describe(int device) {
  cudaDeviceProp properties;
  raise_unless_ok(cuda::check(cudaGetDeviceProperties(&properties, device), "device"));
  return py::make_tuple(std::string(properties.name),
                        py::make_tuple(properties.major, properties.minor),
                        properties.multiProcessorCount);
}

// (address, rows, columns, row stride, column stride), strides in elements
using MatrixTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::ptrdiff_t, std::ptrdiff_t>;

StridedMatrix matrix(const MatrixTuple& tuple) {
  const auto& [address, rows, columns, row_stride, column_stride] = tuple;
  return {pointer<const float>(address), rows, columns, row_stride, column_stride};
}

template <class Run>
void run(int device, const Run& run) {
  const DeviceGuard guard(device);
  Status status;
  {
    py::gil_scoped_release release;
    status = run();
  }
  raise_unless_ok(status);
}

void nearest_codebook(int device, std::uintptr_t on, const MatrixTuple& z,
                      const MatrixTuple& codebook, std::uintptr_t bias, std::uintptr_t indices) {
  run(device, [&] {
    return cuda::nearest_codebook(matrix(z), matrix(codebook), pointer<const float>(bias),
                                  stream_at(on), pointer<std::int64_t>(indices));
  });
}

void codebook_statistics(int device, std::uintptr_t on, const MatrixTuple& z,
                         std::uintptr_t indices, std::int64_t codes, std::uintptr_t counts,
                         std::uintptr_t sums) {
  run(device, [&] {
    return cuda::codebook_statistics(matrix(z), pointer<const std::int64_t>(indices), codes,
                                     stream_at(on), pointer<float>(counts), pointer<float>(sums));
  });
}

// A prior and the device that it lies on.
struct DevicePrior {
  int device;
  std::shared_ptr<const cuda::PriorNetwork> network;
};

DevicePrior load_prior(int device, const py::kwargs& tensors) {
  DevicePrior prior{device, nullptr};
  const PriorTensors views = prior_tensors(tensors);
  run(device, [&] { return cuda::PriorNetwork::create(views, &prior.network); });
  return prior;
}

py::tuple prior_frequencies(const DevicePrior& prior, const Array<std::int32_t>& codes,
                            const std::vector<Array<std::int32_t>>& coarser, int class_id,
                            int level) {
  const std::vector<CodeMap> maps = coarser_maps(prior.network->host(), coarser);
  const PriorTile tile = {class_id, level, maps.data(), code_map(codes)};
  Array<std::int64_t> start(codes.size()), frequency(codes.size());
  std::int64_t* const start_out = start.mutable_data();
  std::int64_t* const frequency_out = frequency.mutable_data();
  run(prior.device, [&] {
    return cuda::prior_frequencies(*prior.network, tile, nullptr, start_out, frequency_out);
  });
  return py::make_tuple(start, frequency);
}

// The networks of priors that all lie on one device.
std::vector<const cuda::PriorNetwork*> networks_of(const std::vector<DevicePrior>& priors) {
  std::vector<const cuda::PriorNetwork*> networks;
  for (const DevicePrior& prior : priors) {
    if (prior.device != priors.front().device) raise_invalid("priors lie on several devices");
    networks.push_back(prior.network.get());
  }
  return networks;
}

// A kernel cannot be interrupted; it takes milliseconds.
py::tuple wavefront_decode(const std::vector<DevicePrior>& priors,
                           const std::vector<DecodeTuple>& jobs) {
  const auto networks = networks_of(priors);
  const DeviceGuard guard(priors.empty() ? 0 : priors.front().device);
  return run_wavefront(jobs, [&](const auto& unpacked, const auto&, auto* outcome) {
    return cuda::wavefront_decode(networks, unpacked, nullptr, outcome);
  });
}

py::tuple wavefront_sample(const std::vector<DevicePrior>& priors,
                           const std::vector<SampleTuple>& jobs, int sharpness, int nucleus) {
  const auto networks = networks_of(priors);
  const DeviceGuard guard(priors.empty() ? 0 : priors.front().device);
  return run_wavefront(jobs, [&](const auto& unpacked, const auto&, auto* outcome) {
    return cuda::wavefront_sample(networks, unpacked, {sharpness, nucleus}, nullptr, outcome);
  });
}

// ---------------------------------------------------------------- integer networks

// Networks, and the device that they lie on.
struct DeviceNetwork {
  int device;
  std::shared_ptr<const cuda::IntegerNetwork> network;
};

struct DeviceAutoencoder {
  int device;
  std::shared_ptr<const cuda::Autoencoder> autoencoder;
};

DeviceNetwork load_network(int device, const InputShapes& inputs, const py::sequence& layers,
                           const std::vector<std::int64_t>& outputs) {
  DeviceNetwork network{device, nullptr};
  const auto host = integer_network(inputs, layers, outputs);
  run(device, [&] { return cuda::IntegerNetwork::create(host, &network.network); });
  return network;
}

DeviceAutoencoder load_autoencoder(const MapTuples& maps, const DeviceNetwork& analysis,
                                   const std::vector<DeviceNetwork>& latents,
                                   const DeviceNetwork& synthesis) {
  const int device = analysis.device;
  bool same = synthesis.device == device;
  std::vector<vqcodec::Autoencoder::Network> hosts;
  std::vector<cuda::Autoencoder::Network> networks;
  for (const DeviceNetwork& latent : latents) {
    same = same && latent.device == device;
    hosts.push_back(latent.network->host());
    networks.push_back(latent.network);
  }
  if (!same) raise_invalid("networks lie on several devices");
  const auto host =
      integer_autoencoder(maps, analysis.network->host(), hosts, synthesis.network->host());
  DeviceAutoencoder loaded{device, nullptr};
  run(device, [&] {
    return cuda::Autoencoder::create(host, analysis.network, networks, synthesis.network,
                                     &loaded.autoencoder);
  });
  return loaded;
}

// Ctrl-C raises, between windows. `run(limits)`; memory: see cuda::PassLimits.
template <class Run>
void run_windows(int device, std::int64_t memory, const Run& run) {
  const DeviceGuard guard(device);
  Status status;
  run_without_gil([&](const auto& interrupted) {
    bool stopped = false;
    const cuda::PassLimits limits = {memory, [&] { return stopped = stopped || interrupted(); }};
    status = run(limits);
    return !stopped;
  });
  raise_unless_ok(status);
}

std::vector<PlaneArray> run_network(const DeviceNetwork& network,
                                    const std::vector<PlaneArray>& planes, std::int64_t memory) {
  const NetworkCall call(*network.network->host(), planes);
  run_windows(network.device, memory, [&](const cuda::PassLimits& limits) {
    return cuda::run_network(*network.network, call.size, call.inputs, call.outputs, limits,
                             nullptr);
  });
  return call.made;
}

PixelArray autoencoder_pixels(const DeviceAutoencoder& autoencoder, const MapArrays& maps,
                              const std::pair<std::int64_t, std::int64_t>& window,
                              const std::tuple<int, int, int, int>& box, std::int64_t memory) {
  const cuda::Autoencoder& loaded = *autoencoder.autoencoder;
  const PixelCall call(loaded.host(), maps, window, box);
  run_windows(autoencoder.device, memory, [&](const cuda::PassLimits& limits) {
    return cuda::autoencoder_pixels(loaded, call.size, call.maps, call.box, limits, nullptr,
                                    call.pixels);
  });
  return call.made;
}

std::vector<PlaneArray> autoencoder_features(const DeviceAutoencoder& autoencoder,
                                             const PixelArray& pixels, std::int64_t memory) {
  const cuda::Autoencoder& loaded = *autoencoder.autoencoder;
  const FeatureCall call(loaded.host(), pixels);
  run_windows(autoencoder.device, memory, [&](const cuda::PassLimits& limits) {
    return cuda::autoencoder_features(loaded, call.size, call.pixels, limits, nullptr,
                                      call.features);
  });
  return call.made;
}

PlaneArray autoencoder_latents(const DeviceAutoencoder& autoencoder, std::size_t stride,
                               const PlaneArray& features, const MapArrays& maps,
                               std::int64_t memory) {
  const cuda::Autoencoder& loaded = *autoencoder.autoencoder;
  const LatentCall call(loaded.host(), stride, features, maps);
  run_windows(autoencoder.device, memory, [&](const cuda::PassLimits& limits) {
    return cuda::autoencoder_latents(loaded, call.stride, call.size, call.features, call.maps,
                                     limits, nullptr, call.latents);
  });
  return call.made;
}

}  // namespace

void bind_cuda(py::module_& module) {
  module.def("devices", &devices);
  module.def("describe", &describe, py::arg("device"));
  module.def("nearest_codebook", &nearest_codebook, py::arg("device"), py::arg("stream"),
             py::arg("z"), py::arg("codebook"), py::arg("bias"), py::arg("indices"));
  module.def("codebook_statistics", &codebook_statistics, py::arg("device"), py::arg("stream"),
             py::arg("z"), py::arg("indices"), py::arg("codes"), py::arg("counts"),
             py::arg("sums"));
  py::class_<DevicePrior>(module, "PriorNetwork", py::module_local(),
                          "A prior in the memory of a GPU. Immutable.");
  module.def("load_prior", &load_prior, py::arg("device"));
  module.def("prior_frequencies", &prior_frequencies, py::arg("prior"), py::arg("codes"),
             py::arg("coarser"), py::arg("class_id"), py::arg("level"));
  module.def("wavefront_decode", &wavefront_decode, py::arg("priors"), py::arg("jobs"));
  module.def("wavefront_sample", &wavefront_sample, py::arg("priors"), py::arg("jobs"),
             py::arg("sharpness"), py::arg("nucleus"));

  const auto memory = py::arg("memory");
  py::class_<DeviceNetwork>(module, "IntegerNetwork", py::module_local(),
                            "An integer network in the memory of a GPU. Immutable.");
  module.def("load_network", &load_network, py::arg("device"), py::arg("inputs"), py::arg("layers"),
             py::arg("outputs"));
  module.def("run_network", &run_network, py::arg("network"), py::arg("planes").noconvert(),
             memory);
  py::class_<DeviceAutoencoder>(module, "Autoencoder", py::module_local(),
                                "Codebooks and networks in the memory of a GPU. Immutable.");
  module.def("load_autoencoder", &load_autoencoder, py::arg("maps"), py::arg("analysis"),
             py::arg("latents"), py::arg("synthesis"));
  module.def("autoencoder_pixels", &autoencoder_pixels, py::arg("autoencoder"),
             py::arg("maps").noconvert(), py::arg("window"), py::arg("box"), memory);
  module.def("autoencoder_features", &autoencoder_features, py::arg("autoencoder"),
             py::arg("pixels").noconvert(), memory);
  module.def("autoencoder_latents", &autoencoder_latents, py::arg("autoencoder"), py::arg("stride"),
             py::arg("features").noconvert(), py::arg("maps").noconvert(), memory);
}

}  // namespace vqcodec::bindings
