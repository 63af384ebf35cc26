// nearest_codes and code_candidates.
#include <cstdint>
#include <string>

#include "bindings/arguments.h"
#include "coding/frequency_table.h"
#include "quantizer/code_costs.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

using Vectors = Array<std::int16_t>;

CodeChoice code_choice(const Vectors& z, const Vectors& codebook,
                       const Array<std::uint8_t>& lengths, const Array<std::int32_t>& exponents,
                       int base) {
  if (z.ndim() != 2 || codebook.ndim() != 2 || lengths.ndim() != 1 || exponents.ndim() != 1) {
    raise_invalid("z and codebook must have 2 dimensions, lengths and exponents 1");
  }
  if (codebook.shape(0) < 1 || codebook.shape(0) > kMaxCodes || codebook.shape(1) != z.shape(1) ||
      z.shape(1) < 1 || z.shape(1) > (1 << 15)) {
    raise_invalid("z must be N x D, codebook K x D, K at most " + std::to_string(kMaxCodes) +
                  " and D at most 32768");
  }
  if (lengths.shape(0) != codebook.shape(0) || exponents.shape(0) != z.shape(0)) {
    raise_invalid("expected a length of every code and an exponent of every vector");
  }
  return {z.data(),
          z.shape(0),
          static_cast<int>(z.shape(1)),
          codebook.data(),
          static_cast<int>(codebook.shape(0)),
          lengths.data(),
          exponents.data(),
          base};
}

Array<std::int32_t> nearest_codes(const Vectors& z, const Vectors& codebook,
                                  const Array<std::uint8_t>& lengths,
                                  const Array<std::int32_t>& exponents, int base,
                                  const std::string& requested) {
  const Variant variant = variant_of(requested);
  const CodeChoice choice = code_choice(z, codebook, lengths, exponents, base);
  Array<std::int32_t> codes(z.shape(0));
  std::int32_t* const out = codes.mutable_data();
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::nearest_codes(choice, variant, out, interrupted);
  });
  return codes;
}

py::tuple code_candidates(const Vectors& z, const Vectors& codebook,
                          const Array<std::uint8_t>& lengths, const Array<std::int32_t>& exponents,
                          int base, int count, const std::string& requested) {
  const Variant variant = variant_of(requested);
  const CodeChoice choice = code_choice(z, codebook, lengths, exponents, base);
  if (count < 1 || count > choice.codes) {
    raise_invalid("count must be in 1.." + std::to_string(choice.codes) + ", got " +
                  std::to_string(count));
  }
  Array<std::int32_t> codes(std::vector<py::ssize_t>{z.shape(0), count});
  Array<std::int32_t> costs(std::vector<py::ssize_t>{z.shape(0), count});
  std::int32_t* const codes_out = codes.mutable_data();
  std::int32_t* const costs_out = costs.mutable_data();
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::code_candidates(choice, count, variant, codes_out, costs_out, interrupted);
  });
  return py::make_tuple(codes, costs);
}

}  // namespace

void bind_code_costs(py::module_& module) {
  module.def("nearest_codes", &nearest_codes, py::arg("z").noconvert(),
             py::arg("codebook").noconvert(), py::arg("lengths").noconvert(),
             py::arg("exponents").noconvert(), py::arg("base"), py::arg("variant") = "");
  module.def("code_candidates", &code_candidates, py::arg("z").noconvert(),
             py::arg("codebook").noconvert(), py::arg("lengths").noconvert(),
             py::arg("exponents").noconvert(), py::arg("base"), py::arg("count"),
             py::arg("variant") = "");
}

}  // namespace vqcodec::bindings
