// roofline THREADS: what the cores can do at most, for the engine of the prior. Compiled by the
// benchmarks together with one of csrc/nn/kernels_{avx2,avx512}.cpp. Prints three numbers:
//
//     10^9 multiply-accumulates of int16 per second, operands in registers
//     the same for IntegerKernels::product with all that it reads in the first-level cache
//     10^9 bytes per second read from a buffer that fits the second-level cache only
//
// Each is the best of several runs, all threads together.

#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "nn/kernels.h"

namespace {

using namespace vqcodec;

// One multiply-add, as the kernels use it, into accumulators 2, 3, ...; written in assembly, or the
// compiler would compute the constant product once.
#ifdef __AVX512VNNI__
constexpr int kWidth = 64;  // bytes of a register
const IntegerKernels& kernel = kAvx512Kernels.integer;
constexpr int kRows = 8;    // of the kernel's tile
constexpr int kPanels = 2;  // likewise
#define MULTIPLY_ADD(sum) "vpdpwssd %%zmm0, %%zmm1, %%zmm" #sum "\n"
#else
constexpr int kWidth = 32;
const IntegerKernels& kernel = kAvx2Kernels.integer;
constexpr int kRows = 6;
constexpr int kPanels = 1;
#define MULTIPLY_ADD(sum)              \
  "vpmaddwd %%ymm0, %%ymm1, %%ymm15\n" \
  "vpaddd %%ymm15, %%ymm" #sum ", %%ymm" #sum "\n"
#endif
constexpr int kChains = 12;  // more than latency times units

constexpr int kPairs = 120;  // 5 taps of 48 channels

struct Buffers {
  std::vector<std::int16_t> rows = std::vector<std::int16_t>(kRows * 2 * kPairs, 3);
  std::vector<std::int8_t> weights = std::vector<std::int8_t>(kPanels * kPairs * kPanel * 2, 5);
  std::vector<std::int32_t> sums = std::vector<std::int32_t>(kRows * kPanels * kPanel);
  std::vector<std::int8_t> large = std::vector<std::int8_t>(384 * 1024, 1);
};

double registers(Buffers&) {
  constexpr long steps = 4'000'000;
  for (long step = 0; step < steps; ++step) {
    __asm__ volatile(MULTIPLY_ADD(2) MULTIPLY_ADD(3) MULTIPLY_ADD(4) MULTIPLY_ADD(5) MULTIPLY_ADD(6)
                         MULTIPLY_ADD(7) MULTIPLY_ADD(8) MULTIPLY_ADD(9) MULTIPLY_ADD(10)
                             MULTIPLY_ADD(11) MULTIPLY_ADD(12) MULTIPLY_ADD(13)
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm15");
  }
  return static_cast<double>(steps) * kChains * kWidth / 2;
}

double cached_product(Buffers& buffers) {
  constexpr int repeats = 50'000;
  const PackedConv conv = {
      buffers.weights.data(), nullptr, nullptr, kPairs * kPanel * 2, kPanels, 1, kPairs};
  std::int32_t index[kRows];
  for (int r = 0; r < kRows; ++r) index[r] = r;
  const std::ptrdiff_t tap = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    kernel.product(conv, {buffers.rows.data(), index, 2 * kPairs, kRows}, &tap, buffers.sums.data(),
                   kPanels * kPanel);
  }
  return static_cast<double>(repeats) * kRows * kPanels * kPanel * 2 * kPairs;
}

double second_level(Buffers& buffers) {
  constexpr int repeats = 400;
  const std::int8_t* const end = buffers.large.data() + buffers.large.size();
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (const std::int8_t* p = buffers.large.data(); p != end; p += 4 * kWidth) {
#ifdef __AVX512VNNI__
      __asm__ volatile(
          "vmovdqu64 (%0), %%zmm0\n vmovdqu64 64(%0), %%zmm1\n"
          "vmovdqu64 128(%0), %%zmm2\n vmovdqu64 192(%0), %%zmm3\n"
          :
          : "r"(p)
          : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
#else
      __asm__ volatile(
          "vmovdqu (%0), %%ymm0\n vmovdqu 32(%0), %%ymm1\n"
          "vmovdqu 64(%0), %%ymm2\n vmovdqu 96(%0), %%ymm3\n"
          :
          : "r"(p)
          : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
#endif
    }
  }
  return static_cast<double>(repeats) * static_cast<double>(buffers.large.size());
}

// Work per second of all threads together, in 10^9, the best of some runs.
double best_rate(double (*work)(Buffers&), int threads) {
  std::vector<Buffers> buffers(static_cast<std::size_t>(threads));
  std::vector<double> done(buffers.size());
  double best = 0;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> pool;
    for (std::size_t t = 0; t < buffers.size(); ++t) {
      pool.emplace_back([&, t] { done[t] = work(buffers[t]); });
    }
    for (std::thread& thread : pool) thread.join();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    double total = 0;
    for (double each : done) total += each;
    if (total / time.count() > best) best = total / time.count();
  }
  return best / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  std::printf("%.1f %.1f %.1f\n", best_rate(registers, threads), best_rate(cached_product, threads),
              best_rate(second_level, threads));
}
