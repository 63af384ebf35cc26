// Integer networks: what the loader refuses, and that a pass depends on nothing but its inputs.

#include "network/integer_network.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"
#include "network/plane_rows.h"
#include "random_values.h"

namespace vqcodec {

using testing::random_values;
using testing::variants;

namespace {

// A convolution and the memory behind it.
struct SmallKernel {
  std::vector<std::int8_t> weight;
  std::vector<std::int32_t> bias;
  std::vector<std::uint8_t> shift;
  KernelTensors tensors;

  SmallKernel(int phases, int outputs, int inputs, const std::vector<Offset>& taps)
      : weight(random_values<std::int8_t>(phases * outputs * taps.size() * inputs, -127, 127)),
        bias(random_values<std::int32_t>(phases * outputs, -9999, 9999)),
        shift(random_values<std::uint8_t>(phases * outputs, 8, 12)) {
    tensors = {weight.data(), bias.data(), shift.data(),
               phases,        outputs,     static_cast<std::int64_t>(taps.size()),
               inputs,        {}};
    for (int p = 0; p < phases; ++p) {
      tensors.offsets.insert(tensors.offsets.end(), taps.begin(), taps.end());
    }
  }
};

std::vector<Offset> window() {
  std::vector<Offset> taps;
  for (int row = -1; row <= 1; ++row) {
    for (int column = -1; column <= 1; ++column) taps.push_back({row, column});
  }
  return taps;
}

bool never() { return false; }

// 10 channels of stride 4: two residual blocks and an upscale by 4.
struct SmallDecoder {
  SmallKernel first{1, 5, 10, window()}, second{1, 10, 5, {{0, 0}}}, wide{1, 10, 5, window()};
  SmallKernel up{16, 3, 10, window()};
  NetworkTensors tensors;

  SmallDecoder() {
    tensors.inputs = {{10, 4}};
    const auto residual = [&](std::int64_t source, const SmallKernel& last) {
      LayerTensors layer;
      layer.kind = LayerKind::residual;
      layer.sources = {source};
      layer.first = first.tensors;
      layer.second = last.tensors;
      return layer;
    };
    LayerTensors upscale;
    upscale.kind = LayerKind::convolution;
    upscale.sources = {2};
    upscale.first = up.tensors;
    upscale.upscale = 4;
    tensors.layers = {residual(0, second), residual(1, wide), upscale};
    tensors.outputs = {3};
  }
};

std::shared_ptr<const IntegerNetwork> load(const NetworkTensors& tensors) {
  std::shared_ptr<const IntegerNetwork> network;
  const Status status = IntegerNetwork::create(tensors, &network);
  CHECK(status.ok() == (network != nullptr));
  CHECK(status.ok() || status.message().rfind("integer network: ", 0) == 0);
  return network;
}

class NoRows final : public RowSource {
  void read(int, int, std::int16_t*, std::ptrdiff_t) const override {}
};

class Discard final : public RowSink {
  void write(const int*, int, int, const std::int16_t* const*, const std::ptrdiff_t*) override {}
};

}  // namespace

TEST(integer_network_gives_the_same_on_any_number_of_threads) {
  const SmallDecoder decoder;
  const auto network = load(decoder.tensors);
  const int height = 19, width = 67, threads = get_num_threads();
  const auto plane = random_values<std::int16_t>(height * width * 10, -32768, 32767);
  const std::vector<InputPlane> inputs = {{plane.data(), height, width, 10}};
  ImageSize size;
  CHECK(image_size(*network, inputs, &size).ok());
  CHECK_EQ(size.height, 4 * height);
  std::vector<std::int16_t> expected;
  for (Variant variant : variants()) {
    for (int number : {1, 2, 3, 8}) {
      CHECK(set_num_threads(number).ok());
      std::vector<std::int16_t> found(16 * height * width * 3);
      CHECK(run_network(*network, variant, size, inputs, {found.data()}, never));
      if (expected.empty()) expected = found;
      CHECK(found == expected);
    }
  }
  CHECK(!run_network(*network, Variant::scalar, size, inputs, {expected.data()},
                     [] { return true; }));
  CHECK(set_num_threads(threads).ok());
}

TEST(integer_network_keeps_some_rows_only) {
  const SmallDecoder decoder;
  const auto network = load(decoder.tensors);
  const NoRows source;
  Discard sink;
  const auto bytes = [&](int height, int width) {
    return RowPass(*network, Variant::scalar, height, width, source, sink).feature_bytes();
  };
  CHECK_EQ(bytes(4000, 64), bytes(400000, 64));
  CHECK(bytes(400000, 64) < 64 * 1024);
  CHECK(bytes(4, 400000) < std::size_t{30} << 20);
}

TEST(integer_network_loader_refuses) {
  SmallDecoder decoder;
  CHECK(load(decoder.tensors) != nullptr);
  const auto refused = [&](auto change) {
    NetworkTensors tensors = decoder.tensors;
    change(tensors);
    return load(tensors) == nullptr;
  };
  constexpr std::int64_t large = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t wrong : {std::int64_t{-1}, std::int64_t{0}, large}) {
    CHECK(refused([&](NetworkTensors& t) { t.inputs[0].channels = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.inputs[0].stride = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.layers[2].upscale = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.layers[2].stride = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.layers[0].first.outputs = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.layers[0].first.taps = wrong; }));
    CHECK(refused([&](NetworkTensors& t) { t.layers[0].second.phases = wrong; }));
  }
  CHECK(refused([](NetworkTensors& t) { t.layers[1].sources = {2}; }));
  CHECK(refused([](NetworkTensors& t) { t.layers[1].sources = {}; }));
  CHECK(refused([](NetworkTensors& t) { t.outputs = {4}; }));
  CHECK(refused([](NetworkTensors& t) { t.outputs = {}; }));
  CHECK(refused([](NetworkTensors& t) { t.layers[0].first.offsets[0].column = 65; }));
  CHECK(refused([](NetworkTensors& t) { t.layers[0].first.offsets.pop_back(); }));
  decoder.first.bias[2] = std::numeric_limits<std::int32_t>::min();
  CHECK(load(decoder.tensors) == nullptr);
  decoder.first.bias[2] = 0;
  decoder.first.shift[0] = 31;
  CHECK(load(decoder.tensors) == nullptr);
}

}  // namespace vqcodec
