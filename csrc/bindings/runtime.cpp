#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "nn/instruction_set.h"
#include "base/thread_pool.h"

namespace py = pybind11;

namespace vqcodec::bindings {

void bind_runtime(py::module_& module) {
  module.def("get_num_threads", &cpu::get_num_threads);
  module.def(
      "set_num_threads", [](int n) { raise_unless_ok(cpu::set_num_threads(n)); }, py::arg("n"));

  module.def("cpu_variants", [] {
    std::vector<std::string> names;
    for (cpu::Variant variant : cpu::kVariants) {
      if (cpu::is_supported(variant)) names.emplace_back(cpu::name(variant));
    }
    return names;
  });
  module.def(
      "select_variant",
      [](const std::string& requested) {
        cpu::Variant variant;
        raise_unless_ok(cpu::select_variant(requested, &variant));
        return cpu::name(variant);
      },
      py::arg("requested") = "");
}

}  // namespace vqcodec::bindings
