#include "quantizer/code_costs.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <vector>

#include "base/aligned_array.h"
#include "base/check.h"
#include "base/thread_pool.h"
#include "nn/fixed_point.h"
#include "nn/kernels.h"

namespace vqcodec {
namespace {

constexpr std::int64_t kBlock = 64;  // positions of one piece of work
constexpr std::int32_t kCostLimit = std::int32_t{1} << 30;
constexpr int kLengthScale = 32;  // an eighth of a bit in 1/256 bit
constexpr int kLargestShift = 62;

// round(2^15 * 2^(i / 256))
constexpr std::uint16_t kExp2[256] = {
    32768, 32857, 32946, 33035, 33125, 33215, 33305, 33395, 33486, 33576, 33667, 33759, 33850,
    33942, 34034, 34126, 34219, 34312, 34405, 34498, 34591, 34685, 34779, 34874, 34968, 35063,
    35158, 35253, 35349, 35445, 35541, 35637, 35734, 35831, 35928, 36025, 36123, 36221, 36319,
    36417, 36516, 36615, 36715, 36814, 36914, 37014, 37114, 37215, 37316, 37417, 37518, 37620,
    37722, 37824, 37927, 38030, 38133, 38236, 38340, 38444, 38548, 38653, 38757, 38863, 38968,
    39074, 39180, 39286, 39392, 39499, 39606, 39714, 39821, 39929, 40037, 40146, 40255, 40364,
    40473, 40583, 40693, 40804, 40914, 41025, 41136, 41248, 41360, 41472, 41584, 41697, 41810,
    41923, 42037, 42151, 42265, 42380, 42495, 42610, 42726, 42841, 42958, 43074, 43191, 43308,
    43425, 43543, 43661, 43780, 43898, 44017, 44137, 44256, 44376, 44497, 44617, 44738, 44859,
    44981, 45103, 45225, 45348, 45471, 45594, 45718, 45842, 45966, 46091, 46216, 46341, 46467,
    46593, 46719, 46846, 46973, 47100, 47228, 47356, 47484, 47613, 47742, 47871, 48001, 48131,
    48262, 48393, 48524, 48655, 48787, 48920, 49052, 49185, 49319, 49452, 49586, 49721, 49856,
    49991, 50126, 50262, 50399, 50535, 50672, 50810, 50947, 51085, 51224, 51363, 51502, 51642,
    51782, 51922, 52063, 52204, 52346, 52488, 52630, 52773, 52916, 53059, 53203, 53347, 53492,
    53637, 53782, 53928, 54074, 54221, 54368, 54515, 54663, 54811, 54960, 55109, 55258, 55408,
    55558, 55709, 55860, 56012, 56163, 56316, 56468, 56622, 56775, 56929, 57083, 57238, 57393,
    57549, 57705, 57861, 58018, 58176, 58333, 58491, 58650, 58809, 58968, 59128, 59289, 59449,
    59611, 59772, 59934, 60097, 60260, 60423, 60587, 60751, 60916, 61081, 61247, 61413, 61579,
    61746, 61914, 62081, 62250, 62419, 62588, 62757, 62928, 63098, 63269, 63441, 63613, 63785,
    63958, 64132, 64306, 64480, 64655, 64830, 65006, 65182, 65359};

// All that does not depend on the position.
class Chooser {
 public:
  Chooser(const CodeChoice& choice, Variant variant)
      : choice_(choice),
        kernels_(kernels_of(variant).code_costs),
        num_panels_((choice.codes + kPanel - 1) / kPanel),
        codebook_(static_cast<std::size_t>(num_panels_) * kPanel * choice.channels),
        lengths_(static_cast<std::size_t>(num_panels_) * kPanel) {
    VQCODEC_ASSERT(choice.codes > 0 && choice.channels > 0 && choice.channels <= (1 << 15));
    for (int k = 0; k < choice.codes; ++k) {
      const std::size_t first = static_cast<std::size_t>(k / kPanel) * choice.channels;
      for (int c = 0; c < choice.channels; ++c) {
        const std::int16_t value = choice.codebook[std::ptrdiff_t{k} * choice.channels + c];
        codebook_[(first + c) * kPanel + k % kPanel] = value;
        largest_ = std::max(largest_, std::abs(std::int64_t{value}));
      }
      lengths_[k] = choice.lengths[k] * kLengthScale;
    }
    // Beyond all scores of codes, and far enough from overflow.
    for (std::size_t k = choice.codes; k < lengths_.size(); ++k) lengths_[k] = kCostLimit - 1;
  }

