// cuda_simulator_tests [part of a name]: proves that the simulator runs right kernels to the right
// results and catches the wrong ones. Exit status 1 if a test fails.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../cpp/check.h"
#include "address_sanitizer.h"
#include "broken_kernels.cuh"
#include "good_kernels.cuh"

namespace vqcodec::testing {
namespace {
int failures = 0;
}

std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

void report_failure(const char* file, int line, const std::string& message) {
  ++failures;
  std::cerr << file << ":" << line << ": " << message << "\n";
}

}  // namespace vqcodec::testing

namespace vqcodec::cuda_simulator_tests {
namespace {

using cuda::launch;
using cuda_simulator::kAsan;
using cuda_simulator::Order;
using cuda_simulator::Settings;

// While it lives, these settings.
class With {
 public:
  explicit With(Settings settings) : saved_(cuda_simulator::settings()) {
    settings.print_reports = false;
    cuda_simulator::configure(settings);
  }
  explicit With(Order order, std::uint64_t seed = 0) : With(of_order(order, seed)) {}
  ~With() { cuda_simulator::configure(saved_); }
  With(const With&) = delete;
  With& operator=(const With&) = delete;

  static Settings of_order(Order order, std::uint64_t seed = 0) {
    Settings result;
    result.order = order;
    result.seed = seed;
    return result;
  }

