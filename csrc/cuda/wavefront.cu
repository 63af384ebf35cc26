// wavefront_decode and wavefront_sample on a GPU: the maps of pictures, code by code, in one
// launch.
//
// A task is one map of a group of equally shaped pictures, and belongs to one block from its first
// step to its last: between the layers of a step there are only barriers of the block. Blocks
// take tasks from a list in which every task comes after those it waits for. So it does not
// matter how many blocks there are, or in which order they run; with enough of them all maps of a
// picture are at work, each some steps behind the map before it:
//
//     block 0    map 0 ............
//     block 1       map 1 ............
//     block 2          map 2 ............
//
// A step of a task, with a barrier at every line:
//
//     prepare        where the features of this step lie
//     embed_codes    the codes of the step before
//     first, gate, add, ..., logits
//     make_frequencies
//     choose_codes   by some warps; the others carry out the stages that run ahead of the codes
//
// Decoding is serial in every stream, and takes about as long as all the rest of a step; that is
// why the conditioning stack is hidden behind it.
#include "cuda/wavefront.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coding/range_decoder.h"
#include "cuda/memory.h"
#include "cuda/prior_layers.cuh"
#include "cuda/prior_pass.h"

namespace vqcodec::cuda {
namespace {

static_assert(RangeDecoder::total == kFrequencyTotal, "the coder and the tables agree");

constexpr int kThreads = 384;
constexpr int kWarps = kThreads / kWarp;

// ---------------------------------------------------------------- on the device

// Where the codes of one tile come from.
struct TileStream {
  const std::uint32_t* words;  // of a range coder's stream, or below 2^24 for every code
  std::int64_t size;
  std::int32_t* corrupt;  // set to 1 if no encoder can have written the stream
};

// A range decoder between two steps (coding/range_decoder.h).
struct DecoderState {
  std::uint64_t offset;
  std::uint64_t range;
  std::int64_t next;  // word
  std::int32_t corrupt;
};

// A coarser map of the same launch.
struct Waiting {
  const std::int32_t* progress;
  std::int32_t factor;
  Wavefront wavefront;
};

struct Task {
  const TileStream* streams;
  const Waiting* waiting;
  std::int32_t num_waiting;
  std::int32_t* progress;  // steps whose codes are written; null if nobody waits for them
  Array<DecoderState> decoders;
};

struct WavefrontParams {
  const Task* tasks;
  const DevicePass* passes;  // of the tasks
  std::int32_t num_tasks;
  std::int32_t* next_task;
  BlockMemory memory;
  bool decode;  // or sample
  SamplingRule rule;
};

// The decoder of one stream, run by a warp: all lanes hold the same.
class WarpDecoder {
 public:
  __device__ WarpDecoder(const TileStream& stream, const DecoderState& state)
      : stream_(stream), state_(state), ahead_(word(state.next)) {}

  // RangeDecoder's quantile and consume, around the search for the code.
  __device__ std::int32_t decode(const RunningSums& table) {
    const std::uint64_t scale = state_.range >> RangeDecoder::frequency_bits;
    // quantile >= 2^24
    if (state_.offset >= scale << RangeDecoder::frequency_bits) state_.corrupt = 1;
    if (state_.corrupt != 0) return 0;
    const CodeInterval found = find_code(table, scale, state_.offset);
    state_.offset -= scale * found.start;
    state_.range = scale * found.frequency;
    if (state_.range >> 32 == 0) {
      state_.range <<= 32;
      state_.offset = state_.offset << 32 | ahead_;
      ahead_ = word(++state_.next);
    }
    return found.code;
  }

  __device__ const DecoderState& state() const { return state_; }

  __device__ static DecoderState begin(const TileStream& stream) {
    const auto word = [&](int i) { return i < stream.size ? stream.words[i] : 0; };
    return {std::uint64_t{word(0)} << 32 | word(1), ~std::uint64_t{0}, 2, 0};
  }

 private:
  // Zero past the end. Asked for one code before it is needed.
  __device__ std::uint32_t word(std::int64_t i) const {
    return i < stream_.size ? stream_.words[i] : 0;
  }

  const TileStream stream_;
  DecoderState state_;
  std::uint32_t ahead_;
};

// At the beginning of shared memory.
struct BlockState {
  DevicePass pass;
  const Stage* stages;  // of the pass, and what is known of their steps
  StageStep* steps;
  std::int32_t task;        // number
  std::int32_t choosers;    // warps that choose codes while the others run ahead
  std::int32_t at[kWarps];  // the layer that each warp is at: registers are scarce
};

struct TaskRunner {
  const WavefrontParams& params;
  const DevicePass& pass;  // in BlockState
  const PassRunner layers;

