// The integer prior: its schedules against each other. That the numbers are those of the definition
// in NumPy is tested from Python (tests/ops/test_prior.py).

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"
#include "coding/wavefront_order.h"
#include "prior/prior_frequencies.h"
#include "prior/prior_network.h"
#include "prior/prior_pass.h"
#include "prior/ring.h"
#include "prior/wavefront.h"
#include "random_values.h"

namespace vqcodec {
namespace {

using testing::random_values;
using testing::uniform;
using testing::variants;

bool never() { return false; }

// What a random prior looks like. The tensors that its PriorTensors point to live here.
class RandomPrior {
 public:
  // `coarser_codes`: of the maps before, all at the same stride but the first, at twice that.
  RandomPrior(int codes, int hidden, int heads, int kernel, std::vector<int> coarser_codes) {
    tensors.kernel = kernel;
    tensors.first_kernel = 5;
    tensors.heads = heads;
    tensors.num_blocks = 2;
    const int embedding = uniform(1, 5), residual = uniform(1, 20);
    tensors.embedding = table<std::int8_t>(codes, embedding, -128, 127);
    tensors.first = conv(hidden, 12, embedding);
    tensors.classes = table<std::int16_t>(3, hidden, -2000, 2000);
    tensors.levels = table<std::int16_t>(2, hidden, -2000, 2000);
    const int taps = kernel / 2 * kernel + kernel / 2 + 1;
    for (int layer = 0; layer < 3; ++layer) {  // two blocks and one of the output stack
      tensors.layers.push_back(
          {conv(2 * residual, layer < 2 ? taps : 1, hidden), conv(hidden, 1, residual), false});
      if (layer == 1 && heads > 0) {
        tensors.layers.push_back({conv(3 * hidden, 1, hidden), conv(hidden, 1, hidden), true});
      }
    }
    int channels = 0;
    for (std::size_t j = 0; j < coarser_codes.size(); ++j) {
      const int factor = j == 0 ? 2 : 1, each = uniform(1, 4);
      tensors.factors.push_back(factor);
      tensors.coarser.push_back(
          table<std::int8_t>(coarser_codes[j], factor * factor * each, -128, 127));
      channels += each;
    }
    if (channels > 0) {
      tensors.condition_in = conv(hidden, 9, channels);
      tensors.condition.push_back({conv(residual, 9, hidden), conv(hidden, 1, residual), false});
    }
    tensors.logits = conv(codes, 1, hidden);
    tensors.tanh = table<std::int8_t>(256, 1, -127, 127);
    tensors.sigmoid = table<std::int8_t>(256, 1, 0, 127);
    std::vector<std::uint16_t> exp = random_values<std::uint16_t>(kExpSize, 0, 65535);
    std::sort(exp.rbegin(), exp.rend());
    exp_ = exp;
    tensors.exp = {exp_.data(), kExpSize, 1};
  }
  RandomPrior(const RandomPrior&) = delete;

  std::shared_ptr<const PriorNetwork> load() const {
    std::shared_ptr<const PriorNetwork> network;
    const Status status = PriorNetwork::create(tensors, &network);
    CHECK_EQ(status.message(), std::string());
    return network;
  }

  PriorTensors tensors;

 private:
  template <class T>
  TableView<T> table(int rows, int columns, int low, int high) {
    auto values = random_values<T>(static_cast<std::size_t>(rows) * columns, low, high);
    const T* data;
    if constexpr (sizeof(T) == 1) {
      bytes_.push_back(std::move(values));
      data = bytes_.back().data();
    } else {
      shorts_.push_back(std::move(values));
      data = shorts_.back().data();
    }
    return {data, rows, columns};
  }