 private:
  Settings saved_;
};

// Calls body() in every order, with 1, 2 and many resident blocks.
template <class Body>
void in_every_order(Body body) {
  for (int resident : {1, 2, 16}) {
    for (int round = 0; round < 6; ++round) {
      Settings settings = With::of_order(round == 0   ? Order::forward
                                         : round == 1 ? Order::reverse
                                                      : Order::random,
                                         static_cast<std::uint64_t>(round));
      settings.resident_blocks = resident;
      const With with(settings);
      body();
    }
  }
}

// Device memory with a copy of `values`, or so many elements of poison.
template <class T>
class Array {
 public:
  explicit Array(std::size_t size) : size_(size) { cudaMalloc(&data_, size * sizeof(T)); }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  operator T*() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> result(size_);
    cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

template <class Params>
bool runs(void (*kernel)(Params), dim3 grid, dim3 block, std::size_t shared, const Params& params) {
  const cudaError_t error = launch(kernel, grid, block, shared, nullptr, params);
  if (error != cudaSuccess) std::cerr << "    " << cudaGetErrorString(error) << "\n";
  return error == cudaSuccess;
}

// Whether the launch is stopped with a report that has `words` in it, in every order.
template <class Params>
bool reported(const char* words, void (*kernel)(Params), dim3 grid, dim3 block, std::size_t shared,
              const Params& params) {
  bool all = true;
  in_every_order([&] {
    const cudaError_t error = launch(kernel, grid, block, shared, nullptr, params);
    const bool good = error == cudaErrorLaunchFailure &&
                      std::strstr(cuda_simulator_last_report(), words) != nullptr &&
                      std::strcmp(cudaGetErrorString(error), cuda_simulator_last_report()) == 0;
    if (!good) {
      std::cerr << "    expected \"" << words << "\", got " << cudaGetErrorName(error) << ": "
                << cuda_simulator_last_report() << "\n";
    }
    all = all && good;
  });
  return all;
}

// Whether body(), in a process of its own, dies with `words` on its stderr.
template <class Body>
bool dies(const char* words, Body body) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  const bool died = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (!died || text.find(words) == std::string::npos) std::cerr << "    child: " << text << "\n";
  return died && text.find(words) != std::string::npos;
}

std::mt19937& generator() {
  static std::mt19937 random(7);
  return random;
}

template <class T>
std::vector<T> random_values(std::size_t size, int low, int high) {
  std::uniform_int_distribution<int> any(low, high);
  std::vector<T> result(size);
  for (T& value : result) value = static_cast<T>(any(generator()));
  return result;
}

}  // namespace

// ---------------------------------------------------------------- right kernels

TEST(sum_by_shuffles) {
  const auto values = random_values<int>(10'000, -50, 100);
  unsigned long long expected = 0;
  for (int value : values) expected += static_cast<unsigned long long>(value);
  in_every_order([&] {
    const Array<int> input(values);
    const Array<unsigned long long> sum(std::vector<unsigned long long>{0});
    CHECK(runs(sum_kernel, dim3(7), dim3(96), 3 * sizeof(int), SumParams{input, 10'000, sum}));
    CHECK_EQ(sum.values()[0], expected);
  });
}

TEST(shuffles_read_the_right_lane) {
  for (int width : {32, 8, 1}) {
    in_every_order([&] {
      const Array<int> out(8 * 32);
      const Array<unsigned long long> wide(32);
      const bool ran = runs(shuffle_kernel, dim3(1), dim3(32), 0, ShuffleParams{width, out, wide});
      CHECK(ran);
      if (!ran) return;
      const auto found = out.values();
      for (int lane = 0; lane < 32; ++lane) {
        const int begin = lane / width * width, inside = lane % width;
        const int* o = found.data() + 8 * lane;
        CHECK_EQ(o[0], 100 + begin + (lane * 7 + 3) % width);
        CHECK_EQ(o[1], 100 + (inside >= 3 ? lane - 3 : lane));
        CHECK_EQ(o[2], 100 + (inside + 5 < width ? lane + 5 : lane));
        // xor across segments: a lower one may be read, a higher one not.
        CHECK_EQ(o[3], 100 + (width > 1 || lane % 2 == 1 ? lane ^ 1 : lane));
        CHECK_EQ(o[4], 9);
        CHECK_EQ(o[5], lane < 16 ? lane ^ 8 : std::max(lane - 1, 16));
        CHECK_EQ(o[6], 1 + 4);
        CHECK_EQ(o[7], 0x49249249);
        CHECK_EQ(wide.values()[lane], (1ull << 40) * static_cast<unsigned>(31 - lane));
      }
    });
  }
}

TEST(positions_by_ballots) {
  const auto keep = random_values<int>(256, 0, 1);
  in_every_order([&] {
    const Array<int> input(keep), position(256), total(1);
    CHECK(runs(scan_kernel, dim3(1), dim3(256), 8 * sizeof(unsigned),
               ScanParams{input, position, total}));
    int before = 0;
    const auto found = position.values();
    for (std::size_t i = 0; i < 256; ++i) {
      CHECK_EQ(found[i], before);
      before += keep[i];
    }
    CHECK_EQ(total.values()[0], before);
  });
}

TEST(barriers_vote) {
  in_every_order([] {
    for (int chosen : {-1, 0, 69}) {
      const Array<int> out(3 * 70);
      CHECK(runs(vote_kernel, dim3(1), dim3(70), 0, VoteParams{chosen, out}));
      for (int t = 0; t < 70; ++t) {
        CHECK_EQ(out.values()[3 * t], chosen >= 0);
        CHECK_EQ(out.values()[3 * t + 1], chosen < 0);
        CHECK_EQ(out.values()[3 * t + 2], chosen >= 0);
      }
    }
  });
}

TEST(product_s8_is_the_plain_product) {
  constexpr int kProducts = 12;
  auto a = random_values<signed char>(kProducts * 16 * 32, -128, 127);
  auto b = random_values<signed char>(kProducts * 32 * 8, -128, 127);
  std::fill(a.begin(), a.begin() + 16 * 32, static_cast<signed char>(-128));
  std::fill(b.begin(), b.begin() + 32 * 8, static_cast<signed char>(-128));
  auto c = random_values<int>(kProducts * 16 * 8, -1000, 1000);
  c[16 * 8] = 0x7fffffff;  // wraps around, unless the product is negative
  c[16 * 8 + 1] = -0x7fffffff - 1;
  auto expected = c;
  for (int p = 0; p < kProducts; ++p) {
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        auto sum = static_cast<std::uint32_t>(c[(p * 16 + row) * 8 + column]);
        for (int k = 0; k < 32; ++k) {
          sum +=
              static_cast<std::uint32_t>(a[(p * 16 + row) * 32 + k] * b[(p * 32 + k) * 8 + column]);
        }
        expected[(p * 16 + row) * 8 + column] = static_cast<int>(sum);
      }
    }
  }
  in_every_order([&] {
    const Array<signed char> da(a), db(b);
    const Array<int> dc(c);
    CHECK(runs(product_s8_kernel, dim3(3), dim3(128), 0, ProductS8Params{da, db, dc}));
    CHECK(dc.values() == expected);
  });
}

TEST(product_tf32_is_exact_where_it_can_be) {
  constexpr int kProducts = 8;
  const auto whole = [](std::size_t size) { return random_values<float>(size, -1000, 1000); };
  const auto a = whole(kProducts * 16 * 8), b = whole(kProducts * 8 * 8);
  const auto c = whole(kProducts * 16 * 8);
  auto expected = c;
  for (int p = 0; p < kProducts; ++p) {
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        for (int k = 0; k < 8; ++k) {
          expected[(p * 16 + row) * 8 + column] +=
              a[(p * 16 + row) * 8 + k] * b[(p * 8 + k) * 8 + column];
        }
      }
    }
  }
  auto noisy = a;  // low bits that TF32 does not have
  for (float& value : noisy) value = __uint_as_float(__float_as_uint(value) | 0x1fff);
  in_every_order([&] {
    for (const auto& left : {a, noisy}) {
      const Array<float> da(left), db(b), dc(c);
      CHECK(runs(product_tf32_kernel, dim3(2), dim3(128), 0, ProductTF32Params{da, db, dc}));
      CHECK(dc.values() == expected);
    }
  });
}

// Sums that round: the orders differ, and all stay within the bound that kernels may rely on.
TEST(product_tf32_has_no_order) {
  std::vector<float> a(16 * 8), b(8 * 8), zero(16 * 8, 0.0f);
  std::normal_distribution<float> normal;
  for (auto* matrix : {&a, &b}) {
    for (float& value : *matrix) {
      value = __uint_as_float(__float_as_uint(normal(generator())) & ~0x1fffu);
    }
  }
  std::vector<std::vector<float>> results;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const With with(Order::random, seed);
    const Array<float> da(a), db(b), dc(zero);
    CHECK(runs(product_tf32_kernel, dim3(1), dim3(32), 0, ProductTF32Params{da, db, dc}));
    results.push_back(dc.values());
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        double exact = 0, sizes = 0;
        for (int k = 0; k < 8; ++k) {
          const double term = static_cast<double>(a[row * 8 + k]) * b[k * 8 + column];
          exact += term;
          sizes += std::fabs(term);
        }
        CHECK(std::fabs(results.back()[row * 8 + column] - exact) <= sizes * 9 * 0x1p-23);
      }
    }
  }
  bool differ = false;
  for (const auto& result : results) differ = differ || result != results[0];
  CHECK(differ);
}

