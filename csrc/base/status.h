// The outcome of an operation that can fail: a code for programs, a message for people.
//
// The core prints nothing and throws nothing but std::bad_alloc. Whatever else can fail returns
// a Status; csrc/bindings turns it into an exception of vqcodec.errors.
#pragma once

#include <string>
#include <utility>

namespace vqcodec {

enum class StatusCode {
  ok,
  invalid_argument,  // the caller passed something unusable -> errors.InvalidArgument
  unsupported,       // this machine or this build cannot do it -> errors.BackendError
};

class [[nodiscard]] Status {
 public:
  Status() = default;

  static Status invalid_argument(std::string message) {
    return Status(StatusCode::invalid_argument, std::move(message));
  }
  static Status unsupported(std::string message) {
    return Status(StatusCode::unsupported, std::move(message));
  }

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

}  // namespace vqcodec