  __device__ static Workers all_warps() { return {static_cast<int>(threadIdx.x) / kWarp, kWarps}; }
  __device__ static BlockState& state() { return *shared_memory<BlockState>(); }
  __device__ const Task& task() const { return params.tasks[state().task]; }
  __device__ static const Stage& stage(int s) { return state().stages[s]; }
  __device__ static StageStep& stage_step(int s) { return state().steps[s]; }

  __device__ void run() const {
    begin();
    for (int t = -max(stage(0).lead, 0); t < pass.wavefront.steps();) t = step(t);
    if (!params.decode) return;
    const DecoderState* const decoders = layers.memory[task().decoders];
    for (int tile = threadIdx.x; tile < pass.tiles; tile += blockDim.x) {
      *task().streams[tile].corrupt = decoders[tile].corrupt;
    }
  }

  // Copies what is read often to where it is read fast; clears the rings.
  __device__ void begin() const {
    copy_to(&state().pass, params.passes + state().task, 1);
    __syncthreads();
    const BlockMemory& memory = layers.memory;
    if (threadIdx.x == 0) {
      state().stages = memory[pass.stage];
      state().steps = memory[pass.steps];
      const int wanted = params.decode ? pass.tiles : pass.max_positions;
      state().choosers = pass.num_ahead == 0 ? kWarps : min(wanted, kWarps / 2);
    }
    copy_to(reinterpret_cast<unsigned char*>(memory[pass.tables]),
            reinterpret_cast<const unsigned char*>(pass.network_tables), sizeof(PriorTables));
    copy_to(memory[pass.stage], pass.stages, pass.num_stages);
    for (int s = 0; s < pass.num_stages; ++s) {
      const Stage& stage = pass.stages[s];
      if (stage.weights.exists()) {
        copy_to(memory[stage.weights], stage.conv.weights,
                std::int64_t{stage.conv.row_tiles} * stage.conv.mmas * kWarp);
      }
      if (stage.output.slots != 0) layers.clear(stage.output);
    }
    if (params.decode) {
      for (int tile = threadIdx.x; tile < pass.tiles; tile += blockDim.x) {
        memory[task().decoders][tile] = WarpDecoder::begin(task().streams[tile]);
      }
    }
    __syncthreads();
  }

  // Returns the next step.
  __device__ int step(int t) const {
    const Workers workers = all_warps();
    for (int s = workers.warp; s < pass.num_stages; s += workers.warps) {
      const int idle = s < pass.num_ahead ? state().choosers : 0;
      layers.prepare(stage(s), t + stage(s).lead, workers.warps - idle, &stage_step(s));
    }
    __syncthreads();

    if (now().t >= 0) {
      std::int32_t& s = state().at[workers.warp];
      for (s = pass.num_ahead; s < pass.num_stages;) {
        __syncwarp();
        layers.run_layer(stage(s), stage_step(s), workers);
        __syncthreads();
        if (lane_index() == 0) ++s;
        __syncwarp();
      }
      layers.make_frequencies(now().count, params.rule, workers);
      __syncthreads();
    }

    const int choosers = state().choosers;
    if (workers.warp >= choosers) {
      run_ahead({workers.warp - choosers, workers.warps - choosers});
    } else if (now().t >= 0) {
      choose_codes({workers.warp, choosers});
    }
    const int next = now().t + 1;
    __syncthreads();
    if (next > 0 && threadIdx.x == 0 && task().progress != nullptr) {
      store_release(task().progress, next);
    }
    return next;
  }

  // The step whose codes are chosen.
  __device__ const StageStep& now() const { return stage_step(pass.num_stages - 1); }

  // The stages that do not need this step's codes. None needs what another one makes now: the
  // last comes first, so that the coarser maps are waited for at the end.
  __device__ void run_ahead(const Workers& workers) const {
    for (int s = pass.num_ahead - 1; s >= 0; --s) {
      if (stage(s).action == Action::embed_coarser) wait_for_coarser(stage_step(s));
      layers.run_condition(stage(s), stage_step(s), workers);
    }
  }

