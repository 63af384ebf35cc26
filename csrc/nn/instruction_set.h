// Which instruction set the CPU kernels use, chosen at run time.
//
// The kernels are compiled once per Variant, each in a source file of its own with its own compiler
// flags (CMakeLists.txt), and found by Variant:
//
//     Variant variant;
//     if (Status s = select_variant(requested, &variant); !s.ok()) return s;
//     kernels_of(variant).integer.product(...);       // nn/kernels.h
//
// Files compiled with such flags must not instantiate inline functions of the standard library:
// the linker may keep their copy for everybody.
#pragma once

#include <array>
#include <string>

#include "base/status.h"

namespace vqcodec {

// In order of preference, the last supported one is the default.
enum class Variant {
  scalar,  // portable C++
  avx2,    // AVX2 and FMA
  avx512,  // AVX-512 F, BW, VL and VNNI
  neon,    // every 64-bit ARM processor
};

inline constexpr std::array<Variant, 4> kVariants = {Variant::scalar, Variant::avx2,
                                                     Variant::avx512, Variant::neon};

// "scalar", "avx2", "avx512" or "neon".
const char* name(Variant variant);

// Whether this build has the variant and this CPU (and operating system) runs it.
bool is_supported(Variant variant);

// Sets *variant to the one named `requested`; where that is empty, to the one named
// by the environment variable VQCODEC_CPU; where that is empty too, to the best.
// invalid_argument: no such name. unsupported: not on this machine.
Status select_variant(const std::string& requested, Variant* variant);

}  // namespace vqcodec
