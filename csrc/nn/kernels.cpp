#include "nn/kernels.h"

#include "base/check.h"
#include "nn/instruction_set.h"

namespace vqcodec {

const Kernels& kernels_of(Variant variant) {
  VQCODEC_ASSERT(is_supported(variant));
  switch (variant) {
    case Variant::scalar: break;
#ifdef VQCODEC_X86
    case Variant::avx2: return kAvx2Kernels;
    case Variant::avx512: return kAvx512Kernels;
#else
    case Variant::avx2:
    case Variant::avx512: break;
#endif
#ifdef VQCODEC_NEON
    case Variant::neon: return kNeonKernels;
#else
    case Variant::neon: break;
#endif
  }
  return kScalarKernels;
}

}  // namespace vqcodec
