#include "autoencoder/autoencoder.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "base/check.h"
#include "coding/frequency_table.h"
#include "model/checks.h"
#include "network/row_pass.h"
#include "nn/fixed_point.h"

namespace vqcodec {
namespace {

constexpr std::int64_t kMaxMaps = 64;
constexpr int kColours = 3;

// ---------------------------------------------------------------- loading

class Loader {
 public:
  Status load(const std::vector<MapTensors>& maps, Autoencoder* autoencoder) {
    const auto count = static_cast<std::int64_t>(maps.size());
    checks_.require_range("number of maps", count, 1, kMaxMaps);
    for (std::size_t i = 0; i < maps.size() && checks_.ok(); ++i) load_map(maps[i], autoencoder);
    if (checks_.ok()) check_networks(*autoencoder);
    return checks_.status();
  }

 private:
  void load_map(const MapTensors& map, Autoencoder* autoencoder) {
    const std::int64_t codes = map.codebook.rows, channels = map.codebook.columns;
    std::vector<PlaneShape>& vectors = autoencoder->vectors;
    checks_.require_range("stride of a map", map.stride, 1,
                          vectors.empty() ? kMaxSide : vectors.back().stride);
    checks_.require_range("number of codes", codes, 1, kMaxCodes);
    checks_.require_range("channels of a codebook", channels, 1, kMaxChannels);
    if (!checks_.ok()) return;
    std::int64_t first = 0;
    if (vectors.empty() || vectors.back().stride != map.stride) vectors.push_back({0, map.stride});
    if (map.refines) {
      first = *map.refines;
      checks_.require_range("first channel that a map refines", first, 0,
                            vectors.back().channels - channels);
      if (!checks_.ok()) return;
    } else {
      first = vectors.back().channels;
      vectors.back().channels += channels;
    }
    const std::int16_t* const data = map.codebook.data;
    autoencoder->maps.push_back({static_cast<int>(map.stride), static_cast<int>(codes),
                                 static_cast<int>(channels), static_cast<int>(first),
                                 map.refines.has_value(),
                                 std::vector<std::int16_t>(data, data + codes * channels)});
  }

  void check_networks(const Autoencoder& autoencoder) {
    const std::vector<PlaneShape>& vectors = autoencoder.vectors;
    const PlaneShape pixels = {kColours, 1};
    check_inputs("analysis", *autoencoder.analysis, {pixels});
    check_inputs("synthesis", *autoencoder.synthesis, vectors);
    const std::vector<PlaneShape> features = shapes_of_outputs(*autoencoder.analysis);
    checks_.require_equal("number of features", count(features), count(vectors));
    checks_.require_equal("number of latent networks", count(autoencoder.latents), count(vectors));
    checks_.require_range("outputs of the synthesis", count(autoencoder.synthesis->outputs), 1, 2);
    for (const PlaneShape& found : shapes_of_outputs(*autoencoder.synthesis)) {
      require_equal("output of the synthesis", found, pixels);
    }
    for (std::size_t i = 0; i < vectors.size() && checks_.ok(); ++i) {
      checks_.require_equal("stride of features", features[i].stride, vectors[i].stride);
      std::vector<PlaneShape> inputs = {features[i]};
      inputs.insert(inputs.end(), vectors.begin(),
                    vectors.begin() + static_cast<std::ptrdiff_t>(i));
      const std::vector<PlaneShape> found = shapes_of_outputs(*autoencoder.latents[i]);
      check_inputs("latent", *autoencoder.latents[i], inputs);
      checks_.require_equal("outputs of a latent network", count(found), 1);
      require_equal("output of a latent network", found[0], vectors[i]);
    }
  }

  template <class T>
  static std::int64_t count(const std::vector<T>& items) {
    return static_cast<std::int64_t>(items.size());
  }

  static PlaneShape shape(const Plane& plane) { return {plane.channels, plane.stride}; }

  static std::vector<PlaneShape> shapes_of_outputs(const IntegerNetwork& network) {
    std::vector<PlaneShape> shapes;
    for (int output : network.outputs) shapes.push_back(shape(network.planes[output]));
    return shapes;
  }

  void require_equal(const std::string& what, const PlaneShape& found, const PlaneShape& expected) {
    checks_.require_equal("channels of an " + what, found.channels, expected.channels);
    checks_.require_equal("stride of an " + what, found.stride, expected.stride);
  }

