#include "prior/prior_network.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "coding/frequency_table.h"
#include "model/checks.h"

namespace vqcodec {
namespace {

constexpr int kMaxKernel = 15;
constexpr int kMaxFactor = 256;
constexpr int kLargestInput = 128;  // of int8, without its sign

// Offsets that a raster-masked convolution sees, in raster order.
std::vector<Offset> causal_taps(int kernel, bool center) {
  std::vector<Offset> taps;
  const int half = kernel / 2;
  for (int row = -half; row < 0; ++row) {
    for (int column = -half; column <= half; ++column) taps.push_back({row, column});
  }
  for (int column = -half; column < 0; ++column) taps.push_back({0, column});
  if (center) taps.push_back({0, 0});
  return taps;
}

std::vector<Offset> window_taps() {
  std::vector<Offset> taps;
  for (int row = -1; row <= 1; ++row) {
    for (int column = -1; column <= 1; ++column) taps.push_back({row, column});
  }
  return taps;
}

std::vector<Offset> point() { return {{0, 0}}; }

// Checks and packs one prior.
class Loader {
 public:
  explicit Loader(const PriorTensors& tensors) : tensors_(tensors) {}

  Status load(PriorNetwork* network) {
    load_tables(network);
    if (checks_.ok()) load_inputs(network);
    if (checks_.ok()) load_condition(network);
    if (checks_.ok()) load_layers(network);
    return checks_.status();
  }

 private:
  void load_tables(PriorNetwork* network) {
    const auto sized = [&](const char* name, std::int64_t rows, std::int64_t columns,
                           std::int64_t size) {
      checks_.require_equal(name, rows * columns, size);
    };
    sized("size of table tanh", tensors_.tanh.rows, tensors_.tanh.columns, 256);
    sized("size of table sigmoid", tensors_.sigmoid.rows, tensors_.sigmoid.columns, 256);
    sized("size of table exp", tensors_.exp.rows, tensors_.exp.columns, kExpSize);
    if (!checks_.ok()) return;
    PriorTables& tables = network->tables;
    std::copy_n(tensors_.tanh.data, 256, tables.tanh);
    std::copy_n(tensors_.sigmoid.data, 256, tables.sigmoid);
    std::copy_n(tensors_.exp.data, kExpSize, tables.exp);
    checks_.require(*std::min_element(tables.tanh, tables.tanh + 256) >= -127 &&
                        *std::min_element(tables.sigmoid, tables.sigmoid + 256) >= -127,
                    "tables tanh and sigmoid must stay within -127..127");
    checks_.require(
        tables.exp[0] > 0 && std::is_sorted(tables.exp, tables.exp + kExpSize, std::greater<>()),
        "table exp must start above zero and never increase");
  }

  void load_inputs(PriorNetwork* network) {
    for (int kernel : {tensors_.kernel, tensors_.first_kernel}) {
      checks_.require_range("kernel", kernel, 1, kMaxKernel);
      checks_.require(kernel % 2 == 1, "kernels must be odd");
    }
    checks_.require_range("number of codes", tensors_.embedding.rows, 1, kMaxCodes);
    checks_.require_range("embedding channels", tensors_.embedding.columns, 1, kMaxChannels);
    checks_.require_range("hidden channels", tensors_.first.outputs, 1, kMaxChannels);
    checks_.require_range("number of classes", tensors_.classes.rows, 1, 1 << 24);
    checks_.require_range("number of levels", tensors_.levels.rows, 1, 1 << 24);
    checks_.require_equal("columns of the class table", tensors_.classes.columns,
                          tensors_.first.outputs);
    checks_.require_equal("columns of the level table", tensors_.levels.columns,
                          tensors_.first.outputs);
    if (!checks_.ok()) return;

    network->codes = static_cast<int>(tensors_.embedding.rows);
    network->embedding_channels = static_cast<int>(tensors_.embedding.columns);
    network->hidden = static_cast<int>(tensors_.first.outputs);
    network->reach = std::max(tensors_.kernel, tensors_.first_kernel) / 2;
    network->lag = network->reach + 1;
    network->num_classes = static_cast<int>(tensors_.classes.rows);
    network->num_levels = static_cast<int>(tensors_.levels.rows);
    network->embedding = copied(tensors_.embedding);
    network->classes = copied(tensors_.classes);
    network->levels = copied(tensors_.levels);
    network->first = conv("first", tensors_.first, network->embedding_channels, network->hidden,
                          causal_taps(tensors_.first_kernel, false));
  }

