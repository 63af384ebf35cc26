#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "bindings/bindings.h"
#include "nn/instruction_set.h"

namespace py = pybind11;

namespace vqcodec::bindings {

void bind_runtime(py::module_& module) {
  module.def("get_num_threads", &get_num_threads);
  module.def("set_num_threads", [](int n) { raise_unless_ok(set_num_threads(n)); }, py::arg("n"));

  module.def("cpu_variants", [] {
    std::vector<std::string> names;
    for (Variant variant : kVariants) {
      if (is_supported(variant)) names.emplace_back(name(variant));
    }
    return names;
  });
  module.def(
      "select_variant",
      [](const std::string& requested) {
        Variant variant;
        raise_unless_ok(select_variant(requested, &variant));
        return name(variant);
      },
      py::arg("requested") = "");
}

}  // namespace vqcodec::bindings
