// The CUDA kernels, run by the CPU, as a Python module with the functions of vqcodec._native.cuda.
#include <string>

#include "bindings/bindings.h"
#include "simulator.h"

namespace py = pybind11;

namespace {

// How the next kernels run; what is not named is as the environment says (simulator.h).
void configure(const std::string& order, std::uint64_t seed, int shared_limit, int resident_blocks,
               int compute_major) {
  using namespace vqcodec::cuda_simulator;
  Settings settings = settings_of_environment();
  if (order == "forward") settings.order = Order::forward;
  if (order == "reverse") settings.order = Order::reverse;
  if (order == "random") settings.order = Order::random;
  settings.seed = seed;
  if (shared_limit > 0) settings.shared_limit = shared_limit;
  if (resident_blocks > 0) settings.resident_blocks = resident_blocks;
  if (compute_major > 0) settings.compute_major = compute_major;
  configure(settings);
}

}  // namespace

PYBIND11_MODULE(_cuda_simulator, module) {
  vqcodec::bindings::bind_cuda(module);
  module.def("configure", &configure, py::kw_only(), py::arg("order") = "", py::arg("seed") = 0,
             py::arg("shared_limit") = 0, py::arg("resident_blocks") = 0,
             py::arg("compute_major") = 0);
  module.def("switches", &vqcodec::cuda_simulator::switches);
}
