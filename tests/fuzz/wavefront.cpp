// Fuzz target: the loop that decodes, draws or chooses the code maps of several pictures.
//
// An input chooses one of some small hierarchies, what to do, the pictures' shapes and known maps,
// and holds their streams. The loop must refuse the job, or end with codes in range and, for a
// stream that no encoder wrote, the number of its map; a picture must come out the same alone as
// among others. Codes that were decoded are encoded again and must come back.
#include <array>
#include <memory>

#include "base/thread_pool.h"
#include "fuzz.h"
#include "prior/prior_frequencies.h"
#include "prior/wavefront.h"

namespace vqcodec::fuzz {
namespace {

using Networks = std::vector<const PriorNetwork*>;

constexpr int kHierarchies = 6;
constexpr int kMaps = 3;
constexpr int kCandidates = 2;

// Three maps, the first at half or a quarter of the others' resolution.
class Hierarchy {
 public:
  explicit Hierarchy(int seed) : factor(seed % 2 == 0 ? 2 : 4) {
    for (int m = 0; m < kMaps; ++m) {
      PriorShape shape;
      shape.codes = std::array{3, 33, 5, 64, 1, 17}[static_cast<std::size_t>(seed + m) % 6];
      shape.heads = m == 0 ? seed % 3 : 0;
      shape.hidden = std::max(shape.heads, 1) * (1 + (seed + m) % 4);
      shape.kernel = seed == 5 ? 1 : 3;
      shape.first_kernel = seed == 4 ? 5 : seed == 5 ? 1 : 3;
      shape.residual = 1 + seed % 3;
      shape.embedding = 1 + m;
      shape.output_blocks = seed % 2;
      shape.condition_blocks = seed % 3;
      shape.coarser_codes = codes;
      shape.factors = m == 0 ? std::vector<int>{} : std::vector<int>{factor};
      if (m == 2) shape.factors.push_back(1);
      const SmallPrior prior(shape, static_cast<std::uint32_t>(100 * seed + m + 1));
      REQUIRE(PriorNetwork::create(prior.tensors, &networks[m]).ok());
      codes.push_back(shape.codes);
    }
  }

  const int factor;
  std::vector<int> codes;
  std::array<std::shared_ptr<const PriorNetwork>, kMaps> networks;
};

// Maps of one picture and what they are made from.
struct Picture {
  Picture(const Hierarchy& hierarchy, int known, Input& input) {
    class_id = input.below(32) == 31 ? 2 : input.below(2);  // 2: no such class
    level = input.below(2);
    const auto side = [&] { return input.byte(); };
    const int tall = side(), wide = side();
    height = tall < 250 ? 1 + tall % 7 : (tall - 250) * 5;  // some are larger, and one is empty
    width = wide < 250 ? 1 + wide % 7 : (wide - 250) * 5;
    const int missing = input.below(64) == 63 ? 1 : 0;  // a coarser map that is too small
    for (int m = 0; m < kMaps; ++m) {
      const int f = m == 0 ? hierarchy.factor : 1;
      const int h = std::max((height + f - 1) / f - (m == 0 ? missing : 0), 0);
      const int w = (width + f - 1) / f;
      codes[m].assign(static_cast<std::size_t>(h) * w, 0);
      shapes[m] = {h, w};
      if (m < known) {
        for (std::int32_t& code : codes[m]) code = input.byte() % hierarchy.codes[m];
        if (!codes[m].empty() && input.below(64) == 63) codes[m].back() = hierarchy.codes[m];
      } else {
        bytes[m] = input.bytes(static_cast<std::size_t>(input.below(48)));
      }
    }
  }

  CodeMap map(int m) const { return {codes[m].data(), shapes[m].first, shapes[m].second}; }

  // Uniform words, or candidates, from the bytes of a map.
  std::uint32_t word(int m, std::size_t i) const {
    const auto& from = bytes[m];
    const std::uint32_t byte = from.empty() ? 0 : from[i % from.size()];
    const std::uint32_t near =
        (byte << 16 | byte << 8 | byte) + static_cast<std::uint32_t>(i % 3) - 1;
    return near & (kFrequencyTotal - 1);
  }

