// The autoencoder in integers: codebooks, and the networks between pixels and latents
// (docs/FORMAT.md, "Autoencoder").
//
//     pixels -> analysis -> features of every stride
//     features of a stride, vectors of all coarser ones -> latent -> what its maps quantise
//     vectors of all strides -> synthesis -> one or two planes that add up to the pixels
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/status.h"
#include "model/table_view.h"
#include "network/integer_network.h"
#include "network/plane_rows.h"
#include "nn/instruction_set.h"

namespace vqcodec {

// A code map as it arrives from a model file. The channels of the maps of one stride lie side
// by side; a map that refines adds to channels of those before it.
struct MapTensors {
  std::int64_t stride = 0;
  std::optional<std::int64_t> refines;  // first channel
  TableView<std::int16_t> codebook;     // codes x channels
};

// Immutable.
class Autoencoder {
 public:
  using Network = std::shared_ptr<const IntegerNetwork>;

  // `latents`: one for every stride, coarse to fine. invalid_argument: networks and maps that do
  // not fit together.
  static Status create(const std::vector<MapTensors>& maps, Network analysis,
                       std::vector<Network> latents, Network synthesis,
                       std::shared_ptr<const Autoencoder>* autoencoder);

  struct Map {
    int stride;
    int codes;
    int channels;
    int first_channel;  // in the vectors of its stride
    bool refines;       // adds to these channels
    std::vector<std::int16_t> codebook;
  };
  std::vector<Map> maps;
  std::vector<PlaneShape> vectors;  // of every stride, coarse to fine
  Network analysis;
  std::vector<Network> latents;
  Network synthesis;
};

// Code maps of an image, coarse to fine: height x width codes each. The last ones may be missing.
using CodeMaps = std::vector<TableView<std::int32_t>>;

// invalid_argument: a map of another size, or a code that its codebook does not have.
Status check_maps(const Autoencoder& autoencoder, const ImageSize& size, const CodeMaps& maps);

// Rows top, ... and columns left, ... of an image.
struct Box {
  int top = 0, left = 0, height = 0, width = 0;
};

// The pixels of a box of an image, 3 bytes each; false if `interrupted` said true. The size passes
// check_size of the synthesis, the maps check_maps, and the box lies within the image.
bool autoencoder_pixels(const Autoencoder& autoencoder, Variant variant, const ImageSize& size,
                        const CodeMaps& maps, const Box& box, std::uint8_t* pixels,
                        const std::function<bool()>& interrupted);

// The features of every stride of an image of height x width x 3 pixels; likewise.
bool autoencoder_features(const Autoencoder& autoencoder, Variant variant, const ImageSize& size,
                          const std::uint8_t* pixels, const std::vector<std::int16_t*>& features,
                          const std::function<bool()>& interrupted);

// What the maps of the `stride`-th stride quantise, from its features and all maps of coarser
// strides; likewise.
bool autoencoder_latents(const Autoencoder& autoencoder, int stride, Variant variant,
                         const ImageSize& size, const std::int16_t* features, const CodeMaps& maps,
                         std::int16_t* latents, const std::function<bool()>& interrupted);

}  // namespace vqcodec
