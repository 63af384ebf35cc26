// vqcodec._native: what each binding file adds to the module, and what they share.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "base/status.h"

namespace vqcodec::bindings {

void bind_runtime(pybind11::module_& module);
void bind_nearest_codebook(pybind11::module_& module);
void bind_code_costs(pybind11::module_& module);
void bind_integer_network(pybind11::module_& module);
void bind_prior(pybind11::module_& module);
void bind_samples(pybind11::module_& module);
void bind_cuda(pybind11::module_& module);

// Raises the exception of vqcodec.errors that belongs to the status, unless it is ok.
// Needs the GIL.
void raise_unless_ok(const Status& status);

// Raises InvalidArgument.
[[noreturn]] void raise_invalid(const std::string& message);

}  // namespace vqcodec::bindings