  // Weights of which sums use the range of their shifts.
  ConvTensors conv(int outputs, int taps, int inputs) {
    const std::size_t size = static_cast<std::size_t>(outputs) * taps * inputs;
    bytes_.push_back(random_values<std::int8_t>(size, -127, 127));
    biases_.push_back(random_values<std::int32_t>(outputs, -5000, 5000));
    shifts_.push_back(random_values<std::uint8_t>(outputs, 5, 9));
    return {
        bytes_.back().data(), biases_.back().data(), shifts_.back().data(), outputs, taps, inputs};
  }

  std::vector<std::vector<std::int8_t>> bytes_;
  std::vector<std::vector<std::int16_t>> shorts_;
  std::vector<std::vector<std::int32_t>> biases_;
  std::vector<std::vector<std::uint8_t>> shifts_;
  std::vector<std::uint16_t> exp_;
};

// A hierarchy of three maps, the first at half the resolution, and images to sample from it.
class Hierarchy {
 public:
  Hierarchy() : top_(40, 12, 2, 3, {}), middle_(17, 9, 0, 3, {40}), fine_(70, 16, 0, 1, {40, 17}) {
    for (const RandomPrior* prior : {&top_, &middle_, &fine_}) networks_.push_back(prior->load());
  }

  std::vector<const PriorNetwork*> networks() const {
    std::vector<const PriorNetwork*> found;
    for (const auto& network : networks_) found.push_back(network.get());
    return found;
  }

 private:
  RandomPrior top_, middle_, fine_;
  std::vector<std::shared_ptr<const PriorNetwork>> networks_;
};

// Maps of one image, their words and bytes.
struct Picture {
  Picture(int rows, int columns) : height(rows), width(columns) {
    for (int m = 0; m < 3; ++m) {
      const auto size = static_cast<std::size_t>(map(m).size());
      codes.emplace_back(size);
      words.push_back(random_values<std::uint32_t>(size, 0, (1 << 24) - 1));
      const auto length = static_cast<std::size_t>(uniform(0, 60));
      bytes.push_back(random_values<std::uint8_t>(length, 0, 255));
    }
  }

  CodeMap map(int m) const {
    const int h = m == 0 ? (height + 1) / 2 : height, w = m == 0 ? (width + 1) / 2 : width;
    return {m < static_cast<int>(codes.size()) ? codes[m].data() : nullptr, h, w};
  }

  template <class Job>
  Job job() {
    Job job;
    job.class_id = height % 3;
    job.level = width % 2;
    for (int m = 0; m < 3; ++m) {
      job.maps.push_back(map(m));
      job.outputs.push_back(codes[m].data());
      if constexpr (std::is_same_v<Job, SampleJob>) {
        job.streams.push_back({words[m].data()});
      } else {
        job.streams.push_back({bytes[m].data(), bytes[m].size()});
      }
    }
    return job;
  }

