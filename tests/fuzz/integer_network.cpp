// Fuzz target: the loading of an integer network, and of an autoencoder made of it, from what a model
// file may hold.
//
// An input lists layers whose numbers may be anything: sources that do not exist, sizes that
// contradict each other, weights whose sums overflow. The network must be refused with a message, or
// be usable: two variants then give the same planes, and one of them the same pixels by way of an
// autoencoder, if the network can be its synthesis.
#include "autoencoder/autoencoder.h"
#include "base/thread_pool.h"
#include "fuzz.h"
#include "network/integer_network.h"
#include "network/plane_rows.h"

namespace vqcodec::fuzz {
namespace {

constexpr std::int64_t kMaxPositions = 1 << 14;  // of all planes times channels: of what is run

// Mostly a small number that makes sense, now and then any.
std::int64_t number(Input& input, int below) {
  const int byte = input.byte();
  if (byte < 248) return byte % below;
  return static_cast<std::int32_t>(input.word());
}

// A kernel and the memory behind it, of the sizes that it says it has.
class Kernel {
 public:
  Kernel(Input& input, std::int64_t phases, std::int64_t inputs) {
    tensors.phases = input.below(16) == 0 ? input.below(5) : phases;
    tensors.outputs = input.below(16) == 0 ? input.below(40) : 1 + input.below(6);
    tensors.taps = input.below(4);
    tensors.inputs = input.below(16) == 0 ? input.below(5) : inputs;
    const std::int64_t outputs = tensors.phases * tensors.outputs;
    std::uint32_t random = input.word() | 1;
    const auto next = [&random] {
      random = random * 1664525u + 1013904223u;
      return static_cast<std::int32_t>(random) >> 8;
    };
    for (std::int64_t i = outputs * tensors.taps * tensors.inputs; i > 0; --i) {
      weight_.push_back(static_cast<std::int8_t>(next()));
    }
    const bool wild = input.below(8) == 0;
    for (std::int64_t i = 0; i < outputs; ++i) {
      bias_.push_back(wild ? static_cast<std::int32_t>(input.word()) : next() / 16);
      shift_.push_back(static_cast<std::uint8_t>(wild ? input.byte() : next() & 15));
    }
    for (std::int64_t i = tensors.phases * tensors.taps; i > 0; --i) {
      const int row = input.below(5) - 2;
      tensors.offsets.push_back({row, static_cast<int>(number(input, 5)) - 2});
    }
    if (input.below(16) == 0 && !tensors.offsets.empty()) tensors.offsets.pop_back();
    tensors.weight = weight_.data();
    tensors.bias = bias_.data();
    tensors.shift = shift_.data();
  }

  KernelTensors tensors;

 private:
  std::vector<std::int8_t> weight_;
  std::vector<std::int32_t> bias_;
  std::vector<std::uint8_t> shift_;
};

// A network as an input describes it.
struct Network {
  explicit Network(Input& input) {
    for (int i = input.below(4); i > 0; --i) {
      const std::int64_t channels = 1 + number(input, 5);
      tensors.inputs.push_back({channels, std::int64_t{1} << input.below(4)});
    }
    std::vector<PlaneShape> shapes = tensors.inputs;  // as they are if nothing lies
    for (int i = input.below(7); i > 0; --i) {
      LayerTensors layer;
      layer.kind = static_cast<LayerKind>(input.below(6));
      layer.activation = static_cast<Activation>(input.below(3));
      const int count = static_cast<int>(shapes.size());
      PlaneShape read = {1, 1};
      const auto source = [&] {
        const std::int64_t plane = number(input, std::max(count, 1));
        if (plane >= 0 && plane < count) read = shapes[static_cast<std::size_t>(plane)];
        return plane;
      };
      layer.sources.push_back(source());
      if (layer.kind == LayerKind::add || layer.kind == LayerKind::subtract) {
        layer.sources.push_back(source());
      }
      if (layer.kind == LayerKind::concatenate) {
        for (int more = input.below(3); more > 0; --more) layer.sources.push_back(source());
      }
      if (layer.kind == LayerKind::unshuffle) layer.factor = 1 + number(input, 3);
      if (layer.kind == LayerKind::convolution) {
        const int shape = input.below(3);
        if (shape == 1) layer.stride = 1 + number(input, 3);
        if (shape == 2) layer.upscale = 1 + number(input, 2);
        const std::int64_t phases = layer.upscale == 2 ? 4 : 1;
        kernels.emplace_back(input, phases, std::min<std::int64_t>(read.channels, 64));
        layer.first = kernels.back().tensors;
      }
      if (layer.kind == LayerKind::residual) {
        kernels.emplace_back(input, 1, std::min<std::int64_t>(read.channels, 64));
        layer.first = kernels.back().tensors;
        kernels.emplace_back(input, 1, layer.first.outputs);
        layer.second = kernels.back().tensors;
      }
      const std::int64_t channels =
          layer.kind == LayerKind::convolution ? layer.first.outputs : read.channels;
      shapes.push_back({channels, read.stride});
      tensors.layers.push_back(layer);
    }
    for (int i = input.below(3); i >= 0; --i) {
      tensors.outputs.push_back(number(input, std::max<int>(static_cast<int>(shapes.size()), 1)));
    }
  }

