// A pass of an integer network over an image on a GPU, a window at a time.
//
// Of every plane only what the window depends on is computed: a region, found backwards from the
// outputs. Coordinates are clamped to the plane, not to the region, so that any window gives what
// the whole image gives. Planes share one piece of memory: what no later step reads makes room.
//
//     regions of the inputs  --->  step  --->  step  --->  the window of the outputs
//          loaded                 one kernel for each          handed over
//
// Windows are as large as memory allows, which does not depend on the size of the image.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "autoencoder/autoencoder.h"
#include "base/host_device.h"
#include "base/status.h"
#include "cuda/integer_network.h"
#include "network/plane_rows.h"

namespace vqcodec::cuda {

// A region of a plane in device memory: positions of a row side by side, row after row.
struct PlaneView {
  std::int16_t* data = nullptr;
  std::int32_t top = 0, left = 0;  // of the region, in the plane
  std::int32_t height = 0, width = 0;
  std::int32_t channels = 0;
  std::int32_t stride = 0;  // from one position to the next

  // A position of the plane that lies in the region. Regions have less than 2^31 elements.
  VQCODEC_HOST_DEVICE std::int32_t offset(std::int32_t row, std::int32_t column) const {
    return ((row - top) * width + (column - left)) * stride;
  }
  VQCODEC_HOST_DEVICE std::int16_t* at(std::int32_t row, std::int32_t column) const {
    return data + offset(row, column);
  }
  VQCODEC_HOST_DEVICE std::int32_t positions() const { return height * width; }
};

// Where the regions of the inputs come from.
class WindowSource {
 public:
  virtual ~WindowSource() = default;
  // Fills a region of an input, in the order of `stream`.
  virtual Status load(int input, const PlaneView& to, cudaStream_t stream) = 0;
};

// Where the windows of the outputs go.
class WindowSink {
 public:
  virtual ~WindowSink() = default;
  // Takes a window (in pixels) of all outputs, whose regions hold it, and waits for the stream.
  virtual Status take(const Box& window, const std::vector<PlaneView>& outputs,
                      cudaStream_t stream) = 0;
};

struct PassLimits {
  // Device memory that features take, at most, unless the smallest window needs more.
  std::int64_t feature_bytes = 0;
  std::function<bool()> interrupted;
};

// Runs a network on a box of an image. Incomplete where `interrupted` has said true. The size
// passes check_size of the network. unsupported: a CUDA error.
Status run_windows(const IntegerNetwork& network, const ImageSize& size, const Box& box,
                   WindowSource* source, WindowSink* sink, const PassLimits& limits,
                   cudaStream_t stream);

// -------------------------------------------------------------- planes in host memory

// A dense plane of `width` positions a row.
struct HostPlane {
  std::int16_t* data = nullptr;
  std::int64_t width = 0;
};

// Copies a region from or to host memory, which must live until the stream has been waited for.
Status load_region(const HostPlane& from, const PlaneView& to, cudaStream_t stream);
// Rows top, ... and columns left, ... of the plane.
Status store_region(const PlaneView& from, const Box& part, const HostPlane& to,
                    cudaStream_t stream);

// Takes outputs as dense planes.
class PlaneWindows final : public WindowSink {
 public:
  PlaneWindows(const IntegerNetwork& network, const ImageSize& size,
               const std::vector<std::int16_t*>& outputs)
      : network_(network), size_(size), outputs_(outputs) {}

  Status take(const Box& window, const std::vector<PlaneView>& outputs,
              cudaStream_t stream) override;

 private:
  const IntegerNetwork& network_;
  const ImageSize size_;
  const std::vector<std::int16_t*>& outputs_;
};

// vqcodec::run_network on a GPU. The planes pass image_size.
Status run_network(const IntegerNetwork& network, const ImageSize& size,
                   const std::vector<InputPlane>& planes, const std::vector<std::int16_t*>& outputs,
                   const PassLimits& limits, cudaStream_t stream);

}  // namespace vqcodec::cuda