  int class_id, level, height, width;
  std::array<std::pair<int, int>, kMaps> shapes;
  std::array<std::vector<std::int32_t>, kMaps> codes;
  std::array<std::vector<std::uint8_t>, kMaps> bytes;
};

template <class Stream>
WavefrontJob<Stream> job_of(Picture& picture, int known) {
  WavefrontJob<Stream> job;
  job.class_id = picture.class_id;
  job.level = picture.level;
  for (int m = 0; m < kMaps; ++m) {
    job.maps.push_back(picture.map(m));
    if (m >= known) job.outputs.push_back(picture.codes[m].data());
  }
  return job;
}

void check_codes(const Hierarchy& hierarchy, const Picture& picture) {
  for (int m = 0; m < kMaps; ++m) {
    for (std::int32_t code : picture.codes[m]) REQUIRE(0 <= code && code < hierarchy.codes[m]);
  }
}

// Encodes the codes of a picture anew.
void encode(const Hierarchy& hierarchy, int known, Picture& picture) {
  std::vector<CodeMap> maps;
  for (int m = 0; m < kMaps; ++m) maps.push_back(picture.map(m));
  for (int m = known; m < kMaps; ++m) {
    const std::size_t size = picture.codes[m].size();
    std::vector<std::int64_t> start(size), frequency(size);
    const PriorTile tile = {picture.class_id, picture.level, maps.data(), maps[m]};
    REQUIRE(prior_frequencies(*hierarchy.networks[m], tile, variants().front(), start.data(),
                              frequency.data())
                .ok());
    RangeEncoder encoder;
    RangeDecoder reader(picture.bytes[m].data(), picture.bytes[m].size());
    for (std::size_t i = 0; i < size; ++i) {
      const auto low = static_cast<std::uint32_t>(start[i]);
      const auto width = static_cast<std::uint32_t>(frequency[i]);
      const std::uint64_t quantile = reader.quantile();
      REQUIRE(low <= quantile && quantile - low < width);  // what the loop saw, too
      reader.consume(low, width);
      encoder.encode(low, width);
    }
    picture.bytes[m] = encoder.finish();
  }
}

class Run {
 public:
  explicit Run(Input& input)
      : hierarchy_(all()[static_cast<std::size_t>(input.below(kHierarchies))]),
        what_(input.below(4)),
        known_(input.below(kMaps)) {
    variant_ = variants()[static_cast<std::size_t>(input.byte()) % variants().size()];
    REQUIRE(set_num_threads(input.byte() == 255 ? 3 : 1).ok());
    for (int count = 1 + input.below(3); count > 0; --count) {
      pictures_.emplace_back(hierarchy_, known_, input);
    }
    for (int m = known_; m < kMaps; ++m) networks_.push_back(hierarchy_.networks[m].get());
    const int sharpness = input.byte();
    rule_ = {sharpness == 0 ? SamplingRule::kNeutralSharpness : 16 * sharpness,
             SamplingRule::kWholeNucleus - 256 * input.byte()};
  }

  void run() {
    if (what_ == 2) {
      draw();
    } else if (what_ == 3) {
      choose();
    } else {
      decode(what_ == 1);
    }
  }

 private:
  static const std::deque<Hierarchy>& all() {
    static const std::deque<Hierarchy> found = [] {
      std::deque<Hierarchy> made;
      for (int seed = 0; seed < kHierarchies; ++seed) made.emplace_back(seed);
      return made;
    }();
    return found;
  }

  DecodeJob decode_job(Picture& picture) const {
    auto job = job_of<ByteStream>(picture, known_);
    for (int m = known_; m < kMaps; ++m) {
      job.streams.push_back({picture.bytes[m].data(), picture.bytes[m].size()});
    }
    return job;
  }