TEST(dp4a_wraps_around) {
  const auto a = random_values<int>(64, -0x7fffffff, 0x7fffffff);
  auto b = random_values<int>(64, -0x7fffffff, 0x7fffffff);
  b[0] = static_cast<int>(0x80808080u);
  in_every_order([&] {
    const Array<int> da(a), db(b), out(64);
    CHECK(runs(dp4a_kernel, dim3(1), dim3(64), 0, Dp4aParams{da, db, out}));
    for (std::size_t i = 0; i < 64; ++i) {
      std::int64_t sum = 0x7fffff00;
      for (int byte = 0; byte < 4; ++byte) {
        sum +=
            static_cast<std::int8_t>(a[i] >> 8 * byte) * static_cast<std::int8_t>(b[i] >> 8 * byte);
      }
      CHECK_EQ(out.values()[i], static_cast<int>(static_cast<std::uint32_t>(sum)));
    }
  });
}

TEST(bits_of_one_thread) {
  const With with(Order::forward);
  const Array<int> out(16);
  CHECK(runs(bits_kernel, dim3(1), dim3(1), 0, BitsParams{out}));
  const std::vector<int> expected = {8, 0, 7, 32, 31,         -2, 0xfffe, 1,
                                     1, 2, 3, 4,  0x3f800001, 7,  15,     77};
  CHECK(out.values() == expected);
}

TEST(atomics_over_blocks) {
  in_every_order([] {
    const int n = 5 * 64;
    const Array<int> sum(std::vector<int>{0}), highest(std::vector<int>{-7}),
        lowest(std::vector<int>{7}), tickets(std::vector<int>(6, 0));
    const Array<unsigned> bits(std::vector<unsigned>{0}), lock(std::vector<unsigned>{0}),
        locked_sum(std::vector<unsigned>{0});
    CHECK(runs(atomics_kernel, dim3(5), dim3(64), 0,
               AtomicsParams{sum, highest, lowest, tickets, bits, lock, locked_sum}));
    CHECK_EQ(sum.values()[0], n * (n - 1) / 2);
    CHECK_EQ(highest.values()[0], n - 1);
    CHECK_EQ(lowest.values()[0], 1 - n);
    CHECK_EQ(bits.values()[0], 0xffffffffu);
    CHECK_EQ(locked_sum.values()[0], 0u + 1 + 2 + 3 + 4);
    auto blocks = tickets.values();
    CHECK_EQ(blocks.back(), 5);
    blocks.pop_back();
    std::sort(blocks.begin(), blocks.end());
    for (int i = 0; i < 5; ++i) CHECK_EQ(blocks[i], i);
  });
}