  void check_inputs(const std::string& name, const IntegerNetwork& network,
                    const std::vector<PlaneShape>& expected) {
    if (!checks_.require_equal("inputs of network " + name, network.num_inputs, count(expected))) {
      return;
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      require_equal("input of network " + name, shape(network.planes[i]), expected[i]);
    }
  }

  Checks checks_{"autoencoder"};
};

// ---------------------------------------------------------------- rows

// Vectors of the codes of every stride; of maps that are missing, zeros.
void read_vectors(const Autoencoder& autoencoder, const CodeMaps& maps, const PlaneShape& vectors,
                  int row, std::int64_t width, std::int16_t* to, std::ptrdiff_t stride) {
  for (std::size_t i = 0; i < autoencoder.maps.size(); ++i) {
    const Autoencoder::Map& map = autoencoder.maps[i];
    if (map.stride != vectors.stride) continue;
    const std::int32_t* const codes = i < maps.size() ? maps[i].data + row * width : nullptr;
    std::int16_t* position = to + map.first_channel;
    for (std::int64_t x = 0; x < width; ++x, position += stride) {
      if (codes == nullptr) {
        if (!map.refines) std::fill_n(position, map.channels, std::int16_t{0});
        continue;
      }
      const std::int16_t* const vector = &map.codebook[static_cast<std::size_t>(codes[x]) *
                                                       static_cast<std::size_t>(map.channels)];
      if (!map.refines) {
        std::copy_n(vector, map.channels, position);
        continue;
      }
      for (int c = 0; c < map.channels; ++c) {
        position[c] = static_cast<std::int16_t>(saturate16(position[c] + vector[c]));
      }
    }
  }
}

class VectorSource final : public RowSource {
 public:
  VectorSource(const Autoencoder& autoencoder, const CodeMaps& maps, int width)
      : autoencoder_(autoencoder), maps_(maps), width_(width) {}

  void read(int input, int row, std::int16_t* to, std::ptrdiff_t stride) const override {
    const PlaneShape& vectors = autoencoder_.vectors[static_cast<std::size_t>(input)];
    read_vectors(autoencoder_, maps_, vectors, row, width_ / vectors.stride, to, stride);
  }

 private:
  const Autoencoder& autoencoder_;
  const CodeMaps& maps_;
  const int width_;  // of the image
};

// Features of one stride, and the vectors of all coarser ones.
class LatentSource final : public RowSource {
 public:
  LatentSource(const IntegerNetwork& network, const std::int16_t* features,
               const VectorSource& vectors, int width)
      : plane_(network.planes[0]), features_(features), vectors_(vectors), width_(width) {}

  void read(int input, int row, std::int16_t* to, std::ptrdiff_t stride) const override {
    if (input > 0) return vectors_.read(input - 1, row, to, stride);
    const std::int64_t width = width_ / plane_.stride;
    copy_positions(features_ + row * width * plane_.channels, plane_.channels, to, stride, width,
                   plane_.channels);
  }

 private:
  const Plane plane_;
  const std::int16_t* const features_;
  const VectorSource& vectors_;
  const int width_;
};

class PixelSource final : public RowSource {
 public:
  PixelSource(const std::uint8_t* pixels, int width) : pixels_(pixels), width_(width) {}

  void read(int, int row, std::int16_t* to, std::ptrdiff_t stride) const override {
    const std::uint8_t* from = pixels_ + std::ptrdiff_t{row} * width_ * kColours;
    for (int x = 0; x < width_; ++x, from += kColours, to += stride) {
      for (int c = 0; c < kColours; ++c) to[c] = static_cast<std::int16_t>(from[c] - kGreyOffset);
    }
  }

 private:
  const std::uint8_t* const pixels_;
  const int width_;
};

class PixelSink final : public RowSink {
 public:
  PixelSink(Variant variant, const Box& box, std::uint8_t* pixels)
      : kernels_(kernels_of(variant).integer), box_(box), pixels_(pixels) {}