  // Waits for the coarser maps' codes at the positions of a step. The steps of their parents,
  //     column / factor + lag' * (row / factor)  <=  (t + (lag' - lag) * row) / factor,
  // are largest at one of the ends of the rows.
  __device__ void wait_for_coarser(const StageStep& step) const {
    for (int j = lane_index(); j < task().num_waiting && step.count > 0; j += kWarp) {
      const Waiting& coarser = task().waiting[j];
      const std::int64_t lag = coarser.wavefront.lag - pass.wavefront.lag;
      const std::int64_t last = step.t + max(lag * step.rows.begin, lag * (step.rows.end - 1));
      const std::int64_t steps =
          min(last / coarser.factor + 1, static_cast<std::int64_t>(coarser.wavefront.steps()));
      while (load_relaxed(coarser.progress) < steps) relax();
      load_acquire(coarser.progress);
    }
    __syncwarp();
  }

  __device__ void choose_codes(const Workers& workers) const {
    if (params.decode) {
      decode(now(), workers);
    } else {
      sample(now(), workers);
    }
  }

  // A warp per stream, position after position.
  __device__ void decode(const StageStep& step, const Workers& workers) const {
    DecoderState* const states = layers.memory[task().decoders];
    for (int tile = workers.warp; tile < pass.tiles; tile += workers.warps) {
      WarpDecoder decoder(task().streams[tile], states[tile]);
      for (int place = 0; place < step.rows.size(); ++place) {
        const int n = tile * step.rows.size() + place;
        write(step, n, decoder.decode(layers.table(n)));
      }
      __syncwarp();
      if (lane_index() == 0) states[tile] = decoder.state();
    }
  }

  // A warp per position.
  __device__ void sample(const StageStep& step, const Workers& workers) const {
    for (int n = workers.warp; n < step.count; n += workers.warps) {
      const std::uint32_t word =
          task().streams[step.positions.tile(n)].words[layers.order(step, n)];
      write(step, n, find_code(layers.table(n), 1, word).code);
    }
  }

  __device__ void write(const StageStep& step, int n, std::int32_t code) const {
    if (lane_index() == 0) pass.tile[step.positions.tile(n)].codes[layers.cell(step, n)] = code;
  }
};

__global__ void __launch_bounds__(kThreads, 2) wavefront_kernel(WavefrontParams params) {
  std::int32_t& number = shared_memory<BlockState>()->task;
  for (;;) {
    if (threadIdx.x == 0) number = atomicAdd(params.next_task, 1);
    __syncthreads();
    if (number >= params.num_tasks) return;
    const DevicePass& pass = shared_memory<BlockState>()->pass;
    TaskRunner{params, pass, {pass, params.memory}}.run();
    __syncthreads();
  }
}

// ---------------------------------------------------------------- on the host

// The words of a stream: big-endian, the last one filled up with zeros.
void append_words(const ByteStream& stream, std::int64_t, std::vector<std::uint32_t>* words) {
  for (std::size_t i = 0; i < stream.size; i += 4) {
    std::uint32_t word = 0;
    for (std::size_t j = i; j < i + 4; ++j) {
      word = word << 8 | (j < stream.size ? stream.data[j] : 0);
    }
    words->push_back(word);
  }
}

void append_words(const WordStream& stream, std::int64_t codes, std::vector<std::uint32_t>* words) {
  words->insert(words->end(), stream.words, stream.words + codes);
}

// A launch: plans the tasks, copies what they need, runs them, and fetches the codes.
template <class Stream>
class WavefrontLoop {
 public:
  using Job = WavefrontJob<Stream>;
  static constexpr bool kDecode = std::is_same_v<Stream, ByteStream>;

  WavefrontLoop(const std::vector<const PriorNetwork*>& networks, const std::vector<Job>& jobs,
                const SamplingRule& rule, cudaStream_t stream)
      : networks_(networks), jobs_(jobs), rule_(rule), stream_(stream) {}

  Status run(WavefrontOutcome* outcome) {
    outcome->interrupted = false;
    outcome->corrupt.assign(jobs_.size(), -1);
    if (networks_.empty() || jobs_.empty()) return {};
    groups_ = group_by_shape(jobs_, networks_.back()->host().lag);
    if (Status status = choose_device_use(); !status.ok()) return status;
    if (Status status = upload_codes(); !status.ok()) return status;
    if (Status status = upload_tasks(); !status.ok()) return status;
    if (Status status = launch_kernel(); !status.ok()) return status;
    return fetch(outcome);
  }

 private:
  // Maps are counted among those that are not known, unless `known` is added.
  std::size_t maps() const { return networks_.size(); }
  std::size_t known(const Job& job) const { return job.maps.size() - maps(); }