TEST(blocks_wait_for_earlier_blocks) {
  constexpr unsigned kBlocks = 20, kThreads = 40;
  std::vector<unsigned> expected(kBlocks * kThreads);
  for (unsigned block = 0; block < kBlocks; ++block) {
    for (unsigned t = 0; t < kThreads; ++t) {
      const unsigned before =
          block == 0 ? t : expected[(block - 1) * kThreads + (t + 1) % kThreads];
      expected[block * kThreads + t] = before * 3 + 1;
    }
  }
  in_every_order([&] {
    const Array<int> ticket(std::vector<int>{0});
    const Array<std::int32_t> done(std::vector<std::int32_t>(kBlocks, 0));
    const Array<unsigned> values(kBlocks * kThreads);
    CHECK(runs(chain_kernel, dim3(kBlocks), dim3(kThreads), sizeof(int),
               ChainParams{ticket, done, values}));
    CHECK(values.values() == expected);
  });
}

TEST(shared_memory_up_to_the_limit) {
  for (int limit : {227 * 1024, 99 * 1024, 64 * 1024}) {
    for (int size : {0, 1, 17, 4096, 48 * 1024, limit - 1, limit}) {
      for (Order order : {Order::forward, Order::reverse}) {
        Settings settings = With::of_order(order);
        settings.shared_limit = limit;
        const With with(settings);
        const Array<int> errors(std::vector<int>{0});
        CHECK(runs(shared_kernel, dim3(2), dim3(128), static_cast<std::size_t>(size),
                   SharedParams{size, errors}));
        CHECK_EQ(errors.values()[0], 0);
      }
    }
  }
}

TEST(every_thread_runs_once) {
  in_every_order([] {
    const dim3 grid(3, 5, 2), block(7, 2, 3);
    const Array<int> out(std::vector<int>(3 * 5 * 2 * 7 * 2 * 3, 0));
    CHECK(runs(index_kernel, grid, block, 0, IndexParams{out}));
    for (int visits : out.values()) CHECK_EQ(visits, 1);
  });
  const With with(Order::random, 5);
  const Array<int> out(std::vector<int>(100 * 1024, 0));
  CHECK(runs(index_kernel, dim3(100), dim3(1024), 0, IndexParams{out}));
  CHECK(out.values() == std::vector<int>(100 * 1024, 1));
}

TEST(launches_from_several_host_threads) {
  const With with(Order::forward);
  std::vector<std::thread> threads;
  std::vector<int> right(4, 0);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&right, i] {
      for (int round = 0; round < 20; ++round) {
        const Array<int> errors(std::vector<int>{0});
        const int size = 1000 * (i + 1) + round;
        right[i] += launch(shared_kernel, dim3(3), dim3(64), static_cast<std::size_t>(size),
                           nullptr, SharedParams{size, errors}) == cudaSuccess &&
                    errors.values()[0] == 0;
        const Array<int> out(64);
        right[i] += launch(early_exit_kernel, dim3(1), dim3(64), 0, nullptr,
                           BrokenParams{out, i + 1}) == cudaErrorLaunchFailure;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int count : right) CHECK_EQ(count, 40);
}

// ---------------------------------------------------------------- wrong kernels: barriers

TEST(catches_divergence_at_barriers) {
  const Array<int> out(64);
  const BrokenParams params = {out, 32};
  const dim3 one(1), threads(64);
  CHECK(reported("barrier", barrier_in_branch_kernel, one, threads, 0, params));
  CHECK(
      reported("divergence at barrier", barriers_in_two_branches_kernel, one, threads, 0, params));
  CHECK(reported("divergence at barrier", barriers_of_two_kinds_kernel, one, threads, 0, params));
  CHECK(reported("barrier", early_exit_kernel, one, threads, 0, params));
  CHECK(reported("divergence", barrier_against_warp_operation_kernel, one, threads, 0, params));
}

