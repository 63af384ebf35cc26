#include "bindings/bindings.h"

namespace py = pybind11;

namespace vqcodec::bindings {

void raise_unless_ok(const Status& status) {
  const char* error = nullptr;
  switch (status.code()) {
    case StatusCode::ok: return;
    case StatusCode::invalid_argument: error = "InvalidArgument"; break;
    case StatusCode::unsupported: error = "BackendError"; break;
  }
  const py::object type = py::module_::import("vqcodec.errors").attr(error);
  PyErr_SetString(type.ptr(), status.message().c_str());
  throw py::error_already_set();
}

}  // namespace vqcodec::bindings

PYBIND11_MODULE(_native, module) {
  module.doc() = "The compiled core. Use it through vqcodec.ops.";
  vqcodec::bindings::bind_runtime(module);
  vqcodec::bindings::bind_nearest_codebook(module);
  vqcodec::bindings::bind_prior(module);
}