  NetworkTensors tensors;
  std::deque<Kernel> kernels;
};

bool refused(const Status& status, const char* subject) {
  if (status.ok()) return false;
  REQUIRE(status.code() == StatusCode::invalid_argument);
  REQUIRE(status.message().rfind(subject, 0) == 0 && status.message().size() > 10);
  return true;
}

// Height and width that all strides divide, or 0 where a pass would be too slow.
std::int64_t side_of(const IntegerNetwork& network, int factor) {
  std::int64_t side = factor;
  for (const Plane& plane : network.planes) {
    side = std::lcm(side, std::int64_t{plane.stride});
    if (side > 256) return 0;
  }
  std::int64_t positions = 0;
  for (const Plane& plane : network.planes) {
    positions += side * side / plane.stride / plane.stride * plane.channels;
  }
  return positions <= kMaxPositions ? side : 0;
}

void use(const IntegerNetwork& network, Input& input) {
  const std::int64_t side = side_of(network, 1 + input.below(3));
  if (side == 0) return;
  std::deque<std::vector<std::int16_t>> planes;
  std::vector<InputPlane> inputs;
  for (int i = 0; i < network.num_inputs; ++i) {
    const Plane& plane = network.planes[static_cast<std::size_t>(i)];
    const std::int64_t size = side / plane.stride;
    planes.emplace_back(static_cast<std::size_t>(size * size * plane.channels));
    for (std::int16_t& value : planes.back()) value = static_cast<std::int16_t>(257 * input.byte());
    inputs.push_back({planes.back().data(), size, size, plane.channels});
  }
  ImageSize size;
  REQUIRE(image_size(network, inputs, &size).ok() && size.width == side && size.height == side);
  const Variant other = variants()[static_cast<std::size_t>(input.byte()) % variants().size()];
  std::vector<std::vector<std::int16_t>> expected;
  for (Variant variant : {Variant::scalar, other}) {
    std::vector<std::vector<std::int16_t>> found;
    std::vector<std::int16_t*> outputs;
    for (int output : network.outputs) {
      const Plane& plane = network.planes[static_cast<std::size_t>(output)];
      const std::int64_t width = side / plane.stride;
      found.emplace_back(static_cast<std::size_t>(width * width * plane.channels));
    }
    for (auto& output : found) outputs.push_back(output.data());
    REQUIRE(run_network(network, variant, size, inputs, outputs, never));
    if (expected.empty()) expected = found;
    REQUIRE(found == expected);
  }
}

// An autoencoder whose networks are all this one; mostly refused.
void use_as_autoencoder(const std::shared_ptr<const IntegerNetwork>& network, Input& input) {
  std::deque<std::vector<std::int16_t>> books;
  std::vector<MapTensors> maps;
  for (int i = 1 + input.below(3); i > 0; --i) {
    const int codes = input.below(5), channels = 1 + input.below(4);
    books.emplace_back(static_cast<std::size_t>(codes * channels));
    for (std::int16_t& value : books.back()) value = static_cast<std::int16_t>(257 * input.byte());
    maps.push_back({std::int64_t{1} << input.below(4), input.below(3) == 0,
                    {books.back().data(), codes, channels}});
  }
  const std::vector<Autoencoder::Network> latents(static_cast<std::size_t>(input.below(3)), network);
  std::shared_ptr<const Autoencoder> autoencoder;
  const Status status = Autoencoder::create(maps, network, latents, network, &autoencoder);
  if (refused(status, "autoencoder: ")) return;
  const int side = static_cast<int>(side_of(*network, 1));
  if (side == 0) return;
  std::deque<std::vector<std::int32_t>> codes;
  CodeMaps given;
  for (const Autoencoder::Map& map : autoencoder->maps) {
    const int width = side / map.stride;
    codes.emplace_back(static_cast<std::size_t>(width * width));
    for (std::int32_t& code : codes.back()) code = input.byte() % map.codes;
    given.push_back({codes.back().data(), width, width});
  }
  const ImageSize size = {side, side};
  REQUIRE(check_maps(*autoencoder, size, given).ok());
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(3 * side * side));
  REQUIRE(autoencoder_pixels(*autoencoder, Variant::scalar, size, given, {0, 0, side, side},
                             pixels.data(), never));
}

void run(Input input) {
  static const bool one_thread = set_num_threads(1).ok();
  REQUIRE(one_thread);
  const Network described(input);
  std::shared_ptr<const IntegerNetwork> network;
  const Status status = IntegerNetwork::create(described.tensors, &network);
  REQUIRE(status.ok() == (network != nullptr));
  if (refused(status, "integer network: ")) return;
  use(*network, input);
  use_as_autoencoder(network, input);
}

}  // namespace
}  // namespace vqcodec::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vqcodec::fuzz::run({data, size});
  return 0;
}