TEST(reports_name_the_place) {
  const Array<int> out(64);
  const With with(Order::forward);
  CHECK(launch(early_exit_kernel, dim3(3), dim3(64), 0, nullptr, BrokenParams{out, 32}) ==
        cudaErrorLaunchFailure);
  const std::string report = cuda_simulator_last_report();
  CHECK(report.find("block (0,0,0) thread (32,0,0)") != std::string::npos);
  CHECK(report.find("__syncthreads at ") != std::string::npos);
  CHECK(report.find("broken_kernels.cuh:") != std::string::npos);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaSuccess);
}

// ---------------------------------------------------------------- wrong kernels: warps

TEST(catches_divergence_in_warps) {
  const Array<int> out(64);
  const BrokenParams params = {out, 32};
  const dim3 one(1), threads(32);
  CHECK(reported("exit", missing_lane_kernel, one, threads, 0, params));
  CHECK(reported("warp divergence", two_operations_kernel, one, threads, 0, params));
  CHECK(reported("warp divergence", two_masks_kernel, one, threads, 0, params));
  CHECK(reported("is not in its mask", lane_outside_mask_kernel, one, threads, 0, params));
  CHECK(reported("reads lane 20, which is not in the mask", read_outside_mask_kernel, one, threads,
                 0, params));
  CHECK(reported("exit", lane_that_exited_kernel, one, threads, 0, params));
  CHECK(reported("exit", product_in_branch_kernel, one, threads, 0, params));
  CHECK(reported("do not exist", lane_that_exited_kernel, one, dim3(16), 0, params));
}

// ---------------------------------------------------------------- wrong kernels: memory

// One element behind, one element before; sizes with and without a rest in their last 16 bytes.
TEST(catches_accesses_outside_shared_memory) {
  const Array<int> out(std::vector<int>(4, 0));
  for (int elements : {4, 255, 1024, 1025, 8 * 1024}) {
    const std::size_t size = sizeof(int) * static_cast<std::size_t>(elements);
    for (int n : {elements, -1}) {
      for (bool write : {true, false}) {
        const OutsideParams params = {n, write, out};
        if (kAsan) {
          const With with(Order::forward);
          CHECK(dies("AddressSanitizer: use-after-poison", [&] {
            launch(shared_outside_kernel, dim3(1), dim3(32), size, nullptr, params);
          }));
        } else if (write) {
          CHECK(reported("outside dynamic shared memory", shared_outside_kernel, dim3(2), dim3(32),
                         size, params));
        } else if (n < 0 || elements % 4 == 0) {
          // Reads: by the order that has its guard page on this side.
          const With with(n < 0 ? Order::reverse : Order::forward);
          CHECK(launch(shared_outside_kernel, dim3(2), dim3(32), size, nullptr, params) ==
                cudaErrorLaunchFailure);
          CHECK(std::strstr(cuda_simulator_last_report(), "outside dynamic shared memory") !=
                nullptr);
        }
      }
    }
  }
}

TEST(catches_accesses_outside_global_memory) {
  const With with(Order::forward);
  for (bool write : {true, false}) {
    const Array<int> out(std::vector<int>(7, 0));
    const OutsideParams params = {7, write, out};
    if (kAsan) {
      CHECK(dies("AddressSanitizer: heap-buffer-overflow",
                 [&] { launch(global_outside_kernel, dim3(1), dim3(1), 0, nullptr, params); }));
    } else if (write) {
      CHECK(launch(global_outside_kernel, dim3(1), dim3(1), 0, nullptr, params) ==
            cudaErrorLaunchFailure);
      CHECK(std::strstr(cuda_simulator_last_report(), "written past its end") != nullptr);
    }
  }
}

TEST(catches_faults) {
  const Array<int> out(std::vector<int>(4, 1));
  if (kAsan) {
    const With with(Order::forward);
    CHECK(dies("AddressSanitizer", [&] {
      launch(null_pointer_kernel, dim3(1), dim3(32), 16, nullptr, BrokenParams{out, 0});
    }));
    return;
  }
  CHECK(reported("not mapped", null_pointer_kernel, dim3(1), dim3(32), 16, BrokenParams{out, 0}));
  CHECK(reported("stack overflow", deep_recursion_kernel, dim3(1), dim3(2), 0,
                 BrokenParams{out, 1'000'000}));
}

