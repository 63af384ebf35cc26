#include "cuda/autoencoder.h"

#include <utility>

#include "cuda/device.cuh"
#include "cuda/grid.cuh"
#include "nn/fixed_point.h"

namespace vqcodec::cuda {
namespace {

constexpr int kColours = 3;

// ---------------------------------------------------------------- on the device

// Vectors of the codes of a stride: a thread for every channel of every position.
struct VectorParams {
  const DeviceMap* maps;
  const std::int32_t* codes;  // maps x positions of the region
  std::int32_t num_maps;      // those that are there; channels of others are zero
  PlaneView to;
};

__global__ void __launch_bounds__(kThreads) vector_kernel(VectorParams params) {
  const PlaneView& to = params.to;
  const std::int64_t thread = global_thread();
  if (thread >= std::int64_t{to.positions()} * to.channels) return;
  const auto element = static_cast<std::int32_t>(thread);
  const std::int32_t position = element / to.channels, channel = element % to.channels;
  std::int32_t x = 0;
  for (std::int32_t m = 0; m < params.num_maps; ++m) {
    const DeviceMap map = params.maps[m];
    const std::int32_t c = channel - map.first_channel;
    if (c < 0 || c >= map.channels) continue;
    const std::int32_t code = params.codes[std::int64_t{m} * to.positions() + position];
    const std::int32_t value = map.codebook[std::int64_t{code} * map.channels + c];
    x = map.refines ? saturate16(x + value) : value;
  }
  to.data[std::int64_t{position} * to.stride + channel] = static_cast<std::int16_t>(x);
}

// Grey levels of a region, less 128.
struct GreyLevelParams {
  const std::uint8_t* pixels;  // of the region, dense
  PlaneView to;
};

__global__ void __launch_bounds__(kThreads) grey_level_kernel(GreyLevelParams params) {
  const PlaneView& to = params.to;
  const std::int64_t thread = global_thread();
  if (thread >= std::int64_t{to.positions()} * kColours) return;
  const auto element = static_cast<std::int32_t>(thread);
  to.data[std::int64_t{element / kColours} * to.stride + element % kColours] =
      static_cast<std::int16_t>(params.pixels[element] - kGreyOffset);
}

// Pixels of a box of one or two planes.
struct PixelParams {
  PlaneView a, b;  // without data: zeros
  std::int32_t top, left, height, width;
  std::uint8_t* pixels;
};

__global__ void __launch_bounds__(kThreads) pixel_kernel(PixelParams params) {
  const std::int64_t thread = global_thread();
  if (thread >= std::int64_t{params.height} * params.width * kColours) return;
  const auto element = static_cast<std::int32_t>(thread);
  const std::int32_t position = element / kColours, colour = element % kColours;
  const std::int32_t row = params.top + position / params.width;
  const std::int32_t column = params.left + position % params.width;
  std::int32_t x = params.a.at(row, column)[colour];
  if (params.b.data != nullptr) x += params.b.at(row, column)[colour];
  params.pixels[element] = static_cast<std::uint8_t>(pixel(x));
}

template <class Params>
Status launch_for(void (*kernel)(Params), std::int64_t threads, const Params& params,
                  cudaStream_t stream) {
  return check(launch(kernel, blocks_for(threads), kThreads, 0, stream, params),
               "starting a kernel of the autoencoder");
}

// ---------------------------------------------------------------- on the host

class VectorSource final : public WindowSource {
 public:
  VectorSource(const Autoencoder& autoencoder, const CodeMaps& maps)
      : autoencoder_(autoencoder), maps_(maps) {}

  Status load(int input, const PlaneView& to, cudaStream_t stream) override {
    const std::int64_t stride = autoencoder_.host().vectors[static_cast<std::size_t>(input)].stride;
    std::vector<std::int32_t> codes;
    VectorParams params = {autoencoder_.maps(input), nullptr, 0, to};
    for (std::size_t m = 0; m < maps_.size(); ++m) {
      if (autoencoder_.host().maps[m].stride != stride) continue;
      for (std::int64_t row = to.top; row < std::int64_t{to.top} + to.height; ++row) {
        const std::int32_t* const from = maps_[m].data + row * maps_[m].columns + to.left;
        codes.insert(codes.end(), from, from + to.width);
      }
      ++params.num_maps;
    }
    DeviceArray<std::int32_t> copied;
    if (Status status = copied.upload(codes, stream); !status.ok()) return status;
    params.codes = copied.data();
    return launch_for(vector_kernel, std::int64_t{to.positions()} * to.channels, params, stream);
  }

 private:
  const Autoencoder& autoencoder_;
  const CodeMaps& maps_;
};

// Features of one stride, and the vectors of all coarser ones.
class LatentSource final : public WindowSource {
 public:
  LatentSource(const HostPlane& features, VectorSource* vectors)
      : features_(features), vectors_(vectors) {}

  Status load(int input, const PlaneView& to, cudaStream_t stream) override {
    if (input > 0) return vectors_->load(input - 1, to, stream);
    return load_region(features_, to, stream);
  }

 private:
  const HostPlane features_;
  VectorSource* const vectors_;
};

class PixelSource final : public WindowSource {
 public:
  PixelSource(const std::uint8_t* pixels, std::int64_t width) : pixels_(pixels), width_(width) {}

