// fma_peak THREADS: float32 multiply-accumulates per second, in 10^9, that the cores reach when
// nothing but independent FMAs runs on them. Compiled by the benchmarks, with the flags of the
// instruction set in question; prints one number.

#include <immintrin.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

#ifdef __AVX512F__
using Vector = __m512;
Vector broadcast(float x) { return _mm512_set1_ps(x); }
Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
#else
using Vector = __m256;
Vector broadcast(float x) { return _mm256_set1_ps(x); }
Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
#endif

constexpr int kChains = 12;  // more than latency x units needs, and they fit the registers
constexpr long kSteps = 10'000'000;

void run(float* sink) {
  const Vector a = broadcast(0.999f), b = broadcast(1e-3f);
  Vector chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast(static_cast<float>(i));
  for (long step = 0; step < kSteps; ++step) {
    for (Vector& c : chain) c = fma(a, c, b);
  }
  for (const Vector& c : chain) *sink += reinterpret_cast<const float*>(&c)[0];
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  std::vector<float> sinks(static_cast<std::size_t>(threads) * 64);
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t) pool.emplace_back(run, &sinks[static_cast<std::size_t>(t) * 64]);
    for (std::thread& thread : pool) thread.join();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    const double macs = static_cast<double>(threads) * kSteps * kChains * (sizeof(Vector) / 4);
    best = best > macs / time.count() ? best : macs / time.count();
  }
  std::printf("%.2f\n", best / 1e9);
  return sinks[0] == 12345.0f;  // keeps the result alive
}