  // One block per multiprocessor, with all of its shared memory; two, with half of it each, when
  // there is work for them: then one computes while the other one decodes.
  Status choose_device_use() {
    DeviceLimits limits;
    if (Status status = limits.query(); !status.ok()) return status;
    const std::size_t tasks = groups_.size() * maps();
    const auto processors = static_cast<std::size_t>(limits.processors);
    const bool pairs = tasks > processors;
    constexpr int reserved = 1024;  // of every block, by CUDA
    shared_limit_ = pairs ? (limits.shared_per_block - reserved) / 2 : limits.shared_per_block;
    blocks_ = static_cast<unsigned>(std::min(tasks, processors * (pairs ? 2 : 1)));
    return {};
  }

  // All codes, those that are known filled in, and the streams.
  Status upload_codes() {
    std::vector<std::int32_t> codes;
    std::vector<std::uint32_t> words;
    for (const Job& job : jobs_) {
      for (std::size_t m = 0; m < job.maps.size(); ++m) {
        code_places_.push_back(codes.size());
        const CodeMap& map = job.maps[m];
        if (m < known(job)) {
          codes.insert(codes.end(), map.codes, map.codes + map.size());
        } else {
          codes.resize(codes.size() + map.size());
          word_places_.push_back(words.size());
          append_words(job.streams[m - known(job)], map.size(), &words);
        }
      }
    }
    word_places_.push_back(words.size());
    if (Status status = codes_.upload(codes, stream_); !status.ok()) return status;
    if (Status status = words_.upload(words, stream_); !status.ok()) return status;
    Status status = corrupt_.allocate_zeros(jobs_.size() * maps(), stream_);
    if (!status.ok()) return status;
    // And the number of the next task.
    return progress_.allocate_zeros(groups_.size() * maps() + 1, stream_);
  }

  std::int32_t* codes_of(std::size_t job, std::size_t map) {
    return codes_.data() + code_places_[job * jobs_[job].maps.size() + map];
  }

  // As many groups side by side, map by map, as there are blocks for all their maps.
  Status upload_tasks() {
    const std::size_t size = groups_.size() * maps();
    device_passes_.resize(size);
    streams_.resize(size);
    waiting_.resize(size);
    tasks_.resize(size);
    const std::size_t abreast = std::max<std::size_t>(1, blocks_ / maps());
    std::size_t task = 0;
    for (std::size_t first = 0; first < groups_.size(); first += abreast) {
      const std::size_t last = std::min(first + abreast, groups_.size());
      for (std::size_t map = 0; map < maps(); ++map) {
        for (std::size_t group = first; group < last; ++group) {
          if (Status status = add_task(group, map, task++); !status.ok()) return status;
        }
      }
    }
    image_.add(device_passes_, &params_.passes);
    image_.add(tasks_, &params_.tasks);
    return image_.upload(stream_);
  }

  Status add_task(std::size_t group, std::size_t map, std::size_t number) {
    const Job& first = jobs_[groups_[group].front()];
    const std::size_t before = known(first) + map;  // maps, of all
    const CodeMap& own = first.maps[before];
    const int tiles = static_cast<int>(groups_[group].size());
    MemoryPlan memory(shared_limit_);
    memory.place<BlockState>(Area::shared, 1);  // first
    Task& task = tasks_[number];
    task.decoders = memory.place_hot<DecoderState>(tiles);
    passes_.push_back(std::make_unique<PriorPass>(*networks_[map], own.height, own.width, tiles,
                                                  Schedule::stepwise, kWarps, &memory));
    PriorPass& pass = *passes_.back();
    if (!pass.status().ok()) return pass.status();
    shared_ = std::max(shared_, memory.used(Area::shared));
    params_.memory.block_size = std::max(params_.memory.block_size, memory.used(Area::block));

    for (std::size_t job : groups_[group]) add_tile(job, map, number, &pass);
    for (std::size_t j = 0; j < before; ++j) {
      pass.set_coarser_width(static_cast<int>(j), first.maps[j].width);
    }
    for (std::size_t j = 0; j < map; ++j) {
      const CodeMap& coarser = first.maps[known(first) + j];
      waiting_[number].push_back({progress_of(group, j),
                                  networks_[map]->host().coarser[known(first) + j].factor,
                                  {coarser.height, coarser.width, networks_[j]->host().lag}});
    }
    task.progress = map + 1 < maps() ? progress_of(group, map) : nullptr;
    task.num_waiting = static_cast<std::int32_t>(map);
    pass.add_to(&image_, &device_passes_[number]);
    image_.add(streams_[number], &task.streams);
    image_.add(waiting_[number], &task.waiting);
    return {};
  }