  void write(const int*, int count, int row, const std::int16_t* const* rows,
             const std::ptrdiff_t* strides) override {
    if (row < box_.top || row >= box_.top + box_.height) return;
    std::uint8_t* const to = pixels_ + std::ptrdiff_t{row - box_.top} * box_.width * kColours;
    const std::int16_t* const a = rows[0] + box_.left * strides[0];
    const std::int16_t* const b = count > 1 ? rows[1] + box_.left * strides[1] : nullptr;
    if (strides[0] == kColours && (b == nullptr || strides[1] == kColours)) {
      kernels_.pixels(a, b, std::ptrdiff_t{box_.width} * kColours, to);
      return;
    }
    for (std::ptrdiff_t x = 0; x < box_.width; ++x) {
      kernels_.pixels(a + x * strides[0], b == nullptr ? nullptr : b + x * strides[1], kColours,
                      to + x * kColours);
    }
  }

 private:
  const IntegerKernels& kernels_;
  const Box box_;
  std::uint8_t* const pixels_;
};

}  // namespace

Status Autoencoder::create(const std::vector<MapTensors>& maps, Network analysis,
                           std::vector<Network> latents, Network synthesis,
                           std::shared_ptr<const Autoencoder>* autoencoder) {
  auto loaded = std::make_shared<Autoencoder>();
  loaded->analysis = std::move(analysis);
  loaded->latents = std::move(latents);
  loaded->synthesis = std::move(synthesis);
  if (Status status = Loader().load(maps, loaded.get()); !status.ok()) return status;
  *autoencoder = std::move(loaded);
  return {};
}

Status check_maps(const Autoencoder& autoencoder, const ImageSize& size, const CodeMaps& maps) {
  if (maps.size() > autoencoder.maps.size()) {
    return Status::invalid_argument("expected at most " + std::to_string(autoencoder.maps.size()) +
                                    " maps, got " + std::to_string(maps.size()));
  }
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const Autoencoder::Map& map = autoencoder.maps[i];
    const std::int64_t height = size.height / map.stride, width = size.width / map.stride;
    const std::string name = "map " + std::to_string(i) + ": ";
    if (maps[i].rows != height || maps[i].columns != width) {
      return Status::invalid_argument(
          name + "must be " + std::to_string(height) + " x " + std::to_string(width) +
          " codes, got " + std::to_string(maps[i].rows) + " x " + std::to_string(maps[i].columns));
    }
    const std::int32_t* const codes = maps[i].data;
    for (std::int64_t k = 0; k < height * width; ++k) {
      if (codes[k] >= 0 && codes[k] < map.codes) continue;
      return Status::invalid_argument(name + "codes must be in 0.." +
                                      std::to_string(map.codes - 1) + ", got " +
                                      std::to_string(codes[k]));
    }
  }
  return {};
}

bool autoencoder_pixels(const Autoencoder& autoencoder, Variant variant, const ImageSize& size,
                        const CodeMaps& maps, const Box& box, std::uint8_t* pixels,
                        const std::function<bool()>& interrupted) {
  VQCODEC_ASSERT(check_maps(autoencoder, size, maps).ok());
  VQCODEC_ASSERT(0 <= box.top && 0 <= box.height && box.height <= size.height - box.top);
  VQCODEC_ASSERT(0 <= box.left && 0 <= box.width && box.width <= size.width - box.left);
  const VectorSource source(autoencoder, maps, size.width);
  PixelSink sink(variant, box, pixels);
  return RowPass(*autoencoder.synthesis, variant, size.height, size.width, source, sink)
      .run(interrupted);
}

bool autoencoder_features(const Autoencoder& autoencoder, Variant variant, const ImageSize& size,
                          const std::uint8_t* pixels, const std::vector<std::int16_t*>& features,
                          const std::function<bool()>& interrupted) {
  const PixelSource source(pixels, size.width);
  PlaneSink sink(*autoencoder.analysis, size.width, features);
  return RowPass(*autoencoder.analysis, variant, size.height, size.width, source, sink)
      .run(interrupted);
}

bool autoencoder_latents(const Autoencoder& autoencoder, int stride, Variant variant,
                         const ImageSize& size, const std::int16_t* features, const CodeMaps& maps,
                         std::int16_t* latents, const std::function<bool()>& interrupted) {
  VQCODEC_ASSERT(check_maps(autoencoder, size, maps).ok());
  const IntegerNetwork& network = *autoencoder.latents[static_cast<std::size_t>(stride)];
  const VectorSource vectors(autoencoder, maps, size.width);
  const LatentSource source(network, features, vectors, size.width);
  const std::vector<std::int16_t*> outputs = {latents};
  PlaneSink sink(network, size.width, outputs);
  return RowPass(network, variant, size.height, size.width, source, sink).run(interrupted);
}

}  // namespace vqcodec
