#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"

namespace vqcodec {
namespace {

// Whether every index of a loop of `count` ran exactly once.
bool covers(std::int64_t count) {
  std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count));
  parallel_for(count, [&](std::int64_t i) { ++hits[static_cast<std::size_t>(i)]; });
  for (const auto& hit : hits) {
    if (hit != 1) return false;
  }
  return true;
}

}  // namespace

TEST(thread_pool_runs_every_index_once) {
  for (int threads : {1, 2, 3, 8, 2}) {
    CHECK(set_num_threads(threads).ok());
    CHECK_EQ(get_num_threads(), threads);
    for (std::int64_t count : {0, 1, 2, 3, 7, 1000}) CHECK(covers(count));
  }
}

TEST(thread_pool_many_short_loops) {
  CHECK(set_num_threads(3).ok());
  std::int64_t sum = 0;
  for (int loop = 0; loop < 20000; ++loop) {
    std::int64_t part[4] = {};
    parallel_for(4, [&](std::int64_t i) { part[i] = i + loop; });
    sum += part[0] + part[1] + part[2] + part[3];
  }
  CHECK_EQ(sum, std::int64_t{20000} * 6 + std::int64_t{4} * 20000 * 19999 / 2);
}

TEST(thread_pool_nested_loops_are_serial) {
  CHECK(set_num_threads(2).ok());
  std::atomic<int> sum{0};
  parallel_for(8, [&](std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    parallel_for(8, [&](std::int64_t) { sum += std::this_thread::get_id() == outer; });
  });
  CHECK_EQ(sum.load(), 64);
}

TEST(thread_pool_serves_several_callers) {
  CHECK(set_num_threads(2).ok());
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) good += covers(50);
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(good.load(), 800);
}

TEST(thread_pool_passes_exceptions_on) {
  CHECK(set_num_threads(2).ok());
  for (int i = 0; i < 100; ++i) {
    std::string message;
    try {
      parallel_for(100, [&](std::int64_t index) {
        if (index >= 50) throw std::runtime_error("index in the second half");
      });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK_EQ(message, "index in the second half");
    CHECK(covers(100));
  }
}

TEST(thread_pool_survives_fork) {
  CHECK(set_num_threads(2).ok());
  CHECK(covers(100));  // the workers exist
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);  // a deadlock becomes a failure
    _exit(covers(1000) && covers(1000) ? 0 : 1);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(covers(100));
}

TEST(thread_pool_sleeps_when_idle) {
  CHECK(set_num_threads(4).ok());
  CHECK(covers(100));
  const std::clock_t before = std::clock();  // of all threads of the process
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double busy = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  CHECK(busy < 0.1);
}

TEST(thread_pool_refuses_silly_sizes) {
  CHECK(set_num_threads(2).ok());
  CHECK(!set_num_threads(0).ok());
  CHECK(!set_num_threads(-1).ok());
  CHECK(!set_num_threads(1 << 20).ok());
  CHECK_EQ(get_num_threads(), 2);
}

}  // namespace vqcodec