  Status load(int, const PlaneView& to, cudaStream_t stream) override {
    const std::int64_t size = std::int64_t{to.positions()} * kColours;
    DeviceArray<std::uint8_t> copied;
    if (Status status = copied.allocate(static_cast<std::size_t>(size), stream); !status.ok()) {
      return status;
    }
    const auto bytes = [](std::int64_t positions) {
      return static_cast<std::size_t>(positions * kColours);
    };
    const cudaError_t error = cudaMemcpy2DAsync(
        copied.data(), bytes(to.width), pixels_ + (to.top * width_ + to.left) * kColours,
        bytes(width_), bytes(to.width), static_cast<std::size_t>(to.height), cudaMemcpyHostToDevice,
        stream);
    if (error != cudaSuccess) return check(error, "copying to the device");
    return launch_for(grey_level_kernel, size, GreyLevelParams{copied.data(), to}, stream);
  }

 private:
  const std::uint8_t* const pixels_;
  const std::int64_t width_;
};

class PixelSink final : public WindowSink {
 public:
  PixelSink(const Box& box, std::uint8_t* pixels) : box_(box), pixels_(pixels) {}

  Status take(const Box& window, const std::vector<PlaneView>& outputs,
              cudaStream_t stream) override {
    const std::int64_t size = std::int64_t{window.height} * window.width * kColours;
    DeviceArray<std::uint8_t> made;
    if (Status status = made.allocate(static_cast<std::size_t>(size), stream); !status.ok()) {
      return status;
    }
    PixelParams params = {outputs[0],    {},           window.top, window.left,
                          window.height, window.width, made.data()};
    if (outputs.size() > 1) params.b = outputs[1];
    if (Status status = launch_for(pixel_kernel, size, params, stream); !status.ok()) {
      return status;
    }
    const auto bytes = [](std::int64_t positions) {
      return static_cast<std::size_t>(positions * kColours);
    };
    const std::int64_t first =
        std::int64_t{window.top - box_.top} * box_.width + (window.left - box_.left);
    const cudaError_t error =
        cudaMemcpy2DAsync(pixels_ + first * kColours, bytes(box_.width), made.data(),
                          bytes(window.width), bytes(window.width),
                          static_cast<std::size_t>(window.height), cudaMemcpyDeviceToHost, stream);
    if (error != cudaSuccess) return check(error, "copying from the device");
    return wait(stream);
  }

 private:
  const Box box_;
  std::uint8_t* const pixels_;
};

}  // namespace

Status Autoencoder::create(Host host, Network analysis, std::vector<Network> latents,
                           Network synthesis, std::shared_ptr<const Autoencoder>* autoencoder) {
  auto loaded = std::make_shared<Autoencoder>();
  loaded->host_ = std::move(host);
  loaded->analysis = std::move(analysis);
  loaded->latents = std::move(latents);
  loaded->synthesis = std::move(synthesis);
  if (Status status = loaded->load(); !status.ok()) return status;
  *autoencoder = std::move(loaded);
  return {};
}

Status Autoencoder::load() {
  std::vector<std::int16_t> codebooks;
  std::vector<DeviceMap> maps;
  std::vector<std::size_t> places;
  for (const vqcodec::Autoencoder::Map& map : host_->maps) {
    if (maps.empty() || map.stride != host_->maps[maps.size() - 1].stride) {
      first_.push_back(maps.size());
    }
    places.push_back(codebooks.size());
    codebooks.insert(codebooks.end(), map.codebook.begin(), map.codebook.end());
    maps.push_back({nullptr, map.channels, map.first_channel, map.refines});
  }
  const cudaStream_t stream = nullptr;
  if (Status status = codebooks_.upload(codebooks, stream); !status.ok()) return status;
  for (std::size_t i = 0; i < maps.size(); ++i) maps[i].codebook = codebooks_.data() + places[i];
  return maps_.upload(maps, stream);
}

Status autoencoder_pixels(const Autoencoder& autoencoder, const ImageSize& size,
                          const CodeMaps& maps, const Box& box, const PassLimits& limits,
                          cudaStream_t stream, std::uint8_t* pixels) {
  VectorSource source(autoencoder, maps);
  PixelSink sink(box, pixels);
  return run_windows(*autoencoder.synthesis, size, box, &source, &sink, limits, stream);
}

Status autoencoder_features(const Autoencoder& autoencoder, const ImageSize& size,
                            const std::uint8_t* pixels, const PassLimits& limits,
                            cudaStream_t stream, const std::vector<std::int16_t*>& features) {
  PixelSource source(pixels, size.width);
  PlaneWindows sink(*autoencoder.analysis, size, features);
  return run_windows(*autoencoder.analysis, size, {0, 0, size.height, size.width}, &source, &sink,
                     limits, stream);
}

Status autoencoder_latents(const Autoencoder& autoencoder, int stride, const ImageSize& size,
                           const std::int16_t* features, const CodeMaps& maps,
                           const PassLimits& limits, cudaStream_t stream, std::int16_t* latents) {
  const IntegerNetwork& network = *autoencoder.latents[static_cast<std::size_t>(stride)];
  VectorSource vectors(autoencoder, maps);
  LatentSource source({const_cast<std::int16_t*>(features), size.width / network.planes[0].stride},
                      &vectors);
  const std::vector<std::int16_t*> outputs = {latents};
  PlaneWindows sink(network, size, outputs);
  return run_windows(network, size, {0, 0, size.height, size.width}, &source, &sink, limits,
                     stream);
}

}  // namespace vqcodec::cuda
