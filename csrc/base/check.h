// Debug assertions: what the code relies on and its own checks have established.
//
// They are on where CMake sets VQCODEC_ASSERTIONS: in the C++ tests, the fuzz targets, the CUDA
// simulator and every build with sanitizers. In a release they cost nothing. They never guard
// against a file: files are hostile, and what they can cause is a Status.
#pragma once

namespace vqcodec {

// Says which condition failed, and aborts. Not inline, so that files with different instruction
// sets may use it.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace vqcodec

#if defined(VQCODEC_ASSERTIONS) && !defined(__CUDA_ARCH__)
#define VQCODEC_ASSERT(condition) \
  ((condition) ? void() : ::vqcodec::assertion_failed(#condition, __FILE__, __LINE__))
#else
// The condition is compiled, so that it stays valid, and not evaluated.
#define VQCODEC_ASSERT(condition) static_cast<void>(sizeof(!(condition)))
#endif
