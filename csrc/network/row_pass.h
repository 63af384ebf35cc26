// One pass of an integer network over an image, some rows at a time.
//
// Of every plane only the rows live that some step still reads: a ring. Rows have margins to the
// left and right, in which their first and last positions are repeated, and rows above and below
// the plane are its first and last one; so a convolution is one matrix product wherever it is
// applied.
//
//     rows of the inputs  --->  step  --->  step  --->  step  --->  rows of the outputs
//       a few more              each goes as far as its inputs allow        handed over
//
// Memory grows with the width of the image and not with its height. The work of a step is shared
// out to all threads, by row and by columns. No result depends on how many rows go at a time, on
// the number of threads or on the variant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/aligned_array.h"
#include "network/integer_network.h"
#include "nn/instruction_set.h"
#include "nn/kernels.h"

namespace vqcodec {

// Where the rows of the inputs come from.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Writes row `row` of an input: position x goes to `to + x * stride`. Called once for every row,
  // from any thread.
  virtual void read(int input, int row, std::int16_t* to, std::ptrdiff_t stride) const = 0;
};

// Where the rows of the outputs go. Outputs that have the same stride arrive together.
class RowSink {
 public:
  virtual ~RowSink() = default;
  // Takes row `row` of the `count` outputs `numbers` (those of one stride, in order): position x
  // of the i-th is at rows[i] + x * strides[i]. Called once for every row, from any thread.
  virtual void write(const int* numbers, int count, int row, const std::int16_t* const* rows,
                     const std::ptrdiff_t* strides) = 0;
};

class RowPass {
 public:
  // All strides of the network divide height and width, which are at least 1.
  RowPass(const IntegerNetwork& network, Variant variant, int height, int width,
          const RowSource& source, RowSink& sink);
  ~RowPass();

  // Runs it, once; false if `interrupted` said true: rows are missing.
  bool run(const std::function<bool()>& interrupted);

  // Memory that features take, scratch aside.
  std::size_t feature_bytes() const;

 private:
  struct Scratch;
  struct Ring;
  struct Stage;
  // Columns begin, ..., end - 1.
  struct Columns {
    int begin, end;
  };

  void list_stages();
  void plan(int pixel_rows);
  int available(const Stage& stage, int pixel_rows) const;
  int oldest_needed(int plane) const;
  void execute(const Stage& stage, int count);
  void run_part(const Stage& stage, int unit, Columns columns, Scratch& scratch);

  void convolve(const Step& step, int unit, Columns columns, Scratch& scratch);
  void convolve_group(const Step& step, const PhaseGroup& group, int unit, Columns columns,
                      Scratch& scratch);
  void residual(const Step& step, int unit, Columns columns, Scratch& scratch);
  void unshuffle(const Step& step, int unit, Columns columns);
  void concatenate(const Step& step, int unit, Columns columns);
  void combine(const Step& step, int unit, Columns columns);
  void hand_over(const Stage& stage, int row);

  FeatureRows<const std::int16_t> inputs_of(const Ring& ring, int stride, Columns columns) const;
  void find_taps(const Conv& conv, const Ring& ring, int row, Scratch& scratch) const;
  void fill_margins(Ring& ring, int row, Columns columns);

  const IntegerNetwork& network_;
  const IntegerKernels& kernels_;
  const int height_, width_;
  const RowSource& source_;
  RowSink& sink_;
  int block_ = 0;                 // pixel rows at a time
  std::vector<Ring> rings_;       // of every plane
  std::vector<Stage> stages_;     // in order of execution
  std::vector<Scratch> scratch_;  // one for every thread
};

}  // namespace vqcodec