  void add_tile(std::size_t number, std::size_t map, std::size_t task, PriorPass* pass) {
    const Job& job = jobs_[number];
    const std::size_t before = known(job) + map;  // maps, of all
    std::vector<const std::int32_t*> coarser;
    for (std::size_t j = 0; j < before; ++j) coarser.push_back(codes_of(number, j));
    pass->add_tile(job.class_id, job.level, codes_of(number, before), std::move(coarser));
    const std::size_t stream = number * maps() + map;
    streams_[task].push_back(
        {words_.data() + word_places_[stream],
         static_cast<std::int64_t>(word_places_[stream + 1] - word_places_[stream]),
         corrupt_.data() + stream});
  }

  std::int32_t* progress_of(std::size_t group, std::size_t map) {
    return progress_.data() + group * maps() + map;
  }

  Status launch_kernel() {
    DeviceArray<unsigned char> workspace;
    Status status =
        workspace.allocate(static_cast<std::size_t>(params_.memory.block_size) * blocks_, stream_);
    if (!status.ok()) return status;
    params_.num_tasks = static_cast<std::int32_t>(tasks_.size());
    params_.next_task = progress_.data() + tasks_.size();
    params_.memory.blocks = workspace.data();
    params_.decode = kDecode;
    params_.rule = rule_;
    return check(launch(wavefront_kernel, blocks_, kThreads, static_cast<std::size_t>(shared_),
                        stream_, params_),
                 "starting the wavefront kernel");
  }

  Status fetch(WavefrontOutcome* outcome) {
    std::vector<std::int32_t> codes(codes_.size()), corrupt(corrupt_.size());
    if (Status status = codes_.download(codes.data()); !status.ok()) return status;
    if (Status status = corrupt_.download(corrupt.data()); !status.ok()) return status;
    if (Status status = wait(stream_); !status.ok()) return status;
    for (std::size_t job = 0; job < jobs_.size(); ++job) {
      for (std::size_t map = maps(); map-- > 0;) {
        const std::size_t before = known(jobs_[job]) + map;  // maps, of all
        const auto from = codes.begin() + (codes_of(job, before) - codes_.data());
        std::copy_n(from, jobs_[job].maps[before].size(), jobs_[job].outputs[map]);
        if (corrupt[job * maps() + map] != 0) outcome->corrupt[job] = static_cast<int>(before);
      }
    }
    return {};
  }

  const std::vector<const PriorNetwork*>& networks_;
  const std::vector<Job>& jobs_;
  const SamplingRule rule_;
  const cudaStream_t stream_;
  std::vector<JobGroup> groups_;
  std::int64_t shared_limit_ = 0;
  std::int64_t shared_ = 0;
  unsigned blocks_ = 0;

  // Of the device, and where in it the codes of (job, map) and the words of streams begin.
  DeviceArray<std::int32_t> codes_, corrupt_, progress_;
  DeviceArray<std::uint32_t> words_;
  std::vector<std::size_t> code_places_, word_places_;

  // By task.
  std::vector<std::unique_ptr<PriorPass>> passes_;
  std::vector<DevicePass> device_passes_;
  std::vector<std::vector<TileStream>> streams_;
  std::vector<std::vector<Waiting>> waiting_;
  std::vector<Task> tasks_;
  DeviceImage image_;
  WavefrontParams params_ = {};
};

}  // namespace

Status wavefront_decode(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<DecodeJob>& jobs, cudaStream_t stream,
                        WavefrontOutcome* outcome) {
  if (Status status = check_jobs(hosts_of(networks), jobs); !status.ok()) return status;
  return WavefrontLoop<ByteStream>(networks, jobs, {}, stream).run(outcome);
}

Status wavefront_sample(const std::vector<const PriorNetwork*>& networks,
                        const std::vector<SampleJob>& jobs, const SamplingRule& rule,
                        cudaStream_t stream, WavefrontOutcome* outcome) {
  if (Status status = check_rule(rule); !status.ok()) return status;
  if (Status status = check_jobs(hosts_of(networks), jobs); !status.ok()) return status;
  return WavefrontLoop<WordStream>(networks, jobs, rule, stream).run(outcome);
}

}  // namespace vqcodec::cuda