  struct Scratch {
    explicit Scratch(const Chooser& chooser)
        : narrow(chooser.lengths_.size()),
          wide(chooser.lengths_.size()),
          costs(chooser.lengths_.size()) {}
    AlignedArray<std::uint32_t> narrow;
    AlignedArray<std::uint64_t> wide;
    AlignedArray<std::int32_t> costs;  // of the errors
  };

  // The best codes of a position and their scores; scratch.costs is that of every code.
  void select(std::int64_t position, int count, Scratch& scratch, std::int32_t* codes,
              std::int32_t* scores) const {
    const std::int16_t* const z = choice_.z + position * choice_.channels;
    const std::int32_t exponent = choice_.exponents[position];
    const std::uint32_t mantissa = kExp2[exponent & 255];
    const std::int64_t exact = std::int64_t{choice_.base} - (exponent >> 8);
    const int shift = static_cast<int>(std::clamp<std::int64_t>(exact, 0, kLargestShift));
    std::int64_t largest = 0;
    for (int c = 0; c < choice_.channels; ++c) {
      largest = std::max(largest, std::abs(std::int64_t{z[c]}));
    }
    largest += largest_;
    if (largest * largest * choice_.channels <= std::numeric_limits<std::uint32_t>::max()) {
      kernels_.narrow_distances(z, choice_.channels, codebook_.data(), num_panels_,
                                scratch.narrow.data());
      kernels_.narrow_costs(scratch.narrow.data(), num_panels_, mantissa, shift,
                            scratch.costs.data());
    } else {
      kernels_.wide_distances(z, choice_.channels, codebook_.data(), num_panels_,
                              scratch.wide.data());
      kernels_.wide_costs(scratch.wide.data(), num_panels_, mantissa, shift, scratch.costs.data());
    }
    // Codes that only fill the last panel come after all others.
    std::fill(scratch.costs.data() + choice_.codes, scratch.costs.data() + scratch.costs.size(),
              kCostLimit);
    const int found =
        kernels_.select(scratch.costs.data(), lengths_.data(), num_panels_, count, codes, scores);
    VQCODEC_ASSERT(found == count);
    static_cast<void>(found);
  }

 private:
  const CodeChoice& choice_;
  const CodeCostKernels& kernels_;
  const int num_panels_;
  AlignedArray<std::int16_t> codebook_;  // in panels
  AlignedArray<std::int32_t> lengths_;
  std::int64_t largest_ = 0;  // absolute value in the codebook
};

// body(position, scratch) at every position; false if `interrupted` said true.
template <class Body>
bool for_positions(const CodeChoice& choice, const Chooser& chooser,
                   const std::function<bool()>& interrupted, const Body& body) {
  std::atomic<bool> stop{false};
  parallel_for((choice.positions + kBlock - 1) / kBlock, [&](std::int64_t block) {
    if (stop.load(std::memory_order_relaxed)) return;
    if (interrupted()) stop = true;
    Chooser::Scratch scratch(chooser);
    const std::int64_t end = std::min((block + 1) * kBlock, choice.positions);
    for (std::int64_t i = block * kBlock; i < end; ++i) body(i, scratch);
  });
  return !stop;
}

}  // namespace

bool nearest_codes(const CodeChoice& choice, Variant variant, std::int32_t* codes,
                   const std::function<bool()>& interrupted) {
  const Chooser chooser(choice, variant);
  return for_positions(choice, chooser, interrupted,
                       [&](std::int64_t i, Chooser::Scratch& scratch) {
                         std::int32_t score;
                         chooser.select(i, 1, scratch, codes + i, &score);
                       });
}

bool code_candidates(const CodeChoice& choice, int count, Variant variant, std::int32_t* codes,
                     std::int32_t* costs, const std::function<bool()>& interrupted) {
  VQCODEC_ASSERT(0 < count && count <= choice.codes);
  const Chooser chooser(choice, variant);
  return for_positions(
      choice, chooser, interrupted, [&](std::int64_t i, Chooser::Scratch& scratch) {
        std::int32_t* const best = codes + i * count;
        std::int32_t* const cost = costs + i * count;
        chooser.select(i, count, scratch, best, cost);
        for (int j = 0; j < count; ++j) {
          const std::int64_t total = std::int64_t{cost[j]} + scratch.costs[best[j]];
          cost[j] = static_cast<std::int32_t>(std::min<std::int64_t>(total, kCostLimit));
        }
      });
}

}  // namespace vqcodec
