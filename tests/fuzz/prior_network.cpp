// Fuzz target: the loading of a prior network from what a model file may hold.
//
// An input chooses the shape of a prior and says where its tensors deviate from what they should
// be: sizes and numbers that contradict the rest, values that are out of range. The network must be
// refused with a message, or be usable: two variants then compute the same valid frequencies, and
// one decodes the rest of the input. A prior without deviations must be accepted.
#include "base/thread_pool.h"
#include "fuzz.h"
#include "prior/prior_frequencies.h"
#include "prior/wavefront.h"

namespace vqcodec::fuzz {
namespace {

constexpr int kHeight = 3, kWidth = 4, kSize = kHeight * kWidth;

PriorShape read_shape(Input& input) {
  PriorShape shape;
  shape.codes = 1 + input.below(36);
  shape.heads = input.below(3);
  shape.hidden = std::max(shape.heads, 1) * (1 + input.below(6));
  shape.kernel = 1 + 2 * input.below(3);
  shape.first_kernel = 1 + 2 * input.below(3);
  shape.embedding = 1 + input.below(4);
  shape.residual = 1 + input.below(4);
  shape.blocks = input.below(3);
  shape.output_blocks = input.below(2);
  shape.condition_blocks = input.below(3);
  for (int j = input.below(3); j > 0; --j) {
    shape.coarser_codes.push_back(1 + input.below(5));
    shape.factors.push_back(1 << input.below(3));
  }
  shape.coarser_channels = 1 + input.below(3);
  return shape;
}

struct Frequencies {
  std::vector<std::int64_t> start = std::vector<std::int64_t>(kSize);
  std::vector<std::int64_t> frequency = std::vector<std::int64_t>(kSize);
};

void use(const PriorNetwork& network, Input& input) {
  // Factors may have become anything up to 256: a map as large as this one is never too small.
  const std::vector<std::int32_t> zeros(kSize, 0);
  const std::vector<CodeMap> coarser(network.coarser.size(), {zeros.data(), kHeight, kWidth});
  std::vector<std::int32_t> codes(kSize);
  for (std::int32_t& code : codes) code = input.below(256) % network.codes;
  const PriorTile tile = {0, 0, coarser.data(), {codes.data(), kHeight, kWidth}};
  Frequencies expected;
  const Variant other = variants()[static_cast<std::size_t>(input.byte()) % variants().size()];
  for (Variant variant : {Variant::scalar, other}) {
    Frequencies found;
    REQUIRE(
        prior_frequencies(network, tile, variant, found.start.data(), found.frequency.data()).ok());
    for (int i = 0; i < kSize; ++i) {
      REQUIRE(found.start[i] >= 0 && found.frequency[i] >= 1);
      REQUIRE(found.start[i] + found.frequency[i] <= kFrequencyTotal);
    }
    if (variant == Variant::scalar) expected = found;
    REQUIRE(found.start == expected.start && found.frequency == expected.frequency);
  }

  const std::vector<std::uint8_t> stream = input.bytes(64);
  DecodeJob job;
  job.maps = coarser;
  job.maps.push_back({codes.data(), kHeight, kWidth});
  job.outputs = {codes.data()};
  job.streams = {{stream.data(), stream.size()}};
  WavefrontOutcome outcome;
  REQUIRE(wavefront_decode({&network}, {job}, other, never, &outcome).ok());
  for (std::int32_t code : codes) REQUIRE(0 <= code && code < network.codes);
}

void run(Input input) {
  static const bool one_thread = set_num_threads(1).ok();
  REQUIRE(one_thread);
  const PriorShape shape = read_shape(input);
  const std::uint32_t seed = input.word();
  std::vector<Lie> lies;
  for (int i = input.below(4); i > 0; --i) {
    const int number = input.byte();
    lies.push_back({number, input.byte()});
  }
  std::vector<Patch> patches;
  for (int i = input.below(6); i > 0; --i) {
    const int tensor = input.byte(), element = input.byte();
    patches.push_back({tensor, element, static_cast<std::int32_t>(input.word())});
  }
  const bool sound = lies.empty() && patches.empty();
  const SmallPrior prior(shape, seed, std::move(lies), std::move(patches));
  std::shared_ptr<const PriorNetwork> network;
  const Status status = PriorNetwork::create(prior.tensors, &network);
  REQUIRE(status.ok() == (network != nullptr));
  REQUIRE(status.ok() || !sound);
  if (status.ok()) {
    use(*network, input);
  } else {
    REQUIRE(status.code() == StatusCode::invalid_argument);
    REQUIRE(status.message().compare(0, 7, "prior: ") == 0 && status.message().size() > 7);
  }
}

}  // namespace
}  // namespace vqcodec::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vqcodec::fuzz::run({data, size});
  return 0;
}
