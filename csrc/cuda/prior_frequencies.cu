// prior_frequencies on a GPU: where each code of a known map lies in its frequency table.
//
// All codes are known, so every stage of the pass runs at all steps before the next stage begins:
// one launch per stage, blocks side by side at different steps. Rings have a slot for every step.
#include "cuda/prior_frequencies.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cuda/memory.h"
#include "cuda/prior_layers.cuh"
#include "cuda/prior_pass.h"

namespace vqcodec::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksPerProcessor = 2;

// ---------------------------------------------------------------- on the device

struct FrequenciesParams {
  const DevicePass* pass;
  std::int32_t stage;
  BlockMemory memory;
  std::int64_t* start;  // in coding order
  std::int64_t* frequency;
};

// The intervals of the codes of a step, some positions at a time. By all threads.
__device__ void code_intervals(const PassRunner& layers, const Stage& stage, const StageStep& step,
                               const FrequenciesParams& params) {
  const DevicePass& pass = layers.pass;
  for (int first = 0; first < step.count; first += pass.logit_rows) {
    const int count = min(pass.logit_rows, step.count - first);
    layers.convolve<false>(stage, step, {first, first + count}, all_warps());
    __syncthreads();
    layers.make_frequencies(count, SamplingRule(), all_warps());
    __syncthreads();
    const int row = static_cast<int>(threadIdx.x);
    if (row < count) {
      const RunningSums table = layers.table(row);
      const std::int32_t code = pass.tile[0].codes[layers.cell(step, first + row)];
      const std::uint32_t start = table.cumulative(code);
      const std::int32_t position = layers.order(step, first + row);
      params.start[position] = start;
      params.frequency[position] = table.cumulative(code + 1) - start;
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads, 2) frequencies_kernel(FrequenciesParams params) {
  const DevicePass& pass = *params.pass;
  const BlockMemory& memory = params.memory;
  const PassRunner layers = {pass, memory};
  const Stage& stage = pass.stages[params.stage];
  StageStep* const step = memory[pass.steps];
  copy_to(reinterpret_cast<unsigned char*>(memory[pass.tables]),
          reinterpret_cast<const unsigned char*>(pass.network_tables), sizeof(PriorTables));
  const int steps = pass.wavefront.steps();
  for (int t = static_cast<int>(blockIdx.x); t < steps; t += static_cast<int>(gridDim.x)) {
    if (threadIdx.x < kWarp) layers.prepare(stage, t, kWarps, step);
    __syncthreads();
    if (stage.action == Action::logits) {
      code_intervals(layers, stage, *step, params);
    } else if (params.stage < pass.num_ahead) {
      layers.run_condition(stage, *step, all_warps());
    } else {
      layers.run_layer(stage, *step, all_warps());
    }
    __syncthreads();
  }
}

// ---------------------------------------------------------------- on the host

// The maps of a tile in device memory.
struct DeviceMaps {
  DeviceArray<std::int32_t> own;
  std::vector<DeviceArray<std::int32_t>> coarser;

  Status upload(const PriorTile& tile, std::size_t num_coarser, cudaStream_t stream) {
    coarser.resize(num_coarser);
    for (std::size_t j = 0; j < num_coarser; ++j) {
      const CodeMap& map = tile.coarser[j];
      Status status = coarser[j].upload(map.codes, static_cast<std::size_t>(map.size()), stream);
      if (!status.ok()) return status;
    }
    return own.upload(tile.own.codes, static_cast<std::size_t>(tile.own.size()), stream);
  }

  void add_to(PriorPass* pass, const PriorTile& tile) {
    std::vector<const std::int32_t*> addresses;
    for (std::size_t j = 0; j < coarser.size(); ++j) {
      addresses.push_back(coarser[j].data());
      pass->set_coarser_width(static_cast<int>(j), tile.coarser[j].width);
    }
    pass->add_tile(tile.class_id, tile.level, own.data(), std::move(addresses));
  }
};

}  // namespace

Status prior_frequencies(const PriorNetwork& network, const PriorTile& tile, cudaStream_t stream,
                         std::int64_t* start, std::int64_t* frequency) {
  const vqcodec::PriorNetwork& host = network.host();
  if (Status status = check_known_tile(host, tile); !status.ok()) return status;
  DeviceLimits limits;
  if (Status status = limits.query(); !status.ok()) return status;

  constexpr int reserved = 1024;  // of every block, by CUDA
  MemoryPlan memory(limits.shared_per_block / kBlocksPerProcessor - reserved);
  PriorPass pass(network, tile.own.height, tile.own.width, 1, Schedule::whole_map, kWarps, &memory);
  if (!pass.status().ok()) return pass.status();
  DeviceMaps maps;
  if (Status status = maps.upload(tile, host.coarser.size(), stream); !status.ok()) return status;
  maps.add_to(&pass, tile);

  FrequenciesParams params = {};
  std::vector<DevicePass> device_pass(1);
  DeviceImage image;
  pass.add_to(&image, &device_pass[0]);
  image.add(device_pass, &params.pass);
  if (Status status = image.upload(stream); !status.ok()) return status;

  const int steps = device_pass[0].wavefront.steps();
  const int blocks = std::min(steps, limits.processors * kBlocksPerProcessor);
  DeviceArray<unsigned char> common, workspace;
  DeviceArray<std::int64_t> starts, frequencies;
  const auto size = static_cast<std::size_t>(tile.own.size());
  params.memory.block_size = memory.used(Area::block);
  Status status =
      common.allocate_zeros(static_cast<std::size_t>(memory.used(Area::common)), stream);
  if (!status.ok()) return status;
  status = workspace.allocate(static_cast<std::size_t>(params.memory.block_size) * blocks, stream);
  if (!status.ok()) return status;
  if (Status more = starts.allocate(size, stream); !more.ok()) return more;
  if (Status more = frequencies.allocate(size, stream); !more.ok()) return more;

  params.memory.common = common.data();
  params.memory.blocks = workspace.data();
  params.start = starts.data();
  params.frequency = frequencies.data();
  for (; params.stage < device_pass[0].num_stages; ++params.stage) {
    const cudaError_t error =
        launch(frequencies_kernel, static_cast<unsigned>(blocks), kThreads,
               static_cast<std::size_t>(memory.used(Area::shared)), stream, params);
    if (error != cudaSuccess) return check(error, "starting a kernel of prior_frequencies");
  }
  if (Status more = starts.download(start); !more.ok()) return more;
  if (Status more = frequencies.download(frequency); !more.ok()) return more;
  return wait(stream);
}

}  // namespace vqcodec::cuda
