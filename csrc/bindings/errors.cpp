#include <stdexcept>

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

void raise_invalid(const std::string& message) {
  raise_unless_ok(Status::invalid_argument(message));
  throw std::logic_error("unreachable");
}

}  // namespace vqcodec::bindings
