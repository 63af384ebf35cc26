// What bindings of all ops share: arrays as arguments, the variant, Ctrl-C.
#pragma once

#include <pybind11/numpy.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "bindings/bindings.h"
#include "nn/instruction_set.h"

namespace vqcodec::bindings {

// Contiguous, and of exactly this type: arguments are declared noconvert or cast by `as`.
template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// An array of the given type and number of dimensions; never converted or copied.
template <class T>
Array<T> as(const std::string& name, pybind11::handle object, int dimensions) {
  namespace py = pybind11;
  if (!py::isinstance<Array<T>>(object)) {
    raise_invalid(name + " must be a contiguous array of " +
                  std::string(py::str(py::dtype::of<T>())) + ", got " +
                  std::string(py::str(py::type::of(object))));
  }
  auto array = py::reinterpret_borrow<Array<T>>(object);
  if (array.ndim() != dimensions) {
    raise_invalid(name + " must have " + std::to_string(dimensions) + " dimensions, got " +
                  std::to_string(array.ndim()));
  }
  return array;
}

// See select_variant.
Variant variant_of(const std::string& requested);

// Lets Python's signal handlers run (Ctrl-C): asked often and from any thread, it looks some
// times a second on the thread that called.
class SignalCheck {
 public:
  SignalCheck();
  bool operator()();

 private:
  const std::thread::id caller_;
  std::chrono::steady_clock::time_point next_;
};

// Ctrl-C raises: `run` is false when `interrupted`, its argument, has said true.
template <class Run>
void run_without_gil(const Run& run) {
  SignalCheck signal_check;
  const std::function<bool()> interrupted = std::ref(signal_check);
  bool complete;
  {
    pybind11::gil_scoped_release release;
    complete = run(interrupted);
  }
  if (!complete) throw pybind11::error_already_set();
}

}  // namespace vqcodec::bindings