  int height, width;
  std::vector<std::vector<std::int32_t>> codes;
  std::vector<std::vector<std::uint32_t>> words;
  std::vector<std::vector<std::uint8_t>> bytes;
};

std::vector<Picture> pictures() {
  std::vector<Picture> found;
  for (const auto& [height, width] :
       {std::pair{1, 1}, {1, 9}, {9, 1}, {2, 2}, {7, 10}, {11, 24}, {7, 10}, {7, 10}, {20, 6}}) {
    found.emplace_back(height, width);
  }
  return found;
}

}  // namespace

// The slots of a ring keep what was written, and are zero around it, as far as taps reach.
TEST(prior_ring_finds_every_neighbour) {
  for (int height : {1, 4, 9}) {
    for (int width : {1, 2, 3, 10}) {
      for (int reach : {1, 2, 3}) {
        const int lag = reach + 1, tiles = 2;
        const Wavefront wavefront{height, width, lag};
        const int span = reach * lag + reach;
        Ring ring(wavefront, tiles, reach, 3, span + 1);
        for (int t = 0; t < wavefront.steps(); ++t) {
          ring.clear_margins(t);
          const RowRange rows = wavefront.rows(t);
          for (int tile = 0; tile < tiles; ++tile) {
            for (int row = rows.begin; row < rows.end; ++row) {
              const int index = ring.index(tile, row - rows.begin);
              const auto feature = [&](int step, int r) -> std::int16_t& {
                return ring
                    .data()[ring.offset(step, r - row + rows.begin) + index * ring.stride() + 2];
              };
              const auto own = 1 + tile * 1000 + row * 50 + t - lag * row;
              feature(t, row) = static_cast<std::int16_t>(own);
              for (int dr = -reach; dr <= 0; ++dr) {
                for (int dc = -reach; dc <= (dr < 0 ? reach : 0); ++dc) {
                  const int r = row + dr, c = t - lag * row + dc;
                  const bool inside = r >= 0 && c >= 0 && c < width;
                  CHECK_EQ(feature(t + step_of(dr, dc, lag), r),
                           inside ? 1 + tile * 1000 + r * 50 + c : 0);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST(prior_attention_mean_rounds_down_halves_up) {
  for (std::int64_t total : {1, 2, 3, 65535}) {
    for (std::int64_t sum = -3 * total - 2; sum <= 3 * total + 2; ++sum) {
      const std::int64_t mean = attention_mean(sum, total);
      CHECK(2 * total * mean <= 2 * sum + total);
      CHECK(2 * total * (mean + 1) > 2 * sum + total);
    }
  }
}

// Sampled codes are the same for every variant, number of threads and size of batch, and their
// intervals, computed for the whole map, hold the words that they were drawn with.
TEST(prior_sampling_is_one_function) {
  const Hierarchy hierarchy;
  std::vector<Picture> batch = pictures();
  std::vector<std::vector<std::vector<std::int32_t>>> expected;
  WavefrontOutcome outcome;
  for (Variant variant : variants()) {
    for (int threads : {1, 2, 5}) {
      CHECK(set_num_threads(threads).ok());
      std::vector<SampleJob> jobs;
      for (Picture& picture : batch) jobs.push_back(picture.job<SampleJob>());
      Status status =
          wavefront_sample(hierarchy.networks(), jobs, SamplingRule(), variant, never, &outcome);
      CHECK_EQ(status.message(), std::string());
      for (std::size_t i = 0; i < batch.size(); ++i) {
        if (expected.size() <= i) expected.push_back(batch[i].codes);
        CHECK(batch[i].codes == expected[i]);
        for (auto& codes : batch[i].codes) std::fill(codes.begin(), codes.end(), -1);
        status = wavefront_sample(hierarchy.networks(), {jobs[i]}, SamplingRule(), variant, never,
                                  &outcome);
        CHECK(status.ok());
        CHECK(batch[i].codes == expected[i]);
      }
    }
    for (Picture& picture : batch) {
      const SampleJob job = picture.job<SampleJob>();
      for (int m = 0; m < 3; ++m) {
        const auto size = static_cast<std::size_t>(picture.map(m).size());
        std::vector<std::int64_t> start(size), frequency(size);
        const PriorTile tile = {job.class_id, job.level, job.maps.data(), job.maps[m]};
        CHECK(prior_frequencies(*hierarchy.networks()[m], tile, variant, start.data(),
                                frequency.data())
                  .ok());
        for (std::size_t i = 0; i < size; ++i) {
          CHECK(start[i] <= picture.words[m][i] && picture.words[m][i] < start[i] + frequency[i]);
        }
      }
    }
  }
}

// Bytes that no encoder wrote give codes in range, or the number of the map; always the same.
TEST(prior_decoding_survives_any_stream) {
  const Hierarchy hierarchy;
  const int codes[3] = {40, 17, 70};
  int corrupt = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<Picture> batch = pictures();
    for (Picture& picture : batch) {  // a point above the whole range
      if (uniform(0, 3) == 0) picture.bytes[uniform(0, 2)].assign(8, 255);
    }
    std::vector<DecodeJob> jobs;
    for (Picture& picture : batch) jobs.push_back(picture.job<DecodeJob>());
    WavefrontOutcome expected;
    for (Variant variant : variants()) {
      for (int threads : {1, 3}) {
        CHECK(set_num_threads(threads).ok());
        WavefrontOutcome outcome;
        CHECK(wavefront_decode(hierarchy.networks(), jobs, variant, never, &outcome).ok());
        if (expected.corrupt.empty()) expected = outcome;
        CHECK(outcome.corrupt == expected.corrupt);
        for (const Picture& picture : batch) {
          for (int m = 0; m < 3; ++m) {
            for (std::int32_t code : picture.codes[m]) CHECK(0 <= code && code < codes[m]);
          }
        }
      }
    }
    for (int map : expected.corrupt) corrupt += map >= 0;
  }
  CHECK(corrupt > 0);
}

TEST(prior_decoding_can_be_interrupted) {
  const Hierarchy hierarchy;
  Picture picture(30, 40);
  for (int threads : {1, 3}) {
    CHECK(set_num_threads(threads).ok());
    std::atomic<int> asked{0};
    WavefrontOutcome outcome;
    CHECK(wavefront_decode(
              hierarchy.networks(), {picture.job<DecodeJob>()}, Variant::scalar,
              [&] { return ++asked > 20; }, &outcome)
              .ok());
    CHECK(outcome.interrupted);
  }
}

// Stepwise, a pass over a map of any height keeps the steps that it still needs, no more; only
// what attention looks at grows with the map.
TEST(prior_memory_does_not_grow_with_the_map) {
  class : public CodeSource {
    std::int32_t choose(int, std::int64_t, const FrequencyTable&) override { return 0; }
  } source;
  const Hierarchy hierarchy;
  const auto bytes = [&](int map, int height, int width, Schedule schedule) {
    // Codes are not looked at when a pass is made, but for those of a whole map.
    const std::vector<std::int32_t> zeros(schedule == Schedule::whole_map ? height * width : 0);
    const CodeMap own = {zeros.data(), height, width};
    const CodeMap coarser[] = {{zeros.data(), (height + 1) / 2, (width + 1) / 2}, own};
    const PriorTile tile = {0, 0, coarser, own};
    return PriorPass(*hierarchy.networks()[map], Variant::scalar, schedule, {tile}, source)
        .feature_bytes();
  };
  for (int map : {1, 2}) {
    const std::size_t once = bytes(map, 40, 60, Schedule::stepwise);
    CHECK_EQ(bytes(map, 40000, 60, Schedule::stepwise), once);
    CHECK(bytes(map, 40, 60, Schedule::whole_map) > 3 * once);
  }
  const std::size_t keys_and_values = 2 * 16;  // bytes per position: 2 heads of 6 channels, padded
  CHECK(bytes(0, 4000, 60, Schedule::stepwise) - bytes(0, 40, 60, Schedule::stepwise) <=
        3960 * 60 * 2 * keys_and_values);
}

// One map alone shares its large products out to all threads.
TEST(prior_large_products_use_all_threads) {
  const RandomPrior prior(3000, 200, 0, 3, {});
  const auto network = prior.load();
  std::vector<std::vector<std::int32_t>> found;
  for (int threads : {1, 3}) {
    CHECK(set_num_threads(threads).ok());
    const auto words = std::vector<std::uint32_t>(600, 9999999);
    std::vector<std::int32_t> codes(600);
    SampleJob job;
    job.maps = {{codes.data(), 20, 30}};
    job.outputs = {codes.data()};
    job.streams = {{words.data()}};
    WavefrontOutcome outcome;
    const Status status = wavefront_sample({network.get()}, {job}, SamplingRule(),
                                           variants().back(), never, &outcome);
    CHECK(status.ok());
    found.push_back(codes);
  }
  CHECK(found[0] == found[1]);
}

TEST(prior_network_refuses) {
  const auto refusal = [](auto change) {
    RandomPrior prior(9, 8, 2, 3, {5});
    change(prior.tensors);
    std::shared_ptr<const PriorNetwork> network;
    return PriorNetwork::create(prior.tensors, &network).message();
  };
  CHECK_EQ(refusal([](PriorTensors&) {}), "");
  CHECK_EQ(refusal([](PriorTensors& t) { t.kernel = 4; }), "prior: kernels must be odd");
  CHECK_EQ(refusal([](PriorTensors& t) { t.kernel = 5; }), "prior: gate: taps must be 13, got 5");
  CHECK_EQ(refusal([](PriorTensors& t) { t.first.inputs += 1; }).substr(0, 25),
           "prior: first: inputs must");
  CHECK_EQ(refusal([](PriorTensors& t) { t.classes.columns = 7; }),
           "prior: columns of the class table must be 8, got 7");
  CHECK_EQ(refusal([](PriorTensors& t) { t.heads = 3; }),
           "prior: hidden channels must be a multiple of heads");
  CHECK_EQ(refusal([](PriorTensors& t) { t.logits.outputs = 8; }),
           "prior: logits: outputs must be 9, got 8");
  CHECK_EQ(refusal([](PriorTensors& t) { t.factors[0] = 0; }),
           "prior: factor must be in 1..256, got 0");
  CHECK_EQ(refusal([](PriorTensors& t) { t.coarser.clear(); }),
           "prior: number of factors must be 0, got 1");
  CHECK_EQ(refusal([](PriorTensors& t) { t.tanh.rows = 255; }),
           "prior: size of table tanh must be 256, got 255");
  const std::vector<std::uint16_t> rising = [] {
    std::vector<std::uint16_t> table(kExpSize, 1);
    table.back() = 2;
    return table;
  }();
  CHECK_EQ(refusal([&](PriorTensors& t) { t.exp.data = rising.data(); }),
           "prior: table exp must start above zero and never increase");
  const std::vector<std::int32_t> large(9, std::numeric_limits<std::int32_t>::max());
  CHECK_EQ(refusal([&](PriorTensors& t) { t.logits.bias = large.data(); }).substr(0, 41),
           "prior: logits: largest sum must be in 0..");
  const std::vector<std::uint8_t> wide(9, 31);
  CHECK_EQ(refusal([&](PriorTensors& t) { t.logits.shift = wide.data(); }),
           "prior: logits: shift must be in 0..30, got 31");
}

TEST(prior_jobs_are_checked) {
  const Hierarchy hierarchy;
  const auto refusal = [&](auto change) {
    Picture picture(6, 8);
    DecodeJob job = picture.job<DecodeJob>();
    change(job);
    WavefrontOutcome outcome;
    const Status status =
        wavefront_decode(hierarchy.networks(), {job}, Variant::scalar, never, &outcome);
    return status.message();
  };
  CHECK_EQ(refusal([](DecodeJob&) {}), "");
  CHECK_EQ(refusal([](DecodeJob& j) { j.class_id = 3; }), "map 0: class must be in 0..2, got 3");
  CHECK_EQ(refusal([](DecodeJob& j) { j.level = -1; }), "map 0: level must be in 0..1, got -1");
  CHECK_EQ(refusal([](DecodeJob& j) { j.maps[1].height = 7; }).substr(0, 42),
           "map 1: height of a coarser map must be in ");
  CHECK_EQ(refusal([](DecodeJob& j) { j.maps[2].width = 0; }),
           "map 2: width of a map must be in 1..1048576, got 0");
  CHECK_EQ(refusal([](DecodeJob& j) { j.streams.pop_back(); }),
           "every prior needs a map and a stream: 3 priors, 3 maps, 2 streams");
  CHECK_EQ(refusal([](DecodeJob& j) { j.maps.insert(j.maps.begin(), j.maps[0]); }),
           "map 1: its prior has 0 coarser maps, expected 1");
}

}  // namespace vqcodec