TEST(unwritten_output_is_visible) {
  std::vector<int> seen;
  for (int round = 0; round < 4; ++round) {
    const With with(round == 0   ? Order::forward
                    : round == 1 ? Order::reverse
                                 : Order::random,
                    static_cast<std::uint64_t>(round));
    const Array<int> out(100);
    CHECK(runs(unwritten_output_kernel, dim3(4), dim3(32), 0, BrokenParams{out, 100}));
    const auto found = out.values();
    CHECK_EQ(std::count(found.begin(), found.end(), 1), 99);
    seen.push_back(found[99]);
  }
  CHECK_EQ(seen[0], static_cast<int>(0xcdcdcdcdu));
  for (std::size_t i = 0; i < seen.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) CHECK(seen[i] != seen[j]);
  }
}

TEST(refuses_too_much_shared_memory) {
  for (int limit : {227 * 1024, 99 * 1024, 64 * 1024, 16 * 1024}) {
    Settings settings;
    settings.shared_limit = limit;
    const With with(settings);
    const Array<int> errors(std::vector<int>{0});
    const SharedParams params = {1, errors};
    CHECK(launch(shared_kernel, dim3(1), dim3(32), static_cast<std::size_t>(limit) + 1, nullptr,
                 params) == cudaErrorInvalidValue);
    CHECK(launch(shared_kernel, dim3(1), dim3(32), static_cast<std::size_t>(limit), nullptr,
                 params) == cudaSuccess);
  }
  // More than 48 KB without cudaFuncSetAttribute.
  const With with(Order::forward);
  const auto start = [](std::size_t shared) {
    const cuda_simulator::Launch call = {&shared, {1, 1, 1},          {1, 1, 1},
                                         shared,  [](const void*) {}, nullptr};
    return static_cast<cudaError_t>(cuda_simulator::run(call));
  };
  CHECK(start(48 * 1024) == cudaSuccess);
  CHECK(start(48 * 1024 + 1) == cudaErrorInvalidValue);
}

TEST(refuses_impossible_launches) {
  const With with(Order::forward);
  const Array<int> out(4);
  const auto refused = [&out](dim3 grid, dim3 block) {
    return launch(index_kernel, grid, block, 0, nullptr, IndexParams{out}) ==
           cudaErrorInvalidConfiguration;
  };
  CHECK(refused(dim3(0), dim3(1)));
  CHECK(refused(dim3(1), dim3(0)));
  CHECK(refused(dim3(1), dim3(1025)));
  CHECK(refused(dim3(1), dim3(32, 33)));
  CHECK(refused(dim3(1), dim3(1, 1, 65)));
  CHECK(refused(dim3(1, 65536), dim3(1)));
}

// ---------------------------------------------------------------- wrong kernels: races

namespace {

// In which orders the result of the kernel is not t + n: 1 forward, 2 reverse, 4 random.
int wrong_orders(void (*kernel)(BrokenParams), unsigned threads) {
  int wrong = 0;
  for (int round = 0; round < 7; ++round) {
    const Order order = round == 0 ? Order::forward : round == 1 ? Order::reverse : Order::random;
    const With with(order, static_cast<std::uint64_t>(round));
    const Array<int> out(threads);
    CHECK(runs(kernel, dim3(1), dim3(threads), threads * sizeof(int), BrokenParams{out, 1000}));
    const auto found = out.values();
    for (unsigned t = 0; t < threads; ++t) {
      if (found[t] != static_cast<int>(t) + 1000) wrong |= std::min(1 << round, 4);
    }
  }
  return wrong;
}

}  // namespace

TEST(exposes_missing_barriers) {
  for (unsigned threads : {32u, 64u, 256u}) {
    CHECK(wrong_orders(read_left_neighbour_kernel, threads) & 2);
    CHECK(wrong_orders(read_right_neighbour_kernel, threads) & 1);
    CHECK(wrong_orders(overwrite_too_early_kernel, threads) != 0);
    CHECK(wrong_orders(missing_syncwarp_kernel, threads) != 0);
    // Random order finds all of them.
    CHECK(wrong_orders(read_left_neighbour_kernel, threads) & 4);
    CHECK(wrong_orders(read_right_neighbour_kernel, threads) & 4);
    CHECK(wrong_orders(overwrite_too_early_kernel, threads) & 4);
    CHECK(wrong_orders(missing_syncwarp_kernel, threads) & 4);
  }
  for (unsigned threads : {64u, 256u}) {
    CHECK_EQ(wrong_orders(syncwarp_for_syncthreads_kernel, threads), 7);
  }
}

