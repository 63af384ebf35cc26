// VQCODEC_CUDA_SIMULATOR_ASAN: this is a build with -fsanitize=address.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define VQCODEC_CUDA_SIMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VQCODEC_CUDA_SIMULATOR_ASAN 1
#endif
#endif

#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace vqcodec::cuda_simulator {

#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
inline constexpr bool kAsan = true;
#else
inline constexpr bool kAsan = false;
#endif

}  // namespace vqcodec::cuda_simulator