  void decode(bool again) {
    std::vector<DecodeJob> jobs;
    for (Picture& picture : pictures_) jobs.push_back(decode_job(picture));
    WavefrontOutcome outcome;
    const Status status = wavefront_decode(networks_, jobs, variant_, never, &outcome);
    if (refused(status)) return;
    REQUIRE(!outcome.interrupted && outcome.corrupt.size() == pictures_.size());
    for (std::size_t i = 0; i < pictures_.size(); ++i) {
      REQUIRE(outcome.corrupt[i] == -1 ||
              (known_ <= outcome.corrupt[i] && outcome.corrupt[i] < kMaps));
      check_codes(hierarchy_, pictures_[i]);
    }
    Picture& picture = pictures_.back();
    const auto expected = picture.codes;
    const int corrupt = outcome.corrupt.back();
    if (again && corrupt == -1) encode(hierarchy_, known_, picture);
    if (!again && pictures_.size() == 1) return;
    for (int m = known_; m < kMaps; ++m) {
      std::fill(picture.codes[m].begin(), picture.codes[m].end(), -1);
    }
    REQUIRE(wavefront_decode(networks_, {decode_job(picture)}, variants().front(), never, &outcome)
                .ok());
    REQUIRE(outcome.corrupt == std::vector<int>{corrupt});
    REQUIRE(picture.codes == expected);
  }

  void draw() {
    std::vector<SampleJob> jobs;
    std::deque<std::vector<std::uint32_t>> words;
    for (Picture& picture : pictures_) {
      jobs.push_back(job_of<WordStream>(picture, known_));
      for (int m = known_; m < kMaps; ++m) {
        words.emplace_back();
        for (std::size_t i = 0; i < picture.codes[m].size(); ++i) {
          words.back().push_back(picture.word(m, i));
        }
        jobs.back().streams.push_back({words.back().data()});
      }
    }
    WavefrontOutcome outcome;
    if (refused(wavefront_sample(networks_, jobs, rule_, variant_, never, &outcome))) return;
    for (const Picture& picture : pictures_) check_codes(hierarchy_, picture);
  }

  void choose() {
    std::vector<ChooseJob> jobs;
    std::deque<std::vector<std::int32_t>> codes;
    std::deque<std::vector<std::int32_t>> costs;
    for (Picture& picture : pictures_) {
      jobs.push_back(job_of<CandidateStream>(picture, known_));
      for (int m = known_; m < kMaps; ++m) {
        codes.emplace_back();
        costs.emplace_back();
        for (std::size_t i = 0; i < kCandidates * picture.codes[m].size(); ++i) {
          const std::uint32_t word = picture.word(m, i);
          codes.back().push_back(static_cast<std::int32_t>(word % 256) % hierarchy_.codes[m]);
          costs.back().push_back(word % 11 == 0 ? static_cast<std::int32_t>(word)
                                                : static_cast<std::int32_t>(word % 9700));
        }
        jobs.back().streams.push_back({codes.back().data(), costs.back().data(), kCandidates});
      }
    }
    WavefrontOutcome outcome;
    if (refused(wavefront_choose(networks_, jobs, variant_, never, &outcome))) return;
    for (const Picture& picture : pictures_) check_codes(hierarchy_, picture);
  }

  // A refusal needs a reason, and a reason needs a refusal.
  bool refused(const Status& status) const {
    bool wrong = false;
    for (const Picture& picture : pictures_) {
      wrong |= picture.class_id > 1 || picture.height == 0 || picture.width == 0;
      for (int m = 0; m < kMaps; ++m) {
        const int f = m == 0 ? hierarchy_.factor : 1;
        wrong |= picture.shapes[m].first < (picture.height + f - 1) / f;
        if (m >= known_) continue;
        for (std::int32_t code : picture.codes[m]) wrong |= code >= hierarchy_.codes[m];
      }
    }
    REQUIRE(status.ok() || status.code() == StatusCode::invalid_argument);
    REQUIRE(status.ok() != wrong);
    return !status.ok();
  }

  const Hierarchy& hierarchy_;
  const int what_;  // 0, 1: decode; 2: draw; 3: choose
  const int known_;
  Variant variant_;
  std::deque<Picture> pictures_;
  Networks networks_;
  SamplingRule rule_;
};

}  // namespace
}  // namespace vqcodec::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vqcodec::fuzz::Input input(data, size);
  vqcodec::fuzz::Run(input).run();
  return 0;
}