// The barriers of a right kernel, left out one by one.
TEST(exposes_skipped_barriers) {
  const auto is_right = [](Order order, std::uint64_t seed, const std::string& skip) {
    Settings settings = With::of_order(order, seed);
    settings.skip = skip;
    const With with(settings);
    const Array<int> keep(std::vector<int>(256, 1)), position(256), total(1);
    CHECK(runs(scan_kernel, dim3(1), dim3(256), 8 * sizeof(unsigned),
               ScanParams{keep, position, total}));
    const auto found = position.values();
    for (int i = 0; i < 256; ++i) {
      if (found[i] != i) return false;
    }
    return true;
  };
  CHECK(is_right(Order::reverse, 0, ""));
  CHECK(is_right(Order::reverse, 0, "good_kernels.cuh:1"));
  CHECK(!is_right(Order::reverse, 0, "good_kernels.cuh:" + std::to_string(kScanBarrierLine)));
  CHECK(!is_right(Order::random, 1, "good_kernels.cuh:" + std::to_string(kScanBarrierLine)));
}

TEST(exposes_lost_updates_between_blocks) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    Settings settings = With::of_order(Order::random, seed);
    settings.resident_blocks = 8;
    const With with(settings);
    const Array<int> out(std::vector<int>{0, 0});
    CHECK(runs(lost_update_kernel, dim3(20), dim3(32), 0, BrokenParams{out, 0}));
    wrong += out.values()[0] != 20 * 32;
  }
  CHECK(wrong > 0);
}

// ---------------------------------------------------------------- wrong kernels: deadlocks

TEST(catches_deadlocks) {
  for (Order order : {Order::forward, Order::reverse, Order::random}) {
    for (int resident : {1, 2, 8}) {
      Settings settings = With::of_order(order);
      settings.patience = 100'000;
      settings.resident_blocks = resident;
      const With with(settings);
      const auto stops = [](void (*kernel)(BrokenParams), unsigned grid) {
        const Array<int> flags(std::vector<int>{0, 0});
        return launch(kernel, dim3(grid), dim3(32), 0, nullptr, BrokenParams{flags, 0}) ==
                   cudaErrorLaunchFailure &&
               std::strstr(cuda_simulator_last_report(), "deadlock") != nullptr;
      };
      CHECK(stops(wait_for_each_other_kernel, 2));
      CHECK(stops(wait_with_barriers_kernel, 2));
    }
  }
}

TEST(resident_blocks_are_limited) {
  for (int resident : {1, 3, 4}) {
    Settings settings;
    settings.patience = 10'000;
    settings.resident_blocks = resident;
    const With with(settings);
    const Array<int> flag(std::vector<int>{0});
    const cudaError_t error =
        launch(needs_all_resident_kernel, dim3(4), dim3(32), 0, nullptr, BrokenParams{flag, 0});
    CHECK(error == (resident == 4 ? cudaSuccess : cudaErrorLaunchFailure));
  }
}

// ---------------------------------------------------------------- the host's side

