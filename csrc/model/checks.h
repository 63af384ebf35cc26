// Checks of what a model file holds: sizes, ranges, and that no sum can leave int32.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/status.h"
#include "nn/convolution.h"

namespace vqcodec {

inline constexpr std::int64_t kMaxChannels = 32768;  // of anything: scores of attention fit int32
inline constexpr std::int64_t kMaxOutputs = std::int64_t{1}
                                            << 22;  // of all phases of a convolution

// The first check that fails decides the status; what follows it changes nothing. Each says whether
// all of them have passed so far.
class Checks {
 public:
  // `subject` begins every message: "prior".
  explicit Checks(std::string subject) : subject_(std::move(subject)) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  bool require(bool condition, const std::string& what);
  bool require_equal(const std::string& what, std::int64_t found, std::int64_t expected);
  bool require_range(const std::string& what, std::int64_t found, std::int64_t low,
                     std::int64_t high);

  // A convolution of features within -largest_feature..largest_feature: its sizes, its shifts, and
  // that its largest sum fits int32.
  bool require_convolution(const std::string& name, const ConvTensors& tensors, std::int64_t inputs,
                           std::int64_t outputs, std::int64_t taps, std::int64_t largest_feature);

 private:
  void fail(const std::string& message);

  const std::string subject_;
  Status status_;
};

}  // namespace vqcodec
