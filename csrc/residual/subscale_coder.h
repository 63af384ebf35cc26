// Tiles of images, coded sample by sample in subscale order (Menick and Kalchbrenner 2018, section
// 3.1; docs/FORMAT.md, "Samples").
//
// Of a grid whose positions are 2 * half apart, those between are filled in in three passes, and so
// on with half of it, until all positions are known:
//
//     a . a .       a . a .       a b a b       a b a b
//     . . . .  -->  . 0 . 0  -->  1 . 1 .  ...  every pass in rows from left to right,
//     a . a .       a . a .       a b a b       all channels one after the other
//
// A stream that would be no shorter than the samples is the samples: the decoder knows it by its
// length.
//
// A slice is a number of passes that are stored together: all with half >= 8; half = 4; half = 2;
// and each of the last three. Small images are one slice. Channels have streams of their own, so
// that threads code them side by side, one a few rows behind the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/zero_pages.h"
#include "nn/instruction_set.h"
#include "nn/sample_model.h"

namespace vqcodec {

inline constexpr int kSlices = 6;

// By how much samples may differ that are coded with this half, if those of the last passes may
// differ by `bound`: coarser ones, from which finer ones are predicted, by less.
int bound_at(int bound, int half);

struct TileShape {
  int height = 0;
  int width = 0;
  int depth = 8;         // bits of a sample: 8 or 16
  int channels = 0;      // 1 .. kSampleChannels
  int slices = kSlices;  // or 1
  int bound = 0;
};

class SampleTile {
 public:
  // Throws std::bad_alloc.
  SampleTile(const TileShape& shape, Variant variant);
  ~SampleTile();

  const TileShape& shape() const { return shape_; }
  int known() const { return known_; }  // slices that have been coded
  // height x width samples.
  std::uint16_t* samples(int channel) { return samples_[static_cast<std::size_t>(channel)].data(); }

  // What follows works on the next slices, up to slice `end`, one channel at a time. All channels
  // must be done, in any order of calls that does not wait for ever: a channel waits for the ones
  // before. False if `interrupted`.

  // streams[slice]: of this channel.
  using Streams = std::vector<std::vector<std::uint8_t>>;
  bool encode(int channel, int end, Streams* streams, const std::function<bool()>& interrupted);
  struct Bytes {
    const std::uint8_t* data;
    std::size_t size;
  };
  // `corrupt` becomes true if no encoder can have written a stream.
  bool decode(int channel, int end, const std::vector<Bytes>& streams, bool* corrupt,
              const std::function<bool()>& interrupted);
  // Draws the samples from what has been learned; without a seed, takes predictions.
  bool draw(int channel, int end, std::optional<std::uint64_t> seed,
            const std::function<bool()>& interrupted);
  // Means of the nearest known samples, for all slices that are not known. Nothing is learned.
  void fill(int channel);
  // Lets no thread wait for this tile any more, because the work on it failed.
  void stop();
  // After the calls above: the slices are known.
  void advance(int end) { known_ = end; }

 private:
  struct Progress;
  template <class Code>
  bool run(int channel, int end, const std::function<bool()>& interrupted, const Code& code);
  SampleChannel channel_of(int number);
  std::vector<std::size_t> plain_sizes(int end) const;

  TileShape shape_;
  const SampleKernels* kernels_;
  int known_ = 0;
  std::vector<std::vector<std::uint16_t>> samples_;
  std::vector<std::vector<std::uint16_t>> sizes_;
  std::vector<std::vector<std::int8_t>> rounded_;
  std::vector<ZeroPages<ChannelModel>> models_;
  std::unique_ptr<Progress> progress_;
};

enum class SampleJob { encode, decode, draw };

// Tiles and what is to be done with each.
struct TileJob {
  SampleTile* tile = nullptr;
  std::vector<std::vector<SampleTile::Bytes>> read;  // decode: [channel][slice]
  std::vector<SampleTile::Streams> written;          // encode: [channel][slice]
  std::optional<std::uint64_t> seed;                 // draw
  bool corrupt = false;
};

// All channels of all tiles, on all threads. False if `interrupted`.
bool code_samples(SampleJob job, int end, std::vector<TileJob>* tiles,
                  const std::function<bool()>& interrupted);

}  // namespace vqcodec
