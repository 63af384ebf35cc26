#include <cstdlib>

#include "check.h"
#include "nn/instruction_set.h"

namespace vqcodec::cpu {

TEST(dispatch_prefers_the_last_supported_variant) {
  unsetenv("VQCODEC_CPU");
  Variant best = Variant::scalar;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) best = variant;
  }
  Variant variant;
  CHECK(select_variant("", &variant).ok());
  CHECK_EQ(index(variant), index(best));
}

TEST(dispatch_argument_before_environment) {
  Variant variant;
  setenv("VQCODEC_CPU", "scalar", 1);
  CHECK(select_variant("", &variant).ok());
  CHECK_EQ(index(variant), index(Variant::scalar));
  for (Variant each : kVariants) {
    if (!is_supported(each)) continue;
    CHECK(select_variant(name(each), &variant).ok());
    CHECK_EQ(index(variant), index(each));
  }
  unsetenv("VQCODEC_CPU");
}

TEST(dispatch_refuses) {
  Variant variant;
  CHECK(select_variant("sse9", &variant).code() == StatusCode::invalid_argument);
  setenv("VQCODEC_CPU", "mmx", 1);
  const Status status = select_variant("", &variant);
  unsetenv("VQCODEC_CPU");
  CHECK(status.code() == StatusCode::invalid_argument);
  CHECK_EQ(status.message(), "VQCODEC_CPU must be one of scalar, avx2, avx512, got 'mmx'");
  for (Variant each : kVariants) {
    if (is_supported(each)) continue;
    CHECK(select_variant(name(each), &variant).code() == StatusCode::unsupported);
  }
}

}  // namespace vqcodec::cpu
