#include "base/check.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "check.h"
#include "coding/range_decoder.h"

namespace vqcodec {
namespace {

// Whether `run`, in a process of its own, aborts.
template <class Run>
bool aborts(const Run& run) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);
    run();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace

TEST(assertions_are_on) {
  CHECK(!aborts([] { VQCODEC_ASSERT(true); }));
  CHECK(aborts([] { VQCODEC_ASSERT(false); }));
  // The interval does not hold the quantile, 0.
  CHECK(aborts([] { RangeDecoder(nullptr, 0).consume(1, 1); }));
}

}  // namespace vqcodec
