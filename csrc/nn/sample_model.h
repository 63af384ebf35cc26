// What is learned about the samples of a channel while they are coded (docs/FORMAT.md, "Samples").
//
// A sample is predicted by two linear filters over samples that are known, whose weights follow by
// recursive least squares, one with a short and one with a long memory. Errors seen where things
// were alike give the scale of a logistic distribution around each prediction. The sample is found
// by yes-or-no decisions: is it below the prediction? how many buckets away? where in the bucket?
// For each decision the distributions, and counts of what happened in six contexts, give opinions,
// and a mixture of them in the logistic domain, whose weights are learned as well, gives the
// probability. All of it is integer arithmetic, the same for the encoder and the decoder; nothing
// of it is stored.
//
// This header is included by files with different compiler flags: no standard library, no inline
// functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vqcodec {

inline constexpr int kSampleChannels = 4;
inline constexpr int kPasses = 3;
inline constexpr int kFilters = 2;
inline constexpr int kFilterTaps = 40;  // 36 at most, padded
inline constexpr int kOwnTaps = 18;     // at most
inline constexpr int kOtherTaps = 9;    // for each of at most two channels coded before
// How fast filters forget: 2^-shift a sample.
inline constexpr int kFilterShift[kFilters] = {7, 12};

inline constexpr int kScaleBins = 40;  // of the energy of errors nearby
inline constexpr int kBiasContexts = 1024;
// Decisions: 16 for each of 4 sizes of buckets.
inline constexpr int kBucketClasses = 4;
inline constexpr int kClassNodes = 16;
inline constexpr int kNodes = kBucketClasses * kClassNodes;
inline constexpr int kContexts = 256;  // of a table of counts
inline constexpr int kCountTables = 4;
inline constexpr int kHashTables = 2;
inline constexpr int kHashBits = 14;  // lines of kClassNodes counts
inline constexpr int kOpinions = kFilters + 2 + kCountTables + kHashTables + 1;
inline constexpr int kMixInputs = 16;  // kOpinions, padded

// Tables of functions; see sample_model.cpp.
struct SampleTables {
  std::uint32_t survival[2048];  // 2^22 / (1 + exp(-(i - 1024) / 64))
  std::uint16_t squash[4096];    // 2^16 / (1 + exp(-(i - 2048) / 256))
  std::int16_t stretch[4096];    // 256 ln(p / (1 - p)), p = (i + 1/2) / 4096
  std::uint16_t rate[256];       // 2^16 / (i + 3/2)
  std::int32_t bin_end[kScaleBins];
  std::uint8_t bin[1024];
};

struct LinearFilter {
  alignas(64) std::int32_t covariance[kFilterTaps][kFilterTaps];  // in 1/32
  alignas(64) std::int32_t residue[kFilterTaps];                  // in 1/512
  alignas(64) std::int32_t weights[kFilterTaps];                  // in 2^-13
};

struct ErrorScale {
  std::int32_t error;  // mean of absolute errors, in 2^-16
  std::int32_t seen;   // at most 255
};

struct Position {
  std::int32_t row, column;
};

// What has seen nothing is zero, so that memory is taken as it is used: counts are stored with
// their highest bit turned over, weights of mixtures less what they are to begin with.
inline constexpr std::uint32_t kUndecided = 1u << 31;
inline constexpr std::int32_t kSampleWeight = 16384;

// Of one channel in one pass, over all strides.
struct PassModel {
  LinearFilter filters[kFilters];
  ErrorScale scales[kFilters][kScaleBins];
  std::int32_t bias[2][kBiasContexts];  // in 2^-14
  // The probability of yes in the upper 22 bits, how often it was asked below.
  std::uint32_t counts[kCountTables][kContexts][kNodes];
  alignas(64) std::int32_t mixer[kNodes][kMixInputs];  // in 2^-16
  alignas(64) std::int32_t bin_mixer[kNodes][kScaleBins][kMixInputs];
};

struct ChannelModel {
  PassModel passes[kPasses];
  std::uint32_t hashed[kHashTables][std::size_t{1} << kHashBits][kClassNodes];
};

// What the samples of a channel were off by, for those that are coded later.
struct ChannelErrors {
  std::uint16_t* size;   // absolute, in quarters
  std::int8_t* rounded;  // with its sign, in halves
};

// One channel of a tile that is being coded. Channels before it are known as far as they are looked
// at.
struct SampleChannel {
  int height, width;
  int depth;    // bits of a sample: 8 or 16
  int channel;  // its number
  std::uint16_t* samples[kSampleChannels];
  ChannelErrors errors[kSampleChannels];
  ChannelModel* model;
  const SampleTables* tables;
};

// Samples first, first + 2 * half, ... < end of a row. Positions whose coordinates are multiples of
// 2 * half are known, and those of earlier passes.
struct SampleRow {
  int row, first, end;
  int half;
  int pass;
  int bound;  // by how much a decoded sample may differ from the original
};

// A decision for the range encoder: 2 * probability of yes (in 2^-16) + whether it is.
using Decision = std::uint32_t;
// Decisions that a sample needs at most.
inline constexpr int kMostDecisions = 64;

// A stream as it is read (coding/range_decoder.h).
struct DecisionReader {
  const std::uint8_t* next;
  const std::uint8_t* end;
  std::uint64_t offset, range;
  bool corrupt;  // no encoder wrote this
};

// The kernels of every instruction set.
struct SampleKernels {
  // Samples are replaced by what the decoder will see. Returns the number of decisions.
  std::ptrdiff_t (*encode_row)(const SampleChannel& channel, const SampleRow& row,
                               Decision* decisions);
  void (*decode_row)(const SampleChannel& channel, const SampleRow& row, DecisionReader* reader);
  // Draws them from what has been learned. `state` is a counter (SplitMix64); null: takes every
  // prediction for the sample.
  void (*draw_row)(const SampleChannel& channel, const SampleRow& row, std::uint64_t* state);
};

// The tables, computed once.
const SampleTables& sample_tables();

// Makes zeros a model that has seen nothing, for a channel with so many before it.
void start(int channel, ChannelModel* model);

}  // namespace vqcodec
