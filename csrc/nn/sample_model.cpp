#include "nn/sample_model.h"

#include <algorithm>
#include <iterator>

namespace vqcodec {
namespace {

SampleTables make_tables() {
  SampleTables tables = {};
  // exp(-t / 64) and exp(-t / 256) by repeated multiplication, in 2^-32.
  constexpr std::uint64_t one = std::uint64_t{1} << 32;
  std::uint64_t power = one;
  for (int t = 0; t <= 1024; ++t) {
    const auto p = static_cast<std::uint32_t>((one << 22) / (one + power));
    if (t < 1024) tables.survival[1024 + t] = p;
    tables.survival[1024 - t] = (1u << 22) - p;
    power = power * 4228378656u >> 32;
  }
  power = one;
  for (int t = 0; t <= 2048; ++t) {
    const auto p = static_cast<std::uint32_t>((one << 16) / (one + power));
    if (t < 2048) tables.squash[2048 + t] = static_cast<std::uint16_t>(std::min(p, 65535u));
    tables.squash[2048 - t] = static_cast<std::uint16_t>(65536 - p);
    power = power * 4278222763u >> 32;
  }
  int t = 0;
  for (int i = 0; i < 4096; ++i) {
    while (t < 4095 && tables.squash[t] < i * 16 + 8) ++t;
    tables.stretch[i] = static_cast<std::int16_t>(t - 2048);
  }
  for (int n = 0; n < 256; ++n) tables.rate[n] = static_cast<std::uint16_t>(131072 / (2 * n + 3));
  constexpr int ends[] = {2,   5,   8,   12,  17,  24,  33,  43,  56,  73,  94,
                          120, 153, 195, 248, 314, 398, 504, 637, 804, 1015};
  constexpr int given = static_cast<int>(std::size(ends));
  for (int i = 0; i < kScaleBins; ++i) {
    tables.bin_end[i] = i < given ? ends[i] : tables.bin_end[i - 1] * 3 / 2;
  }
  int bin = 0;
  for (int x = 0; x < 1024; ++x) {
    while (x >= tables.bin_end[bin]) ++bin;
    tables.bin[x] = static_cast<std::uint8_t>(bin);
  }
  return tables;
}

}  // namespace

const SampleTables& sample_tables() {
  static const SampleTables tables = make_tables();
  return tables;
}

void start(int channel, ChannelModel* model) {
  for (int pass = 0; pass < kPasses; ++pass) {
    PassModel& m = model->passes[pass];
    const int own = pass == 0 ? 16 : 18, taps = own + kOtherTaps * std::min(channel, 2);
    for (LinearFilter& filter : m.filters) {
      for (int i = 0; i < taps; ++i) filter.covariance[i][i] = 6400;
      // The mean of the nearest, and what the channel before differs from its own.
      for (int i = 0; i < 4; ++i) filter.weights[i] = 2048;
      if (channel == 0) continue;
      const int before = taps - kOtherTaps;
      filter.weights[before] = 8192;
      for (int i = 1; i < 5; ++i) filter.weights[before + i] = -2048;
    }
    for (auto& scales : m.scales) {
      for (int b = 0; b < kScaleBins; ++b) {
        scales[b].error =
            b < 24 ? (64 + (16 << b / 3) * (3 + b % 3) / 3) << 8 : scales[b - 1].error / 2 * 3;
      }
    }
  }
}

}  // namespace vqcodec
