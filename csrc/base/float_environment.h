// The floating-point environment that the definitions of the kernels assume.
#pragma once

#include <cfenv>

namespace vqcodec {

// While it lives: round to nearest, subnormal numbers kept. Without it a caller that
// flushes subnormals to zero (torch.set_flush_denormal) would get other results, and
// from some threads only.
class ScopedFloatEnvironment {
 public:
  ScopedFloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~ScopedFloatEnvironment() { std::fesetenv(&saved_); }

  ScopedFloatEnvironment(const ScopedFloatEnvironment&) = delete;
  ScopedFloatEnvironment& operator=(const ScopedFloatEnvironment&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace vqcodec