  void load_condition(PriorNetwork* network) {
    if (!checks_.require_equal("number of factors",
                               static_cast<std::int64_t>(tensors_.factors.size()),
                               static_cast<std::int64_t>(tensors_.coarser.size()))) {
      return;
    }
    for (std::size_t j = 0; j < tensors_.coarser.size(); ++j) {
      const TableView<std::int8_t>& table = tensors_.coarser[j];
      const int factor = tensors_.factors[j];
      checks_.require_range("factor", factor, 1, kMaxFactor);
      checks_.require_range("number of codes of a coarser map", table.rows, 1, kMaxCodes);
      checks_.require_range("columns of a coarser map's table", table.columns, 1,
                            kMaxChannels * kMaxFactor * kMaxFactor);
      if (!checks_.ok()) return;
      checks_.require_equal("remainder of a coarser map's columns by its squared factor",
                            table.columns % (factor * factor), 0);
      const std::int64_t channels = table.columns / (factor * factor);
      if (!checks_.require_range("conditioning channels", network->condition_channels + channels, 1,
                                 kMaxChannels)) {
        return;
      }
      network->condition_channels += static_cast<int>(channels);
      network->coarser.push_back(
          {factor, static_cast<int>(table.rows), static_cast<int>(channels), copied(table)});
    }
    if (network->coarser.empty()) {
      checks_.require(tensors_.condition.empty(), "conditioning needs a coarser map");
      return;
    }
    network->condition_in = conv("condition.in", tensors_.condition_in, network->condition_channels,
                                 network->hidden, window_taps());
    for (const BlockTensors& block : tensors_.condition) {
      checks_.require(!block.attention, "conditioning has no attention");
      Block loaded;
      loaded.in =
          conv("condition.conv", block.in, network->hidden, block.in.outputs, window_taps());
      loaded.out = conv("condition.out", block.out, block.in.outputs, network->hidden, point());
      network->condition.push_back(std::move(loaded));
    }
  }

  void load_layers(PriorNetwork* network) {
    network->heads = tensors_.heads;
    int gates = 0;
    for (const BlockTensors& block : tensors_.layers) {
      Block loaded;
      loaded.attention = block.attention;
      if (block.attention) {
        checks_.require(tensors_.heads > 0 && network->hidden % std::max(tensors_.heads, 1) == 0,
                        "hidden channels must be a multiple of heads");
        loaded.in = conv("attention.qkv", block.in, network->hidden, 3 * network->hidden, point());
        loaded.out = conv("attention.out", block.out, network->hidden, network->hidden, point());
      } else {
        checks_.require_equal("remainder of a gate's outputs by 2", block.in.outputs % 2, 0);
        const int kernel = gates++ < tensors_.num_blocks ? tensors_.kernel : 1;
        loaded.in =
            conv("gate", block.in, network->hidden, block.in.outputs, causal_taps(kernel, true));
        loaded.out = conv("out", block.out, block.in.outputs / 2, network->hidden, point());
      }
      network->layers.push_back(std::move(loaded));
    }
    network->logits = conv("logits", tensors_.logits, network->hidden, network->codes, point());
  }

  Conv conv(const std::string& name, const ConvTensors& tensors, std::int64_t inputs,
            std::int64_t outputs, std::vector<Offset> taps) {
    const auto num_taps = static_cast<std::int64_t>(taps.size());
    if (!checks_.require_convolution(name, tensors, inputs, outputs, num_taps, kLargestInput)) {
      return {};
    }
    return Conv(tensors, std::move(taps));
  }

  template <class T>
  static std::vector<T> copied(const TableView<T>& table) {
    return std::vector<T>(table.data, table.data + table.rows * table.columns);
  }

  const PriorTensors& tensors_;
  Checks checks_{"prior"};
};

}  // namespace

Status PriorNetwork::create(const PriorTensors& tensors,
                            std::shared_ptr<const PriorNetwork>* network) {
  auto loaded = std::make_shared<PriorNetwork>();
  if (Status status = Loader(tensors).load(loaded.get()); !status.ok()) return status;
  *network = std::move(loaded);
  return {};
}

}  // namespace vqcodec
