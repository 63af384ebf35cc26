#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "nn/instruction_set.h"
#include "quantizer/codebook_statistics.h"
#include "quantizer/nearest_codebook.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

// Arrays arrive as they are: any strides, and never converted or copied.
using Floats = py::array_t<float, 0>;
using Indices = py::array_t<std::int64_t, 0>;

StridedMatrix matrix(const char* name, const Floats& array) {
  constexpr auto size = static_cast<py::ssize_t>(sizeof(float));
  if (array.ndim() != 2) {
    raise_invalid(std::string(name) + " must have 2 dimensions, got " +
                  std::to_string(array.ndim()));
  }
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (address % alignof(float) != 0 || array.strides(0) % size != 0 ||
      array.strides(1) % size != 0) {
    raise_invalid(std::string(name) + " must be aligned");
  }
  return {array.data(), array.shape(0), array.shape(1), array.strides(0) / size,
          array.strides(1) / size};
}

// A contiguous vector of `size` values.
template <class T>
const T* vector(const char* name, const py::array_t<T, 0>& array, py::ssize_t size) {
  if (array.ndim() != 1 || array.shape(0) != size) {
    raise_invalid(std::string(name) + " must have shape [" + std::to_string(size) + "]");
  }
  if (size > 1 && array.strides(0) != static_cast<py::ssize_t>(sizeof(T))) {
    raise_invalid(std::string(name) + " must be contiguous");
  }
  return array.data();
}

py::array_t<std::int64_t> nearest_codebook(const Floats& z, const Floats& codebook,
                                           const std::optional<Floats>& bias,
                                           const std::string& requested) {
  const StridedMatrix z_matrix = matrix("z", z);
  const StridedMatrix codebook_matrix = matrix("codebook", codebook);
  const float* bias_data = bias ? vector("bias", *bias, codebook.shape(0)) : nullptr;
  Variant variant;
  raise_unless_ok(select_variant(requested, &variant));

  py::array_t<std::int64_t> indices(z.shape(0));
  std::int64_t* const out = indices.mutable_data();
  Status status;
  {
    py::gil_scoped_release release;
    status = vqcodec::nearest_codebook(z_matrix, codebook_matrix, bias_data, variant, out);
  }
  raise_unless_ok(status);
  return indices;
}

py::tuple codebook_statistics(const Floats& z, const Indices& indices, std::int64_t codes) {
  const StridedMatrix z_matrix = matrix("z", z);
  const std::int64_t* index_data = vector("indices", indices, z.shape(0));
  if (codes < 1) raise_invalid("codes must be at least 1, got " + std::to_string(codes));

  py::array_t<float> counts(codes);
  py::array_t<float> sums({static_cast<py::ssize_t>(codes), z.shape(1)});
  float* const counts_out = counts.mutable_data();
  float* const sums_out = sums.mutable_data();
  Status status;
  {
    py::gil_scoped_release release;
    status = vqcodec::codebook_statistics(z_matrix, index_data, codes, counts_out, sums_out);
  }
  raise_unless_ok(status);
  return py::make_tuple(counts, sums);
}

}  // namespace

void bind_nearest_codebook(py::module_& module) {
  module.def("nearest_codebook", &nearest_codebook, py::arg("z").noconvert(),
             py::arg("codebook").noconvert(), py::arg("bias").noconvert() = py::none(),
             py::arg("variant") = "");
  module.def("codebook_statistics", &codebook_statistics, py::arg("z").noconvert(),
             py::arg("indices").noconvert(), py::arg("codes"));
}

}  // namespace vqcodec::bindings
