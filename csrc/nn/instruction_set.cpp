#include "nn/instruction_set.h"

#include <cstdlib>

namespace vqcodec {
namespace {

// "scalar, avx2": the variants, all or those that run here, for messages.
std::string list_names(bool supported_only) {
  std::string names;
  for (Variant variant : kVariants) {
    if (supported_only && !is_supported(variant)) continue;
    if (!names.empty()) names += ", ";
    names += name(variant);
  }
  return names;
}

Variant best_variant() {
  Variant best = Variant::scalar;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) best = variant;
  }
  return best;
}

}  // namespace

const char* name(Variant variant) {
  switch (variant) {
    case Variant::scalar: return "scalar";
    case Variant::avx2: return "avx2";
    case Variant::avx512: return "avx512";
    case Variant::neon: return "neon";
  }
  return "?";
}

bool is_supported(Variant variant) {
  switch (variant) {
    case Variant::scalar: return true;
#ifdef VQCODEC_X86
    // These ask the operating system too, whether it saves the wide registers.
    case Variant::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Variant::avx512:
      return is_supported(Variant::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
#else
    case Variant::avx2:
    case Variant::avx512: return false;
#endif
#ifdef VQCODEC_NEON
    case Variant::neon: return true;
#else
    case Variant::neon: return false;
#endif
  }
  return false;
}

Status select_variant(const std::string& requested, Variant* variant) {
  std::string wanted = requested;
  std::string source = "variant";
  if (wanted.empty()) {
    const char* environment = std::getenv("VQCODEC_CPU");
    if (environment != nullptr) wanted = environment;
    source = "VQCODEC_CPU";
  }
  if (wanted.empty()) {
    *variant = best_variant();
    return {};
  }
  for (Variant candidate : kVariants) {
    if (wanted != name(candidate)) continue;
    if (!is_supported(candidate)) {
      return Status::unsupported(source + " '" + wanted + "' does not run on this CPU, which has " +
                                 list_names(true));
    }
    *variant = candidate;
    return {};
  }
  return Status::invalid_argument(source + " must be one of " + list_names(false) + ", got '" +
                                  wanted + "'");
}

}  // namespace vqcodec
