#include "base/thread_pool.h"

#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace vqcodec {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::chrono::microseconds kSpinTime{50};

// Set in workers, and in a caller while its loop runs: a nested loop is serial.
thread_local bool inside_loop = false;

void relax() {
#ifdef VQCODEC_X86
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Spins until `ready()`, for at most kSpinTime. Returns the last value of `ready()`.
template <class Ready>
bool spin_until(Ready ready) {
  const auto give_up = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  return ready();
}

// One call of parallel_for. Lives on its caller's stack.
struct Loop {
  std::int64_t count;
  void (*call)(void* body, std::int64_t index);
  void* body;
  std::atomic<std::int64_t> next{0};  // the first index that nobody has taken
  std::atomic<bool> failed{false};
  std::exception_ptr error{};  // written by the one who set `failed`

  void work() {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        call(body, index);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }
};

class ThreadPool {
 public:
  ~ThreadPool() { stop_workers(); }

  // False, with nothing done, when another thread uses the pool.
  bool try_run(Loop& loop, int num_threads) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    resize(num_threads - 1);

    {
      std::lock_guard<std::mutex> lock(mutex_);
      loop_ = &loop;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();

    inside_loop = true;
    loop.work();
    inside_loop = false;

    // Every index is taken. Workers that come late find nothing; wait for the others.
    {
      std::lock_guard<std::mutex> lock(mutex_);
      loop_ = nullptr;
    }
    const auto all_left = [this] { return helpers_.load(std::memory_order_acquire) == 0; };
    if (!spin_until(all_left)) {
      std::unique_lock<std::mutex> lock(mutex_);
      left_.wait(lock, all_left);
    }
    return true;
  }

 private:
  void resize(int workers) {
    if (static_cast<int>(workers_.size()) == workers) return;
    stop_workers();
    stop_ = false;
    try {
      for (int i = 0; i < workers; ++i) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      // The system grants no more threads: the loop runs on those that there are.
    }
  }

  void stop_workers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  // A worker's life: wait for a new epoch, help with its loop, if there still is one.
  void serve() {
    inside_loop = true;
    std::uint64_t seen = 0;
    for (;;) {
      const auto is_new = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
      const bool soon = spin_until(is_new);
      Loop* loop;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!soon) wake_.wait(lock, is_new);
        if (stop_) return;
        seen = epoch_.load(std::memory_order_relaxed);
        loop = loop_;
        if (loop != nullptr) helpers_.fetch_add(1, std::memory_order_relaxed);
      }
      if (loop == nullptr) continue;
      loop->work();
      {
        std::lock_guard<std::mutex> lock(mutex_);
        helpers_.fetch_sub(1, std::memory_order_release);
      }
      left_.notify_one();
    }
  }

  std::mutex owner_;  // held by the thread whose loop this is
  std::vector<std::thread> workers_;

  std::mutex mutex_;              // guards what follows; the atomics are also read without it
  std::condition_variable wake_;  // epoch_ has changed
  std::condition_variable left_;  // helpers_ has become smaller
  std::atomic<std::uint64_t> epoch_{0};
  std::atomic<int> helpers_{0};  // workers inside *loop_
  Loop* loop_ = nullptr;
  bool stop_ = false;
};

std::atomic<int> requested_threads{0};  // 0: available_cores()

// Never destroyed: at exit the workers sleep, and other threads may still call.
std::atomic<ThreadPool*> the_pool{nullptr};

// A forked child has none of the workers, and locks in an unknown state: it forgets
// the pool (without destroying it) and makes another one.
void forget_pool() { the_pool.store(nullptr); }

ThreadPool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
  ThreadPool* current = the_pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    auto* fresh = new ThreadPool;
    if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;  // another thread was faster
  }
  return *current;
}

}  // namespace

int available_cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

int get_num_threads() {
  static const int cores = available_cores();  // a system call
  const int requested = requested_threads.load(std::memory_order_relaxed);
  return requested > 0 ? requested : cores;
}

Status set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) {
    return Status::invalid_argument("number of threads must be in 1.." +
                                    std::to_string(kMaxThreads) + ", got " + std::to_string(n));
  }
  requested_threads.store(n, std::memory_order_relaxed);
  return {};
}

namespace detail {

void parallel_for(std::int64_t count, void (*call)(void*, std::int64_t), void* body) {
  if (count > 1 && !inside_loop) {
    const int num_threads = get_num_threads();
    if (num_threads > 1) {
      Loop loop{count, call, body};
      if (pool().try_run(loop, num_threads)) {
        if (loop.failed) std::rethrow_exception(loop.error);
        return;
      }
    }
  }
  for (std::int64_t index = 0; index < count; ++index) call(body, index);
}

}  // namespace detail
}  // namespace vqcodec
