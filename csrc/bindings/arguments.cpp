#include "bindings/arguments.h"

namespace py = pybind11;

namespace vqcodec::bindings {

Variant variant_of(const std::string& requested) {
  Variant variant;
  raise_unless_ok(select_variant(requested, &variant));
  return variant;
}

SignalCheck::SignalCheck()
    : caller_(std::this_thread::get_id()), next_(std::chrono::steady_clock::now()) {}

bool SignalCheck::operator()() {
  if (std::this_thread::get_id() != caller_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return false;
  next_ = now + std::chrono::milliseconds(50);
  py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

}  // namespace vqcodec::bindings
