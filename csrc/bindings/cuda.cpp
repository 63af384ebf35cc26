// The kernels for GPUs. Memory of the device is passed as addresses, so that PyTorch, CuPy or
// anything else may own it; a stream likewise (0: the default stream).
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

#include "bindings/prior_arguments.h"
#include "cuda/codebook_statistics.h"
#include "cuda/memory.h"
#include "cuda/nearest_codebook.h"
#include "cuda/prior_frequencies.h"
#include "cuda/prior_network.h"
#include "cuda/wavefront.h"

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
}

}  // namespace vqcodec::bindings
