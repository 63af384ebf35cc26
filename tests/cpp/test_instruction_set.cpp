#include <cstdlib>

#include "check.h"
#include "nn/instruction_set.h"

namespace vqcodec {

TEST(instruction_set_prefers_the_last_supported_variant) {
  unsetenv("VQCODEC_CPU");
  Variant best = Variant::scalar;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) best = variant;
  }
  Variant variant;
  CHECK(select_variant("", &variant).ok());
  CHECK(variant == best);
}

TEST(instruction_set_argument_before_environment) {
  Variant variant;
  setenv("VQCODEC_CPU", "scalar", 1);
  CHECK(select_variant("", &variant).ok());
  CHECK(variant == Variant::scalar);
  for (Variant each : kVariants) {
    if (!is_supported(each)) continue;
    CHECK(select_variant(name(each), &variant).ok());
    CHECK(variant == each);
  }
  unsetenv("VQCODEC_CPU");
}

TEST(instruction_set_refuses) {
  Variant variant;
  CHECK(select_variant("sse9", &variant).code() == StatusCode::invalid_argument);
  setenv("VQCODEC_CPU", "mmx", 1);
  const Status status = select_variant("", &variant);
  unsetenv("VQCODEC_CPU");
  CHECK(status.code() == StatusCode::invalid_argument);
  CHECK_EQ(status.message(), "VQCODEC_CPU must be one of scalar, avx2, avx512, neon, got 'mmx'");
  for (Variant each : kVariants) {
    if (is_supported(each)) continue;
    CHECK(select_variant(name(each), &variant).code() == StatusCode::unsupported);
  }
}

}  // namespace vqcodec
