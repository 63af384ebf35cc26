// The inner loop of the coder of samples, written once for every instruction set: plain loops,
// which the compiler vectorises for the instruction set of the file.
//
// This header is included by files with different compiler flags: no standard library, and
// everything in an unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/decisions.h"
#include "nn/sample_model.h"

namespace vqcodec {
namespace {

struct Samples : Decisions {
  static constexpr SampleKernels table() { return {encode_row, decode_row, draw_row}; }

  static std::ptrdiff_t encode_row(const SampleChannel& channel, const SampleRow& row,
                                   Decision* decisions) {
    Writer writer = {decisions};
    run(channel, row, writer);
    return writer.next - decisions;
  }
  static void decode_row(const SampleChannel& channel, const SampleRow& row,
                         DecisionReader* reader) {
    Reader local = {*reader};
    run(channel, row, local);
    *reader = local.at;
  }
  static void draw_row(const SampleChannel& channel, const SampleRow& row, std::uint64_t* state) {
    if (state == nullptr) {
      Guesser guesser;
      run(channel, row, guesser);
      return;
    }
    Drawer drawer = {*state};
    run(channel, row, drawer);
    *state = drawer.state;
  }

 private:
  // ---------------------------------------------------------------- linear filters

  static i32 predicted(const LinearFilter& filter, const i32* x) {  // in 2^-6
    u32 sum = 64;
    for (int i = 0; i < kFilterTaps; ++i) {
      sum += static_cast<u32>(filter.weights[i]) * static_cast<u32>(x[i]);
    }
    return static_cast<i32>(sum) >> 7;
  }

  // Recursive least squares, two steps of coordinate descent. Whatever overflows wraps around.
  // x: samples, 0 from `taps` on. gain: how much they count, in 2^-11. error: in 1/16.
  template <int shift>
  static void learn(LinearFilter& filter, const i32* x, int taps, i32 gain, i32 error) {
    constexpr i32 half = 1 << (shift - 1);
    const int padded = (taps + 7) & ~7;
    alignas(64) i32 kept[kFilterTaps];
    for (int i = 0; i < kFilterTaps; ++i) kept[i] = x[i];
    for (int i = 0; i < taps; ++i) {
      const u32 weighted = static_cast<u32>((gain * kept[i] + 32) >> 6);
      i32* const row = filter.covariance[i];
      for (int j = 0; j < padded; ++j) {
        const i32 forgotten = (row[j] + half) >> shift;
        row[j] = static_cast<i32>(static_cast<u32>(row[j]) + weighted * static_cast<u32>(kept[j]) -
                                  static_cast<u32>(forgotten));
      }
    }
    const u32 weighted = static_cast<u32>((gain * error + 32) >> 6);
    alignas(64) i32 residue[kFilterTaps];
    for (int i = 0; i < padded; ++i) {
      const i32 forgotten = (filter.residue[i] + half) >> shift;
      residue[i] =
          static_cast<i32>(static_cast<u32>(filter.residue[i]) +
                           weighted * static_cast<u32>(kept[i]) - static_cast<u32>(forgotten));
    }
    for (int step = 0; step < 2; ++step) {
      i32 most = -1;
      alignas(64) i32 sizes[kFilterTaps];
      for (int i = 0; i < padded; ++i) {
        sizes[i] = residue[i] ^ residue[i] >> 31;  // |x|, or |x| - 1
        most = larger(most, sizes[i]);
      }
      int best = 0;
      while (sizes[best] != most) ++best;
      const i32* const row = filter.covariance[best];
      const i64 diagonal = i64{larger(row[best], 0)} + 1;
      const i32 weight = filter.weights[best];
      const i64 wanted = i64{residue[best]} * 512 / diagonal;
      const i32 moved = static_cast<i32>(clamp(wanted, i64{-32768} - weight, i64{32767} - weight));
      filter.weights[best] = weight + moved;
      for (int i = 0; i < padded; ++i) {
        const i64 taken = (static_cast<i64>(moved) * row[i] + 256) >> 9;
        residue[i] = static_cast<i32>(static_cast<u32>(residue[i]) - static_cast<u32>(taken));
      }
    }
    for (int i = 0; i < padded; ++i) filter.residue[i] = residue[i];
  }

  // ---------------------------------------------------------------- what is known

