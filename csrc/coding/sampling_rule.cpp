#include "coding/sampling_rule.h"

#include <string>

namespace vqcodec {

Status check_rule(const SamplingRule& rule) {
  const auto check = [](const char* name, int value) {
    if (1 <= value && value <= 65536) return Status();
    return Status::invalid_argument(std::string(name) + " must be in 1..65536, got " +
                                    std::to_string(value));
  };
  Status status = check("sharpness", rule.sharpness);
  return status.ok() ? check("nucleus", rule.nucleus) : status;
}

}  // namespace vqcodec
