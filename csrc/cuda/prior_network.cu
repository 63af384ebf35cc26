#include "cuda/prior_network.h"

#include <utility>

#include "nn/fixed_point.h"

namespace vqcodec::cuda {
namespace {

// Which output each row of a packed convolution is; -1: none.
using Rows = std::vector<int>;

Rows plain_rows(int outputs) {
  Rows rows(round_up(outputs, kRowTile), -1);
  for (int i = 0; i < outputs; ++i) rows[i] = i;
  return rows;
}

// A thread gets rows g and g + 8 of a tile: made to be tanh and sigmoid of the same channel.
//     // 48 channels: rows 0-7 are outputs 0-7, rows 8-15 are 48-55, rows 16-23 are 8-15, ...
Rows gate_rows(int channels) {
  Rows rows(2 * round_up(channels, kRowTile / 2), -1);
  for (int c = 0; c < channels; ++c) {
    const int row = c / 8 * 16 + c % 8;
    rows[row] = c;
    rows[row + 8] = channels + c;
  }
  return rows;
}

// Queries, keys and values, head by head, each head padded to `padded` channels.
Rows projection_rows(int hidden, int heads, int padded) {
  const int channels = hidden / heads;
  Rows rows(round_up(std::int64_t{3} * heads * padded, kRowTile), -1);
  for (int head = 0; head < 3 * heads; ++head) {
    for (int c = 0; c < channels; ++c) rows[head * padded + c] = head * channels + c;
  }
  return rows;
}

// Collects convolutions, so that all of them lie in three arrays.
class Packer {
 public:
  void add(const ConvTensors& tensors, const std::vector<Offset>& taps, const Rows& rows,
           Conv* conv) {
    const int pieces = static_cast<int>(round_up(tensors.inputs, kHalf) / kHalf);
    std::vector<Half> conv_halves;
    for (const Offset& tap : taps) {
      for (int piece = 0; piece < pieces; ++piece) conv_halves.push_back({tap, piece});
    }
    const int used = static_cast<int>(conv_halves.size());
    if (used % 2 != 0) conv_halves.push_back(conv_halves.front());

    conv->row_tiles = static_cast<int>(rows.size()) / kRowTile;
    conv->mmas = static_cast<int>(conv_halves.size()) / 2;
    places_.push_back({conv, weights.size(), rounding.size(), halves.size()});
    for (int row : rows) {
      rounding.push_back(row < 0 ? make_int2(0, 0)
                                 : make_int2(tensors.bias[row] + rounding_half(tensors.shift[row]),
                                             tensors.shift[row]));
    }
    for (int tile = 0; tile < conv->row_tiles; ++tile) {
      for (int mma = 0; mma < conv->mmas; ++mma) {
        for (int lane = 0; lane < 32; ++lane) {
          const int* const row = &rows[tile * kRowTile + lane / 4];
          const auto word = [&](int down, int right) {
            const int half = 2 * mma + right;
            if (half >= used) return 0u;
            return four_weights(tensors, row[down], half / pieces,
                                half % pieces * kHalf + lane % 4 * 4);
          };
          weights.push_back(make_uint4(word(0, 0), word(8, 0), word(0, 1), word(8, 1)));
        }
      }
    }
    halves.insert(halves.end(), conv_halves.begin(), conv_halves.end());
  }

  // Makes the convolutions point into copies of the arrays.
  void resolve(const uint4* weights_at, const int2* rounding_at, const Half* halves_at) const {
    for (const Place& place : places_) {
      place.conv->weights = weights_at + place.weights;
      place.conv->rounding = rounding_at + place.rounding;
      place.conv->halves = halves_at + place.halves;
    }
  }

  std::vector<uint4> weights;
  std::vector<int2> rounding;
  std::vector<Half> halves;

 private:
  struct Place {
    Conv* conv;
    std::size_t weights, rounding, halves;
  };

  // The weights of four inputs, the first in the lowest byte.
  static unsigned four_weights(const ConvTensors& tensors, int output, int tap, int input) {
    unsigned word = 0;
    for (int i = 0; i < 4 && output >= 0 && input + i < tensors.inputs; ++i) {
      const std::int8_t weight =
          tensors.weight[(output * tensors.taps + tap) * tensors.inputs + input + i];
      word |= unsigned{static_cast<std::uint8_t>(weight)} << 8 * i;
    }
    return word;
  }

  std::vector<Place> places_;
};

}  // namespace

Status PriorNetwork::create(const PriorTensors& tensors,
                            std::shared_ptr<const PriorNetwork>* network) {
  auto loaded = std::make_shared<PriorNetwork>();
  if (Status status = loaded->load(tensors); !status.ok()) return status;
  *network = std::move(loaded);
  return {};
}

Status PriorNetwork::load(const PriorTensors& tensors) {
  if (Status status = vqcodec::PriorNetwork::create(tensors, &host_); !status.ok()) return status;

  Packer packer;
  const auto add = [&](const ConvTensors& from, const vqcodec::Conv& checked, const Rows& rows,
                       Conv* conv) { packer.add(from, checked.taps(), rows, conv); };
  add(tensors.first, host_->first, plain_rows(host_->hidden), &first);
  add(tensors.logits, host_->logits, plain_rows(host_->codes), &logits);
  if (!host_->coarser.empty()) {
    add(tensors.condition_in, host_->condition_in, plain_rows(host_->hidden), &condition_in);
  }
  condition.resize(host_->condition.size());
  for (std::size_t i = 0; i < condition.size(); ++i) {
    const vqcodec::Block& block = host_->condition[i];
    add(tensors.condition[i].in, block.in, plain_rows(block.in.outputs()), &condition[i].in);
    add(tensors.condition[i].out, block.out, plain_rows(host_->hidden), &condition[i].out);
  }
  layers.resize(host_->layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const vqcodec::Block& block = host_->layers[i];
    const Rows rows = block.attention
                          ? projection_rows(host_->hidden, host_->heads, head_channels())
                          : gate_rows(block.out.inputs());
    add(tensors.layers[i].in, block.in, rows, &layers[i].in);
    add(tensors.layers[i].out, block.out, plain_rows(host_->hidden), &layers[i].out);
  }

  const cudaStream_t stream = nullptr;
  if (Status status = weights_.upload(packer.weights, stream); !status.ok()) return status;
  if (Status status = rounding_.upload(packer.rounding, stream); !status.ok()) return status;
  if (Status status = halves_.upload(packer.halves, stream); !status.ok()) return status;
  if (Status status = tables.upload(&host_->tables, 1, stream); !status.ok()) return status;
  if (Status status = embedding.upload(host_->embedding, stream); !status.ok()) return status;
  for (const vqcodec::PriorNetwork::Coarser& map : host_->coarser) {
    coarser.emplace_back();
    if (Status status = coarser.back().upload(map.table, stream); !status.ok()) return status;
  }
  packer.resolve(weights_.data(), rounding_.data(), halves_.data());
  return wait(stream);
}

}  // namespace vqcodec::cuda