  // clang-format off
  static constexpr i32 kOwn[kPasses][kOwnTaps][2] = {
      {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}, {0, -2}, {-2, 0}, {-2, -2}, {-2, 2}, {-1, -3},
       {-1, 3}, {1, -3}, {1, 3}, {-3, -1}, {3, -1}, {-3, 1}, {3, 1}, {0, 0}, {0, 0}},
      {{0, -1}, {0, 1}, {-1, 0}, {1, 0}, {0, -2}, {-2, 0}, {-2, -1}, {-2, 1}, {2, -1},
       {2, 1}, {-1, -2}, {-1, 2}, {1, -2}, {1, 2}, {0, -3}, {0, 3}, {-3, 0}, {3, 0}},
      {{0, -1}, {0, 1}, {-1, 0}, {1, 0}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}, {0, -2},
       {-2, 0}, {-1, -2}, {-1, 2}, {1, -2}, {1, 2}, {0, -3}, {0, 3}, {-3, 0}, {3, 0}}};
  // clang-format on
  static constexpr i32 kOther[kPasses][kOtherTaps][2] = {
      {{0, 0}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}, {0, -2}, {-2, 0}, {0, 2}, {2, 0}},
      {{0, 0}, {0, -1}, {0, 1}, {-1, 0}, {1, 0}, {0, -2}, {-2, 0}, {0, 2}, {2, 0}},
      {{0, 0}, {0, -1}, {0, 1}, {-1, 0}, {1, 0}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}}};

  static constexpr int kPredictions = kFilters + 2;

  // Around one sample.
  struct Around {
    i32 values[kFilterTaps];
    alignas(64) i32 x[kFilterTaps];  // less the means of their channels' nearest four, reduced
    int own, taps;
    i32 mean, sum;
    i32 largest;  // difference
    int reduced;  // bits that x has lost
  };

  template <bool inside>
  static void look(const SampleChannel& channel, const SampleRow& row, int column, Around& around) {
    const i32 half = row.half, pass = row.pass;
    const auto known = [&](int of, const i32(&tap)[2], i32 absent) -> i32 {
      const i32 y = row.row + tap[0] * half, x = column + tap[1] * half;
      if (!inside && (y < 0 || x < 0 || y >= channel.height || x >= channel.width)) return absent;
      return channel.samples[of][static_cast<std::ptrdiff_t>(y) * channel.width + x];
    };
    const i32 own = pass == 0 ? 16 : 18;
    i32* const v = around.values;
    const i32 certain = known(channel.channel, kOwn[pass][pass == 2 ? 2 : 0], 0);
    i32 sum = 0;
    for (int i = 0; i < 4; ++i) sum += v[i] = known(channel.channel, kOwn[pass][i], certain);
    const i32 mean = (sum + 2) >> 2;
    for (int i = 4; i < own; ++i) v[i] = known(channel.channel, kOwn[pass][i], mean);
    for (int i = 0; i < own; ++i) around.x[i] = v[i] - mean;
    int taps = own;
    for (int c = larger(0, channel.channel - 2); c < channel.channel; ++c) {
      const i32 centre = known(c, kOther[pass][0], 0);
      v[taps] = centre;
      i32 nearest = 2;
      for (int i = 1; i < kOtherTaps; ++i) {
        v[taps + i] = known(c, kOther[pass][i], centre);
        if (i < 5) nearest += v[taps + i];
      }
      for (int i = 0; i < kOtherTaps; ++i) around.x[taps + i] = v[taps + i] - (nearest >> 2);
      taps += kOtherTaps;
    }
    for (int i = taps; i < kFilterTaps; ++i) around.x[i] = 0;
    i32 largest = 0;
    for (int i = 0; i < kFilterTaps; ++i) largest = larger(largest, size(around.x[i]));
    around.reduced = 0;
    while (largest >> around.reduced > 255) ++around.reduced;
    if (around.reduced) {
      for (int i = 0; i < taps; ++i) around.x[i] >>= around.reduced;
    }
    around.own = own;
    around.taps = taps;
    around.mean = mean;
    around.sum = sum;
    around.largest = largest;
  }

  // How large errors of the channel were around here, in 1/16.
  template <bool inside>
  static i32 energy(const SampleChannel& channel, const SampleRow& row, int column, i32* left,
                    i32* above) {
    const std::uint16_t* const errors = channel.errors[channel.channel].size;
    const auto error = [&](i32 dy, i32 dx) -> i32 {
      const i32 y = row.row + dy * row.half, x = column + dx * row.half;
      if (!inside && (y < 0 || x < 0 || y >= channel.height || x >= channel.width)) return 0;
      return errors[static_cast<std::ptrdiff_t>(y) * channel.width + x];
    };
    *left = error(0, -2);
    *above = error(-2, 0);
    const i32 slice = 2 * *left + 2 * *above + error(-2, 2) + error(-2, -2);
    if (row.pass == 0) return slice * 4 / 6;
    const i32 vertical = error(-1, 0) + error(1, 0);
    if (row.pass == 1) return (2 * slice + 3 * vertical) * 4 / 18;
    return (2 * slice + 3 * (vertical + error(0, -1) + error(0, 1))) * 4 / 24;
  }

  static int bin_of(const SampleTables& tables, i32 x) {
    if (x < 1024) return tables.bin[x];
    int bin = tables.bin[1023];
    while (bin < kScaleBins - 1 && x >= tables.bin_end[bin]) ++bin;
    return bin;
  }

  // ---------------------------------------------------------------- decisions

  // The decisions about one sample.
  template <class Coder>
  struct Decider {
    const SampleTables& tables;
    Coder& coder;
    PassModel& model;
    i32 top;                    // samples lie below it
    i32 mu[kPredictions];       // in 2^-6
    i64 inverse[kPredictions];  // of scales
    int bin;
    u32* rows[kCountTables];
    u32* lines[kHashTables];
    int base = 0;  // of the nodes

    Decider(const SampleTables& tables_, Coder& coder_, PassModel& model_, i32 top_)
        : tables(tables_), coder(coder_), model(model_), top(top_) {}

    struct Survivals {
      i32 at[kPredictions];
    };

    // Probabilities, in 2^-22, that the sample is x or more.
    Survivals survivals(i32 x) const {
      Survivals s;
      if (x <= 0 || x >= top) {
        for (i32& at : s.at) at = x <= 0 ? 1 << 22 : 0;
        return s;
      }
      for (int k = 0; k < kPredictions; ++k) {
        const i64 t = (mu[k] - (x << 6) + 32) * inverse[k] >> 28;
        s.at[k] = static_cast<i32>(tables.survival[clamp(t, i64{-1023}, i64{1023}) + 1024]);
      }
      return s;
    }

    // Whether it is `middle` or more, if it is known to be at least low and below high.
    bool decide(int node, const Survivals& low, const Survivals& middle, const Survivals& high,
                bool yes) {
      alignas(64) i32 opinions[kMixInputs] = {};
      i32* opinion = opinions;
      for (int k = 0; k < kPredictions; ++k) {
        const u32 all = static_cast<u32>(low.at[k] - high.at[k]);
        const u32 part = static_cast<u32>(middle.at[k] - high.at[k]);
        const u32 p = all < 16 ? 2048 : static_cast<u32>((static_cast<u64>(part) << 12) / all);
        *opinion++ = tables.stretch[p > 4095 ? 4095 : p];
      }
      u32* counts[kCountTables + kHashTables];
      for (int k = 0; k < kCountTables; ++k) counts[k] = rows[k] + base + node;
      for (int k = 0; k < kHashTables; ++k) counts[kCountTables + k] = lines[k] + node;
      for (const u32* count : counts) *opinion++ = opinion_of(tables, *count);
      *opinion = 77;
      yes = mixed<kSampleWeight>(tables, coder, opinions, model.mixer[base + node],
                                 model.bin_mixer[base + node][bin], yes);
      if (!Coder::learns) return yes;
      for (u32* count : counts) *count = counted(tables, *count, yes);
      return yes;
    }

    // Finds the sample to within `bound`. value: what it is, if the coder knows it. centre: the
    // prediction. step: of a bucket, in intervals. Returns the middle of its interval, which may
    // lie outside 0 .. top - 1.
    i32 find(i32 value, i32 centre, i32 bound, i32 step) {
      const i32 interval = 2 * bound + 1, zero = centre - bound;
      const Survivals first = survivals(0), last = survivals(top);
      i32 low, high;
      Survivals at_low, at_high;
      int search;
      const Survivals at_zero = survivals(zero);
      i64 bucket = i64{step} * interval;
      if (zero <= 0 || decide(0, first, at_zero, last, value >= zero)) {
        search = 6;
        low = zero;
        at_low = at_zero;
        for (int i = 0;; bucket *= ++i < 4 ? 1 : 2) {
          if (low + bucket >= top) {
            high = low + (top - low + interval - 1) / interval * interval;
            at_high = last;
            break;
          }
          high = static_cast<i32>(low + bucket);
          at_high = survivals(high);
          if (!decide(1 + smaller(i, 4), at_low, at_high, last, value >= high)) break;
          low = high;
          at_low = at_high;
        }
      } else {
        search = 11;
        high = zero;
        at_high = at_zero;
        for (int i = 0;; bucket *= ++i < 4 ? 1 : 2) {
          if (high - bucket <= 0) {
            low = high - (high + interval - 1) / interval * interval;
            at_low = first;
            break;
          }
          low = static_cast<i32>(high - bucket);
          at_low = survivals(low);
          if (decide(7 + smaller(i, 3), first, at_low, at_high, value >= low)) break;
          high = low;
          at_high = at_low;
        }
      }
      for (i32 left = (high - low) / interval; left > 1;) {
        const i32 middle = low + left / 2 * interval;
        const Survivals at_middle = survivals(middle);
        if (decide(search, at_low, at_middle, at_high, value >= middle)) {
          low = middle;
          at_low = at_middle;
          left -= left / 2;
        } else {
          high = middle;
          at_high = at_middle;
          left /= 2;
        }
      }
      return low + bound;
    }
  };

  // ---------------------------------------------------------------- a sample

  template <class Coder>
  static void run(const SampleChannel& channel, const SampleRow& row, Coder& coder) {
    const i32 far = 3 * row.half;
    const bool inside = row.row >= far && row.row + far < channel.height;
    for (int column = row.first; column < row.end; column += 2 * row.half) {
      if (inside && column >= far && column + far < channel.width) {
        code<true>(channel, row, column, coder);
      } else {
        code<false>(channel, row, column, coder);
      }
    }
  }

  template <bool inside, class Coder>
  static void code(const SampleChannel& channel, const SampleRow& row, int column, Coder& coder) {
    const SampleTables& tables = *channel.tables;
    PassModel& model = channel.model->passes[row.pass];
    const int own_channel = channel.channel, depth = channel.depth;
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row.row) * channel.width + column;
    const i32 top = 1 << depth, most = (top - 1) << 6;  // in 2^-6
    Around around;
    look<inside>(channel, row, column, around);
    const i32* const v = around.values;
    const i32 mean = around.mean;
    Decider<Coder> decider(tables, coder, model, top);
    i32* const mu = decider.mu;
    i32 raw[kFilters];
    for (int k = 0; k < kFilters; ++k) {
      raw[k] = mean * 64 + predicted(model.filters[k], around.x) * (1 << around.reduced);
      mu[k] = clamp(raw[k], 0, most);
    }

    // What errors are to be expected, in 1/16.
    i32 left, above;
    const i32 errors = energy<inside>(channel, row, column, &left, &above);
    i32 spread = 0;
    for (int i = 0; i < 4; ++i) spread += size(4 * v[i] - around.sum);
    i32 others = errors / 2, rounded = 0;
    if (own_channel > 0) {
      others = channel.errors[own_channel - 1].size[at] * 4;
      if (own_channel > 1) others = (others + channel.errors[own_channel - 2].size[at] * 4) / 2;
      rounded = channel.errors[own_channel - 1].rounded[at];
    }
    const i32 expected =
        static_cast<i32>((i64{errors} * 77 + i64{spread} * 16 + i64{others} * 64) >> 7);
    const int bin = decider.bin = bin_of(tables, expected);

    // Both predictions, weighted by precision.
    i32 scale[kFilters];
    for (int k = 0; k < kFilters; ++k) scale[k] = larger(model.scales[k][bin].error >> 8, 46);
    const i32 least = smaller(scale[0], scale[1]);
    i64 weighted = 0, total = 0;
    for (int k = 0; k < kFilters; ++k) {
      const i64 precision = (i64{least} << 10) / scale[k];
      weighted += precision * precision * mu[k];
      total += precision * precision;
      decider.inverse[k] = (i64{1613193} << 16) / scale[k];
    }
    const i32 blend = static_cast<i32>(weighted / total);
    int contexts[2];
    contexts[0] =
        bin * 16 + (own_channel ? clamp((rounded + 32) >> 2, 0, 15) : mean >> (depth - 4));
    contexts[1] = 0;
    for (int i = 0; i < 8; ++i) contexts[1] |= (v[i] * 64 > blend) << i;
    const i32 bias = (model.bias[0][contexts[0]] + model.bias[1][contexts[1]]) >> 9;
    const i32 corrected = clamp(blend + bias, 0, most);
    const i32 centre = (corrected + 32) >> 6;
    mu[kFilters] = corrected;
    mu[kFilters + 1] = blend;
    decider.inverse[kFilters] = (i64{1613193} << 16) / least;
    decider.inverse[kFilters + 1] = decider.inverse[kFilters] * 2 / 3;

    const i32 interval = 2 * row.bound + 1;
    int bucket = 0;  // its size, in powers of two
    while (bucket < depth - 2 && (i64{interval} << bucket) * 7680 < i64{least} * 13) ++bucket;
    const int size_class = smaller(bucket, kBucketClasses - 1);

    // Contexts of counts.
    const auto coarse = [&](i32 error) { return smaller(15, bin_of(tables, error * 4) * 2 / 3); };
    decider.base = size_class * kClassNodes;
    decider.rows[0] = model.counts[0][coarse(left) * 16 + coarse(above)];
    decider.rows[1] = model.counts[1][contexts[1]];
    decider.rows[2] = model.counts[2][bin_of(tables, spread) * 4 + smaller(3, bin / 6)];
    decider.rows[3] = model.counts[3][centre >> (depth - 8)];
    u32 exact = static_cast<u32>(row.pass), colour = static_cast<u32>(row.pass);
    for (int i = 0; i < 4; ++i) exact = exact * 271 + static_cast<u32>(v[i]);
    for (int k = around.own; k < around.taps; k += kOtherTaps)
      exact = exact * 517 + static_cast<u32>(v[k]);
    if (own_channel > 0) {
      const i32 before = v[around.taps - kOtherTaps];
      colour = colour * 65536 + static_cast<u32>(before) * 256 +
               static_cast<u32>(own_channel > 1 ? v[around.own] : mean);
    } else {
      colour = colour * 65536 + static_cast<u32>(v[0]) * 256 + static_cast<u32>(v[1]);
    }
    const u32 keys[kHashTables] = {exact * 0x9E3779B1u, colour * 0x85EBCA6Bu};
    for (int k = 0; k < kHashTables; ++k) {
      const u32 line = (keys[k] + static_cast<u32>(size_class) * 0x9E3779B1u) * 0xC2B2AE35u;
      decider.lines[k] = channel.model->hashed[k][line >> (32 - kHashBits)];
    }

    std::uint16_t& sample = channel.samples[own_channel][at];
    const i32 found = Coder::guesses
                          ? centre
                          : decider.find(Coder::knows ? sample : 0, centre, row.bound, 1 << bucket);
    const i32 value = clamp(found, 0, top - 1);
    sample = static_cast<std::uint16_t>(value);

    // Learn.
    const i32 off = value * 64 - corrected;
    channel.errors[own_channel].size[at] =
        static_cast<std::uint16_t>(smaller(65535, (size(off) + 8) >> 4));
    channel.errors[own_channel].rounded[at] =
        static_cast<std::int8_t>(clamp((off + 16) >> 5, -127, 127));
    if (!Coder::learns) return;
    for (int k = 0; k < kFilters; ++k) {
      ErrorScale& s = model.scales[k][bin];
      const i64 error = i64{smaller(size(value * 64 - mu[k]), 1 << 20)} << 10;
      s.error += static_cast<i32>(((error - s.error) * tables.rate[s.seen] + 32768) >> 16);
      if (s.seen < 255) ++s.seen;
    }
    for (int k = 0; k < 2; ++k) {
      i32& b = model.bias[k][contexts[k]];
      b += static_cast<i32>((i64{value * 64 - blend} * 256 - b + 128) >> 8);
    }
    const i32 largest = smaller(255, larger(around.largest, size(value - mean)) >> around.reduced);
    const i32 calm = smaller(expected >> around.reduced, 1 << 14);
    const i32 gain = clamp(
        smaller(2048 * 64 / (64 + (calm * calm >> 4)), (1 << 26) / larger(1, largest * largest)), 1,
        2048);
    const int drop = 2 + around.reduced;
    const auto error = [&](int k) {
      return clamp((value * 64 - raw[k] + (1 << (drop - 1))) >> drop, -1023, 1023);
    };
    learn<kFilterShift[0]>(model.filters[0], around.x, around.taps, gain, error(0));
    learn<kFilterShift[1]>(model.filters[1], around.x, around.taps, gain, error(1));
  }
};

}  // namespace
}  // namespace vqcodec
