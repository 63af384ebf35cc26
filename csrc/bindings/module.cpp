#include "bindings/bindings.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "The compiled core. Use it through vqcodec.ops.";
  vqcodec::bindings::bind_runtime(module);
  vqcodec::bindings::bind_nearest_codebook(module);
  vqcodec::bindings::bind_code_costs(module);
  vqcodec::bindings::bind_integer_network(module);
  vqcodec::bindings::bind_prior(module);
  vqcodec::bindings::bind_samples(module);
#ifdef VQCODEC_WITH_CUDA
  pybind11::module_ cuda = module.def_submodule("cuda", "The kernels for GPUs.");
  vqcodec::bindings::bind_cuda(cuda);
#endif
}
