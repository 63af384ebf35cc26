// Fuzz target: tiles of samples, and of indices.
//
// An input is a tile's shape, then samples (or indices), then streams. What was encoded must come
// back, with errors within the bound, whatever kernels encode and decode; and streams, which no
// encoder need have written, must decode to the same samples by all kernels, or be found invalid.
#include "fuzz.h"
#include "nn/index_model.h"
#include "residual/index_coder.h"
#include "residual/subscale_coder.h"

namespace vqcodec::fuzz {
namespace {

const auto kNever = [] { return false; };

std::vector<Variant> variants() {
  std::vector<Variant> found;
  for (Variant variant : kVariants) {
    if (is_supported(variant)) found.push_back(variant);
  }
  return found;
}

using Streams = std::vector<SampleTile::Streams>;  // [channel][slice]

Streams encoded(SampleTile* tile) {
  std::vector<TileJob> jobs(1);
  jobs[0].tile = tile;
  REQUIRE(code_samples(SampleJob::encode, tile->shape().slices, &jobs, kNever));
  return jobs[0].written;
}

// Whether the streams are sound.
bool decoded(SampleTile* tile, int end, const Streams& streams) {
  std::vector<TileJob> jobs(1);
  jobs[0].tile = tile;
  for (const SampleTile::Streams& channel : streams) {
    jobs[0].read.emplace_back();
    for (int slice = tile->known(); slice < end; ++slice) {
      const auto& stream = channel[static_cast<std::size_t>(slice)];
      jobs[0].read.back().push_back({stream.data(), stream.size()});
    }
  }
  REQUIRE(code_samples(SampleJob::decode, end, &jobs, kNever));
  return !jobs[0].corrupt;
}

bool same(SampleTile& a, SampleTile& b) {
  const std::ptrdiff_t size = std::ptrdiff_t{1} * a.shape().height * a.shape().width;
  for (int c = 0; c < a.shape().channels; ++c) {
    if (!std::equal(a.samples(c), a.samples(c) + size, b.samples(c))) return false;
  }
  return true;
}

void check_round_trip(const TileShape& shape, Input& input) {
  const std::vector<Variant> all = variants();
  SampleTile first(shape, all.front()), last(shape, all.back()), back(shape, all.back());
  const std::ptrdiff_t size = std::ptrdiff_t{1} * shape.height * shape.width;
  std::vector<int> originals;
  const int step = input.byte();  // of what size differences are
  int value = input.byte() * 256;
  for (int c = 0; c < shape.channels; ++c) {
    for (std::ptrdiff_t i = 0; i < size; ++i) {
      value = (value + (input.byte() - 128) * step) & 0xffff;
      const auto sample = static_cast<std::uint16_t>(shape.depth == 8 ? value >> 8 : value);
      first.samples(c)[i] = last.samples(c)[i] = sample;
      originals.push_back(sample);
    }
  }
  const Streams streams = encoded(&first);
  REQUIRE(streams == encoded(&last) && same(first, last));
  for (int end = 1; end <= shape.slices; ++end) REQUIRE(decoded(&back, end, streams));
  REQUIRE(same(first, back));
  const int* original = originals.data();
  for (int c = 0; c < shape.channels; ++c) {
    for (std::ptrdiff_t i = 0; i < size; ++i) {
      REQUIRE(std::abs(back.samples(c)[i] - *original++) <= shape.bound);
    }
  }
}

void decode_anything(const TileShape& shape, Input& input) {
  const std::vector<Variant> all = variants();
  SampleTile first(shape, all.front()), last(shape, all.back());
  Streams streams(static_cast<std::size_t>(shape.channels));
  for (SampleTile::Streams& channel : streams) {
    for (int slice = 0; slice < shape.slices; ++slice) {
      channel.push_back(input.bytes(static_cast<std::size_t>(input.below(32))));
    }
  }
  const bool sound = decoded(&first, shape.slices, streams);
  REQUIRE(sound == decoded(&last, shape.slices, streams));
  REQUIRE(!sound || same(first, last));
}

void check_indices(Input& input) {
  const std::vector<Variant> all = variants();
  IndexTile tile;
  tile.height = 1 + input.below(12);
  tile.width = 1 + input.below(16);
  tile.bits = input.below(kMostIndexBits + 1);
  std::vector<std::uint16_t> indices(static_cast<std::size_t>(tile.height * tile.width));
  for (std::uint16_t& index : indices) {
    index = static_cast<std::uint16_t>(input.byte() * 17 & ((1 << tile.bits) - 1));
  }
  const std::vector<std::uint16_t> original = indices;
  tile.indices = indices.data();
  std::vector<IndexTile> tiles = {tile};
  REQUIRE(encode_indices(&tiles, all.front(), kNever) && indices == original);
  const std::vector<std::uint8_t> stream = tiles[0].stream;
  const std::vector<std::uint8_t> other = input.bytes(64);
  for (Variant variant : all) {
    std::fill(indices.begin(), indices.end(), std::uint16_t{0});
    tiles[0].data = stream.data();
    tiles[0].size = stream.size();
    REQUIRE(decode_indices(&tiles, variant, kNever) && !tiles[0].corrupt && indices == original);
    tiles[0].data = other.data();
    tiles[0].size = other.size();
    REQUIRE(decode_indices(&tiles, variant, kNever));
    for (std::uint16_t index : indices) REQUIRE(tiles[0].corrupt || index >> tile.bits == 0);
  }
}

void run(Input input) {
  const int kind = input.below(3);
  if (kind == 2) return check_indices(input);
  TileShape shape;
  shape.height = 1 + input.below(12);
  shape.width = 1 + input.below(12);
  shape.channels = 1 + input.below(kSampleChannels);
  shape.depth = input.below(2) == 0 ? 8 : 16;
  shape.slices = input.below(2) == 0 ? 1 : kSlices;
  shape.bound = input.below(4) == 0 ? 0 : input.below(65);
  kind == 0 ? check_round_trip(shape, input) : decode_anything(shape, input);
}

}  // namespace
}  // namespace vqcodec::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vqcodec::fuzz::run({data, size});
  return 0;
}