TEST(memory_of_the_device) {
  const With with(Order::forward);
  const std::size_t before = cuda_simulator_live_allocations();
  int* a = nullptr;
  CHECK(cudaMallocAsync(&a, 10 * sizeof(int), nullptr) == cudaSuccess);
  CHECK_EQ(cuda_simulator_live_allocations(), before + 1);
  int host[10] = {};
  CHECK(cudaMemcpyAsync(host, a, sizeof host, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK_EQ(host[9], static_cast<int>(0xcdcdcdcdu));
  CHECK(cudaMemsetAsync(a, 0, sizeof host) == cudaSuccess);
  CHECK(cudaMemcpy(host, a, sizeof host, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK_EQ(host[9], 0);
  CHECK(cudaMemcpy(host, a, sizeof host + 1, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(a + 1, host, sizeof host, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(a, host, sizeof host, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(a, 0, sizeof host + 1) == cudaErrorInvalidValue);

  // 2 rows of 3 ints, 5 apart, into rows 3 apart.
  for (int i = 0; i < 10; ++i) host[i] = i;
  CHECK(cudaMemcpy2DAsync(a, 12, host, 20, 12, 2, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(a[2] == 2 && a[3] == 5 && a[5] == 7 && a[6] == 0);
  CHECK(cudaMemcpy2DAsync(a, 36, host, 20, 12, 2, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);

  CHECK(cudaFree(a + 1) == cudaErrorInvalidValue);
  CHECK(cudaFree(host) == cudaErrorInvalidValue);
  CHECK(cudaFreeHost(a) == cudaErrorInvalidValue);
  CHECK(cudaFreeAsync(a, nullptr) == cudaSuccess);
  CHECK(cudaFree(a) == cudaErrorInvalidValue);
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK_EQ(cuda_simulator_live_allocations(), before);
}

TEST(properties_of_the_device) {
  Settings settings;
  settings.multiprocessors = 3;
  settings.shared_limit = 99 * 1024;
  settings.resident_blocks = 12;
  settings.compute_major = 7;
  settings.compute_minor = 5;
  const With with(settings);
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK_EQ(std::string(properties.name), std::string("vqcodec CUDA host"));
  CHECK_EQ(properties.multiProcessorCount, 3);
  CHECK_EQ(properties.sharedMemPerBlockOptin, std::size_t{99 * 1024});
  CHECK_EQ(properties.major * 10 + properties.minor, 75);
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
  CHECK_EQ(value, 99 * 1024);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, index_kernel, 256, 0) == cudaSuccess);
  CHECK_EQ(value, 4);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, index_kernel, 1024, 0) ==
        cudaSuccess);
  CHECK_EQ(value, 2);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
  CHECK(cudaFuncSetAttribute(index_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             99 * 1024 + 1) == cudaErrorInvalidValue);
}

TEST(settings_of_the_environment) {
  setenv("VQCODEC_CUDA_SIMULATOR_ORDER", "random:42", 1);
  setenv("VQCODEC_CUDA_SIMULATOR_SMS", "9", 1);
  setenv("VQCODEC_CUDA_SIMULATOR_SHARED", "65536", 1);
  setenv("VQCODEC_CUDA_SIMULATOR_RESIDENT", "2", 1);
  const Settings found = cuda_simulator::settings_of_environment();
  CHECK(found.order == Order::random);
  CHECK_EQ(found.seed, 42u);
  CHECK_EQ(found.multiprocessors, 9);
  CHECK_EQ(found.shared_limit, 65536);
  CHECK_EQ(found.resident_blocks, 2);
  setenv("VQCODEC_CUDA_SIMULATOR_ORDER", "reverse", 1);
  CHECK(cuda_simulator::settings_of_environment().order == Order::reverse);
  for (const char* variable :
       {"VQCODEC_CUDA_SIMULATOR_ORDER", "VQCODEC_CUDA_SIMULATOR_SMS",
        "VQCODEC_CUDA_SIMULATOR_SHARED", "VQCODEC_CUDA_SIMULATOR_RESIDENT"}) {
    unsetenv(variable);
  }
  CHECK(cuda_simulator::settings_of_environment().order == Order::forward);
}

// The same seed makes the same run.
TEST(random_order_repeats) {
  const auto order_of_blocks = [](std::uint64_t seed) {
    const With with(Order::random, seed);
    const Array<int> sum(std::vector<int>{0}), highest(std::vector<int>{0}),
        lowest(std::vector<int>{0}), tickets(std::vector<int>(21, 0));
    const Array<unsigned> bits(std::vector<unsigned>{0}), lock(std::vector<unsigned>{0}),
        locked_sum(std::vector<unsigned>{0});
    CHECK(runs(atomics_kernel, dim3(20), dim3(32), 0,
               AtomicsParams{sum, highest, lowest, tickets, bits, lock, locked_sum}));
    return tickets.values();
  };
  CHECK(order_of_blocks(1) == order_of_blocks(1));
  CHECK(order_of_blocks(1) != order_of_blocks(2));
}

TEST(nothing_is_leaked) { CHECK_EQ(cuda_simulator_live_allocations(), 0u); }

}  // namespace vqcodec::cuda_simulator_tests

int main(int argc, char** argv) {
  using namespace vqcodec;
  const char* wanted = argc > 1 ? argv[1] : "";
  int failed = 0, run = 0;
  for (const testing::Test& test : testing::all_tests()) {
    if (std::strstr(test.name.c_str(), wanted) == nullptr) continue;
    const int before = testing::failures;
    test.run();
    const bool ok = testing::failures == before;
    std::cout << (ok ? "ok      " : "FAILED  ") << test.name << std::endl;
    failed += !ok;
    ++run;
  }
  std::cout << run - failed << " of " << run << " tests passed\n";
  return failed == 0 && run > 0 ? 0 : 1;
}
