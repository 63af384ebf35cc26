// Fuzz target: the loading of an integer network, and of an autoencoder made of it, from what a
// model file may hold.
//
// An input lists layers whose numbers may be anything: sources that do not exist, sizes that
// contradict each other, weights whose sums overflow. The network must be refused with a message,
// or be usable: two variants then give the same planes, and one of them the same pixels by way of
// an autoencoder, if the network can be its synthesis.
#include "network/integer_network.h"
#include "autoencoder/autoencoder.h"
#include "base/thread_pool.h"
#include "fuzz.h"
#include "network/plane_rows.h"

namespace vqcodec::fuzz {
namespace {

constexpr std::int64_t kMaxInputs = 64;          // of a kernel
constexpr std::int64_t kMaxPositions = 1 << 14;  // of all planes times channels: of what is run

// A small number that makes sense; from a wild input now and then any.
std::int64_t number(Input& input, bool wild, int below) {
  const int byte = input.byte();
  if (!wild || byte < 240) return byte % below;
  return static_cast<std::int32_t>(input.word());
}

// A kernel and the memory behind it, of the sizes that it says it has.
class Kernel {
 public:
  Kernel(Input& input, bool wild, std::int64_t phases, std::int64_t inputs, std::int64_t outputs) {
    const auto lies = [&] { return wild && input.below(16) == 0; };
    tensors.phases = lies() ? input.below(5) : phases;
    tensors.outputs = lies() ? input.below(40) : outputs;
    tensors.taps = lies() ? 0 : 1 + input.below(4);
    tensors.inputs = lies() ? input.below(5) : inputs;
    const std::int64_t sums = tensors.phases * tensors.outputs;
    std::uint32_t random = input.word() | 1;
    const auto next = [&random] {
      random = random * 1664525u + 1013904223u;
      return static_cast<std::int32_t>(random) >> 8;
    };
    for (std::int64_t i = sums * tensors.taps * tensors.inputs; i > 0; --i) {
      weight_.push_back(static_cast<std::int8_t>(next()));
    }
    const bool extreme = lies();
    for (std::int64_t i = 0; i < sums; ++i) {
      bias_.push_back(extreme ? static_cast<std::int32_t>(input.word()) : next() / 16);
      shift_.push_back(static_cast<std::uint8_t>(extreme ? input.byte() : next() & 15));
    }
    for (std::int64_t i = tensors.phases * tensors.taps; i > 0; --i) {
      const int row = input.below(5) - 2;
      tensors.offsets.push_back({row, static_cast<int>(number(input, wild, 5)) - 2});
    }
    if (lies() && !tensors.offsets.empty()) tensors.offsets.pop_back();
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
  explicit Network(Input& input) : wild(input.below(3) == 0) {
    for (int i = wild ? input.below(4) : 1 + input.below(3); i > 0; --i) {
      const std::int64_t channels = 1 + number(input, wild, 5);
      tensors.inputs.push_back({channels, std::int64_t{1} << input.below(4)});
    }
    shapes = tensors.inputs;
    for (int i = input.below(7); i > 0; --i) add_layer(input);
    for (int i = input.below(3); i >= 0; --i) tensors.outputs.push_back(plane(input));
  }

  std::int64_t plane(Input& input) {
    return number(input, wild, std::max(static_cast<int>(shapes.size()), 1));
  }

  // Whether a plane is larger than the kernels here, or may be than those of a network.
  bool large() const {
    return std::any_of(shapes.begin(), shapes.end(), [](const PlaneShape& plane) {
      return plane.channels > kMaxInputs || plane.stride > 1000;
    });
  }

  PlaneShape shape(std::int64_t plane) const {
    const bool known = plane >= 0 && plane < static_cast<std::int64_t>(shapes.size());
    return known ? shapes[static_cast<std::size_t>(plane)] : PlaneShape{1, 1};
  }

  void add_layer(Input& input) {
    LayerTensors layer;
    layer.kind = static_cast<LayerKind>(input.below(6));
    layer.activation = static_cast<Activation>(input.below(3));
    layer.sources = {plane(input)};
    PlaneShape made = shape(layer.sources[0]);
    const auto add_source = [&](bool same_channels) {
      const std::int64_t other = plane(input);
      const PlaneShape found = shape(other);
      const bool fits =
          found.stride == made.stride && (!same_channels || found.channels == made.channels);
      layer.sources.push_back(fits || wild ? other : layer.sources[0]);
      return shape(layer.sources.back()).channels;
    };
    const auto kernel = [&](std::int64_t phases, std::int64_t inputs, std::int64_t outputs) {
      kernels.emplace_back(input, wild, phases, std::min<std::int64_t>(inputs, kMaxInputs),
                           std::min<std::int64_t>(outputs, kMaxInputs));
      return kernels.back().tensors;
    };
    switch (layer.kind) {
      case LayerKind::unshuffle:
        layer.factor = 1 + number(input, wild, 2);
        if (layer.factor < 1 || layer.factor > 1 << 10) break;
        made = {made.channels * layer.factor * layer.factor, made.stride * layer.factor};
        break;
      case LayerKind::convolution: {
        const int kind = input.below(3);
        if (kind == 1) layer.stride = 1 + number(input, wild, 3);
        if (kind == 2 && (made.stride % 2 == 0 || wild)) layer.upscale = 2;
        if (wild && input.below(16) == 0) layer.upscale = number(input, wild, 4);
        layer.first = kernel(layer.upscale == 2 ? 4 : 1, made.channels, 1 + input.below(20));
        made.channels = layer.first.outputs;
        if (layer.stride >= 1 && layer.upscale >= 1) {
          made.stride = made.stride * layer.stride / layer.upscale;
        }
        break;
      }
      case LayerKind::residual:
        layer.first = kernel(1, made.channels, 1 + input.below(20));
        layer.second = kernel(1, layer.first.outputs, made.channels);
        if (layer.second.taps > 0 &&
            input.below(2) == 0) {  // the usual second convolution sees one position
          layer.second.taps = 1;
          layer.second.offsets = {{0, 0}};
        }
        break;
      case LayerKind::concatenate:
        for (int more = input.below(3); more > 0; --more) made.channels += add_source(false);
        break;
      case LayerKind::add:
      case LayerKind::subtract: add_source(true); break;
    }
    tensors.layers.push_back(layer);
    // Wild numbers grow no further.
    constexpr std::int64_t most = 1 << 20;
    shapes.push_back({std::clamp(made.channels, std::int64_t{1}, most),
                      std::clamp(made.stride, std::int64_t{1}, most)});
  }

  const bool wild;                 // whether anything may be wrong
  std::vector<PlaneShape> shapes;  // of all planes, as they are if nothing is
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
    maps.push_back(
        {std::int64_t{1} << input.below(4),
         input.below(3) == 0 ? std::optional<std::int64_t>(input.below(4) - 1) : std::nullopt,
         {books.back().data(), codes, channels}});
  }
  const std::vector<Autoencoder::Network> latents(static_cast<std::size_t>(input.below(3)),
                                                  network);
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
  REQUIRE(status.ok() || described.wild || described.large());
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
