#include "simulator.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"
#include "runtime.h"
#include "shared_memory.h"
#include "warp_operations.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace vqcodec::cuda_simulator {

unsigned char* shared_base;

namespace {

constexpr std::size_t kStackSize = (kAsan ? 256 : 64) * 1024;
constexpr std::size_t kStackGuard = 16 * 1024;  // a multiple of any page size in use

const char* name(Barrier kind) {
  switch (kind) {
    case Barrier::plain: return "__syncthreads";
    case Barrier::any: return "__syncthreads_or";
    case Barrier::all: return "__syncthreads_and";
    case Barrier::count: return "__syncthreads_count";
  }
  return "?";
}

bool same(Location a, Location b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string text(Location at) { return std::string(at.file) + ":" + std::to_string(at.line); }

std::string hex(std::uint32_t value) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "0x%08x", value);
  return digits;
}

template <class T>
std::string text_of_index(const T& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

struct Block;

struct Thread {
  Fiber fiber;
  uint3 index;
  Block* block;
  int warp, lane;
};

struct Warp {
  std::uint32_t runnable;
  std::uint32_t arrived;  // wait in a warp operation
  std::uint32_t at_barrier;
  std::uint32_t gone;  // exited, or never existed
  Arrival arrivals[32];
};

// A block that is resident, or was.
struct Block {
  bool live = false;
  uint3 index{};
  std::uint32_t runnable_warps = 0;
  int warp = 0, lane = 0;  // who ran last
  int num_threads = 0, exited = 0;

  int waiting = 0;  // at the barrier
  Barrier kind{};
  Location at{};
  int predicates = 0, outcome = 0;
  bool relaxed = false;  // since its last barrier

  unsigned char* shared = nullptr;
  SharedMemory memory;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<Thread>> threads;
};

// The launch that runs, and what is kept for the next one.
struct Machine {
  Settings settings;
  Launch launch;
  Fiber host;
  bool host_known = false;
  bool running = false;
  Thread* current = nullptr;
  std::vector<std::unique_ptr<Block>> blocks;
  int live = 0;

  std::uint64_t random_state = 1, seeded = 0;  // seeded: by which configuration
  std::uint64_t switches = 0;
  std::int64_t impatience = 0;
  std::uint32_t points = 0;

  // Blocks of the grid are started in the order first, first + stride, ... modulo their number.
  std::uint64_t num_blocks = 0, started = 0, first = 0, stride = 1;

  std::string report;

  std::uint64_t random() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Dull >> 16;
  }
  bool shuffled() const { return settings.order == Order::random; }

  // In random order a warp goes on, rather than another one, in `stay` of `stay` + 1 cases. It
  // changes at barriers: some stretches interleave the warps finely, in some they run far ahead.
  std::uint32_t stay = 3;
  void change_pace() {
    if (shuffled()) stay = (2u << random() % 10) - 1;
  }
};

Machine& machine() {
  static Machine* instance = new Machine;  // never destroyed: fibers may be in it at exit
  return *instance;
}
Machine& m = machine();

std::mutex& launch_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}
thread_local bool inside_launch = false;

std::mutex& settings_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}
struct Configuration {
  Settings settings = settings_of_environment();
  std::uint64_t generation = 1;  // calls of configure
};
Configuration& configuration() {
  static Configuration* instance = new Configuration;
  return *instance;
}
Settings configured(std::uint64_t* generation) {
  const std::lock_guard<std::mutex> lock(settings_mutex());
  *generation = configuration().generation;
  return configuration().settings;
}

// ---------------------------------------------------------------- who is next

// The first set bit of `mask` (not 0) at or after `start`, cyclic; before it, for `reverse`.
int first_bit(std::uint32_t mask, int start, Order order) {
  const int s = start & 31;
  if (order == Order::reverse) {
    const int turn = 31 - s;
    const std::uint32_t turned = turn == 0 ? mask : mask << turn | mask >> (32 - turn);
    return (s - __builtin_clz(turned)) & 31;
  }
  const std::uint32_t turned = s == 0 ? mask : mask >> s | mask << (32 - s);
  return (s + __builtin_ctz(turned)) & 31;
}

void set_runnable(Block& block, int warp, std::uint32_t lanes) {
  block.warps[warp].runnable |= lanes;
  if (lanes != 0) block.runnable_warps |= 1u << warp;
}

void clear_runnable(Block& block, int warp, std::uint32_t lanes) {
  block.warps[warp].runnable &= ~lanes;
  if (block.warps[warp].runnable == 0) block.runnable_warps &= ~(1u << warp);
}

// A runnable thread of `block`, which has one.
Thread& choose(Block& block, bool leave_warp) {
  const Order order = m.settings.order;
  int warp = block.warp, lane = block.lane;
  if (order == Order::random) {
    const std::uint64_t random = m.random();
    if (leave_warp || (random >> 16 & m.stay) == 0) {
      warp = static_cast<int>((random & 0xff) * block.warps.size() >> 8);
    }
    lane = static_cast<int>(random >> 8 & 31);
  } else {
    const int step = order == Order::forward ? 1 : -1;
    if (leave_warp) warp += step;
    lane += step;
  }
  warp = first_bit(block.runnable_warps, warp, order);
  if (warp != block.warp && order != Order::random) lane = order == Order::forward ? 0 : 31;
  lane = first_bit(block.warps[warp].runnable, lane, order);
  return *block.threads[warp * 32 + lane];
}

// A live block, another one than `block` if there is one.
Block& choose_block(const Block& block) {
  const int count = static_cast<int>(m.blocks.size());
  int position = 0;
  while (m.blocks[position].get() != &block) ++position;
  int step = m.settings.order == Order::reverse ? count - 1 : 1;
  if (m.shuffled()) position = static_cast<int>(m.random() % count);
  for (int i = 0; i < count; ++i) {
    position = (position + step) % count;
    if (m.blocks[position]->live) return *m.blocks[position];
  }
  return *m.blocks[position];
}

void make_current(Thread& thread) {
  m.current = &thread;
  Block& block = *thread.block;
  block.warp = thread.warp;
  block.lane = thread.lane;
  threadIdx = thread.index;
  blockIdx = block.index;
  shared_base = block.shared;
}

void switch_to(Thread& next) {
  Thread& self = *m.current;
  if (&next == &self) return;
  ++m.switches;
  make_current(next);
  switch_fiber(self.fiber, next.fiber);
}

std::string text(const Thread& thread) {
  return "block " + text_of_index(thread.block->index) + " thread " + text_of_index(thread.index);
}

// Says what the current thread did wrong. A statement of its own, before stop(): what an abandoned
// stack owns is lost.
void report_here(const std::string& what) { m.report = text(*m.current) + ": " + what; }

// Ends the launch. All fibers stay where they are.
[[noreturn]] void stop() {
  switch_fiber(m.current->fiber, m.host);
  std::abort();
}

// What every thread of the block waits for, in a few lines.
std::string waiting_threads(const Block& block) {
  std::string list;
  int lines = 0;
  for (int i = 0; i < block.num_threads && lines < 8; ++i) {
    const Warp& warp = block.warps[i / 32];
    const int lane = i % 32;
    std::string state;
    if (warp.at_barrier >> lane & 1) continue;
    if (warp.arrived >> lane & 1) {
      const Arrival& arrival = warp.arrivals[lane];
      state = std::string("waits in ") + name(arrival.operation) + " at " + text(arrival.at) +
              " for lanes " + hex(arrival.mask);
    } else if (warp.gone >> lane & 1) {
      state = "exited";
    } else {
      state = "runs";
    }
    list += "\n    thread " + text_of_index(block.threads[i]->index) + " " + state;
    ++lines;
  }
  if (block.waiting > 0) {
    list += "\n    " + std::to_string(block.waiting) + " of " + std::to_string(block.num_threads) +
            " threads wait in " + name(block.kind) + " at " + text(block.at);
  }
  return list;
}

std::string waiting_blocks() {
  std::string list;
  for (const auto& block : m.blocks) {
    if (block->live) {
      list += "\n  block " + text_of_index(block->index) + waiting_threads(*block);
    }
  }
  return list;
}

// The current thread cannot go on: lets another one of its block run.
void wait() {
  Block& block = *m.current->block;
  if (block.runnable_warps == 0) {
    report_here("divergence: no thread of the block can go on" + waiting_threads(block));
    stop();
  }
  if (m.shuffled() && m.live > 1 && (m.random() & 15) == 0) {
    switch_to(choose(choose_block(block), false));
  } else {
    switch_to(choose(block, false));
  }
}

// The current thread could go on; others come first.
void give_way() {
  Block& block = *m.current->block;
  switch_to(choose(m.live > 1 ? choose_block(block) : block, true));
}

[[noreturn]] void exit_thread() {
  Thread& self = *m.current;
  Block& block = *self.block;
  Warp& warp = block.warps[self.warp];
  const std::uint32_t bit = 1u << self.lane;
  for (std::uint32_t rest = warp.arrived; rest != 0; rest &= rest - 1) {
    const Arrival& arrival = warp.arrivals[__builtin_ctz(rest)];
    if (arrival.mask & bit) {
      report_here(std::string("exits, but a lane of its warp waits for it in ") +
                  name(arrival.operation) + " at " + text(arrival.at));
      stop();
    }
  }
  if (block.waiting > 0) {
    report_here("exits: divergence at barrier, other threads wait in " +
                std::string(name(block.kind)) + " at " + text(block.at));
    stop();
  }
  clear_runnable(block, self.warp, bit);
  warp.gone |= bit;
  ++block.exited;
  m.impatience = 0;
  if (block.exited == block.num_threads) {
    ++m.switches;
    switch_fiber(self.fiber, m.host, true);
  }
  if (block.runnable_warps == 0) {
    report_here("exits: divergence: no other thread of the block can go on" +
                waiting_threads(block));
    stop();
  }
  Thread& next = choose(block, false);
  ++m.switches;
  make_current(next);
  switch_fiber(self.fiber, next.fiber, true);
  std::abort();
}

void enter() {
  entered(m.host_known ? nullptr : &m.host);
  m.host_known = true;
  m.launch.body(m.launch.call);
  exit_thread();
}

// ---------------------------------------------------------------- checks

// Whether both lanes take part in the same operation.
bool together(const Arrival& a, const Arrival& b) {
  return a.operation == b.operation && a.mask == b.mask &&
         (a.operation == Operation::syncwarp || same(a.at, b.at));
}

// Fails if this lane and one that it waits for wait for each other in different operations. One
// that waits for others only may still come.
void compare(const Warp& warp, int self, std::uint32_t present) {
  const Arrival& mine = warp.arrivals[self];
  int lane = 0;
  for (;; present &= present - 1) {
    if (present == 0) return;
    lane = __builtin_ctz(present);
    if ((warp.arrivals[lane].mask >> self & 1) && !together(mine, warp.arrivals[lane])) break;
  }
  const Arrival& other = warp.arrivals[lane];
  report_here(std::string("warp divergence: ") + name(mine.operation) + " of lanes " +
              hex(mine.mask) + " at " + text(mine.at) + ", but lane " + std::to_string(lane) +
              " waits in " + name(other.operation) + " of lanes " + hex(other.mask) + " at " +
              text(other.at));
  stop();
}

// Whether a barrier of this place is left out (Settings::skip).
bool skipped(Location at) {
  const std::string& skip = m.settings.skip;
  if (skip.empty()) return false;
  const std::string place = text(at);
  return place.size() >= skip.size() &&
         place.compare(place.size() - skip.size(), skip.size(), skip) == 0;
}

void require_kernel(const char* what) {
  if (m.current != nullptr) return;
  std::fprintf(stderr, "vqcodec CUDA host: %s outside a kernel\n", what);
  std::abort();
}

// ---------------------------------------------------------------- blocks

// Memory that is kept from launch to launch, never freed, with a guard at its end (the lowest
// address).
const unsigned char* new_stack() {
  unsigned char* memory = reserve(kStackGuard + kStackSize);
  allow(memory + kStackGuard, kStackSize);
  return memory + kStackGuard;
}

void start_block(Block& block) {
  const std::uint64_t n = m.num_blocks;
  const std::uint64_t number =
      m.settings.order == Order::reverse
          ? n - 1 - m.started
          : static_cast<std::uint64_t>(
                (static_cast<unsigned __int128>(m.started) * m.stride + m.first) % n);
  ++m.started;
  const unsigned* grid = m.launch.grid;
  const unsigned* shape = m.launch.block;
  block.index = {static_cast<unsigned>(number % grid[0]),
                 static_cast<unsigned>(number / grid[0] % grid[1]),
                 static_cast<unsigned>(number / grid[0] / grid[1])};
  const int count = static_cast<int>(shape[0] * shape[1] * shape[2]);
  const int num_warps = (count + 31) / 32;
  block.num_threads = count;
  block.exited = 0;
  block.waiting = 0;
  block.relaxed = false;
  block.runnable_warps = 0;
  block.warps.resize(num_warps);
  while (static_cast<int>(block.threads.size()) < count) {
    auto thread = std::make_unique<Thread>();
    thread->fiber.stack = new_stack();
    thread->fiber.stack_size = kStackSize;
    block.threads.push_back(std::move(thread));
  }
  for (int w = 0; w < num_warps; ++w) {
    const int lanes = std::min(32, count - 32 * w);
    const std::uint32_t present = lanes == 32 ? ~0u : (1u << lanes) - 1;
    Warp& warp = block.warps[w];
    warp.arrived = warp.at_barrier = 0;
    warp.gone = ~present;
    warp.runnable = 0;
    set_runnable(block, w, present);
  }
  for (int i = 0; i < count; ++i) {
    Thread& thread = *block.threads[i];
    thread.index = {i % shape[0], i / shape[0] % shape[1], i / shape[0] / shape[1]};
    thread.block = &block;
    thread.warp = i / 32;
    thread.lane = i % 32;
    start(thread.fiber, enter);
  }
  const bool forward = m.settings.order == Order::forward;
  block.warp = forward ? 0 : num_warps - 1;  // the turn of the first thread, or of the last one
  block.lane = forward ? 31 : 0;
  bool behind = forward;
  if (m.shuffled()) behind = (m.random() & 1) != 0;
  block.shared = block.memory.reset(m.launch.shared, behind, m.shuffled() ? m.random() : 0);
  block.live = true;
  ++m.live;
  m.change_pace();
}

// ---------------------------------------------------------------- faults

struct sigaction previous_segv, previous_bus;
alignas(16) unsigned char signal_stack[64 * 1024];

// What is wrong with an access of the current thread to `address`.
std::string describe_fault(const void* address) {
  const auto* stack = static_cast<const unsigned char*>(m.current->fiber.stack);
  if (address >= stack - kStackGuard && address < stack) return "stack overflow";
  const Block& own = *m.current->block;
  if (own.memory.guards(address)) return own.memory.report(address, "access");
  for (const auto& block : m.blocks) {
    if (block->live && block->memory.guards(address)) {
      return "access near the shared memory of block " + text_of_index(block->index);
    }
  }
  char digits[32];
  std::snprintf(digits, sizeof digits, "%p", address);
  return std::string("access to address ") + digits + ", which is not mapped (or not aligned)";
}

// The fault is one of the code of a kernel, not of the simulator, so that memory can be allocated.
void on_fault(int signal, siginfo_t* info, void*) {
  if (inside_launch && m.current != nullptr) {
    report_here(describe_fault(info->si_addr));
    stop();  // leaves the handler for good: ~FaultHandler unblocks the signal
  }
  const struct sigaction& previous = signal == SIGSEGV ? previous_segv : previous_bus;
  sigaction(signal, &previous, nullptr);  // happens again, in the previous handler's hands
}

// While it lives, faults of this host thread end the launch. AddressSanitizer has its own way.
class FaultHandler {
 public:
  FaultHandler() {
    if (kAsan) return;
    stack_t stack = {};
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, &previous_stack_);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
  }
  ~FaultHandler() {
    if (kAsan) return;
    sigaction(SIGSEGV, &previous_segv, nullptr);
    sigaction(SIGBUS, &previous_bus, nullptr);
    sigaltstack(&previous_stack_, nullptr);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }

 private:
  stack_t previous_stack_ = {};
};

// Runs all blocks. The report, or "".
std::string run_blocks() {
  const int resident =
      m.settings.resident_blocks > 0 ? m.settings.resident_blocks : m.settings.multiprocessors;
  const auto slots = static_cast<std::size_t>(
      std::min<std::uint64_t>(static_cast<std::uint64_t>(resident), m.num_blocks));
  while (m.blocks.size() < slots) m.blocks.push_back(std::make_unique<Block>());
  for (auto& block : m.blocks) block->live = false;
  m.live = 0;
  for (std::size_t i = 0; i < slots; ++i) start_block(*m.blocks[i]);

  Block* next = m.blocks[0].get();
  while (m.live > 0) {
    make_current(choose(*next, false));
    ++m.switches;
    switch_fiber(m.host, m.current->fiber);
    Block& ended = *m.current->block;
    m.current = nullptr;
    if (!m.report.empty()) return m.report;
    // Every switch here without a report is the end of a block.
    const std::string damage = ended.memory.check();
    if (!damage.empty()) return "block " + text_of_index(ended.index) + ": " + damage;
    ended.live = false;
    --m.live;
    if (m.started < m.num_blocks) start_block(ended);
    if (m.live > 0) next = ended.live ? &ended : &choose_block(ended);
  }
  return "";
}

}  // namespace

// ---------------------------------------------------------------- what kernels call

int barrier(Barrier kind, int predicate, Location at) {
  require_kernel(name(kind));
  if (kind == Barrier::plain && skipped(at)) return 0;
  Thread& self = *m.current;
  Block& block = *self.block;
  const std::uint32_t bit = 1u << self.lane;
  if (block.exited > 0) {
    report_here(std::string("divergence at barrier: ") + name(kind) + " at " + text(at) + ", but " +
                std::to_string(block.exited) + " threads of the block have exited");
    stop();
  }
  if (block.waiting == 0) {
    block.kind = kind;
    block.at = at;
    block.predicates = 0;
  } else if (kind != block.kind || !same(at, block.at)) {
    report_here(std::string("divergence at barrier: ") + name(kind) + " at " + text(at) +
                ", but other threads wait in " + name(block.kind) + " at " + text(block.at));
    stop();
  }
  block.predicates += predicate != 0;
  if (++block.waiting < block.num_threads) {
    clear_runnable(block, self.warp, bit);
    block.warps[self.warp].at_barrier |= bit;
    wait();
    return block.outcome;
  }
  block.outcome = kind == Barrier::all ? block.predicates == block.num_threads : block.predicates;
  block.waiting = 0;
  for (std::size_t w = 0; w < block.warps.size(); ++w) {
    Warp& warp = block.warps[w];
    set_runnable(block, static_cast<int>(w), warp.at_barrier);
    warp.at_barrier = 0;
  }
  m.change_pace();
  if (!block.relaxed) m.impatience = 0;
  block.relaxed = false;
  const int outcome = block.outcome;
  switch_to(choose(block, true));
  return outcome;
}

std::uint64_t collective(Operation operation, unsigned mask, std::uint64_t value,
                         std::uint64_t argument, Location at) {
  require_kernel(name(operation));
  if (operation == Operation::syncwarp && skipped(at)) return 0;
  if (m.shuffled()) preemption_point();
  Thread& self = *m.current;
  Block& block = *self.block;
  Warp& warp = block.warps[self.warp];
  const std::uint32_t bit = 1u << self.lane;
  Arrival& arrival = warp.arrivals[self.lane];
  arrival.operation = operation;
  arrival.mask = mask;
  arrival.value = value;
  arrival.argument = argument;
  arrival.at = at;
  if ((mask & bit) == 0) {
    report_here(std::string(name(operation)) + " at " + text(at) + ": lane " +
                std::to_string(self.lane) + " is not in its mask " + hex(mask));
    stop();
  }
  if ((mask & warp.gone) != 0) {
    report_here(std::string(name(operation)) + " at " + text(at) + ": lanes " +
                hex(mask & warp.gone) + " of the mask " + hex(mask) +
                " have exited or do not exist");
    stop();
  }
  if (operation >= Operation::shfl && operation <= Operation::shfl_xor) {
    const int source = source_lane(operation, self.lane, argument);
    if (source < 0 || (mask >> source & 1) == 0) {
      report_here(std::string(name(operation)) + " at " + text(at) +
                  (source < 0 ? ": the width is not a power of 2"
                              : ": reads lane " + std::to_string(source) +
                                    ", which is not in the mask " + hex(mask)));
      stop();
    }
  }
  // To compare with one lane is enough here; complete() needs all.
  const std::uint32_t present = mask & warp.arrived;
  if (present != 0 && !together(arrival, warp.arrivals[__builtin_ctz(present)])) {
    compare(warp, self.lane, present);
  }
  warp.arrived |= bit;
  bool all = (mask & ~warp.arrived) == 0;
  for (std::uint32_t rest = mask; all && rest != 0; rest &= rest - 1) {
    all = together(arrival, warp.arrivals[__builtin_ctz(rest)]);
  }
  if (!all) {
    if ((mask & ~warp.arrived) == 0) compare(warp, self.lane, mask);
    clear_runnable(block, self.warp, bit);
    wait();
    return arrival.result;
  }
  Rounding rounding = {m.settings.order, 1};
  if (m.shuffled() && operation == Operation::mma_tf32) rounding.state = m.random() | 1;
  complete(warp.arrivals, mask, rounding);
  warp.arrived &= ~mask;
  set_runnable(block, self.warp, mask);
  const std::uint64_t result = arrival.result;
  // Who completes an operation is the last in order: the first goes on.
  switch_to(choose(block, false));
  return result;
}

void preemption_point() {
  if (m.current == nullptr) return;
  if (m.shuffled()) {
    const std::uint64_t random = m.random();
    if ((random & 3) != 0) return;
    Block& block = *m.current->block;
    switch_to(choose((random & 0x1c) == 0 && m.live > 1 ? choose_block(block) : block, false));
  } else if ((++m.points & 0xffff) == 0) {
    give_way();  // so that loops of atomic operations alone cannot hang
  }
}

void wait_turn() {
  require_kernel("relax");
  m.current->block->relaxed = true;
  if (++m.impatience > m.settings.patience) {
    report_here("deadlock: relax() was called " + std::to_string(m.settings.patience) +
                " times while nothing happened" + waiting_blocks());
    stop();
  }
  give_way();
}

void note_progress() { m.impatience = 0; }

int run(const Launch& launch) {
  const auto refuse = [](cudaError_t error) { return static_cast<int>(set_last_error(error)); };
  for (int i = 0; i < 3; ++i) {
    if (launch.grid[i] == 0 || launch.block[i] == 0) return refuse(cudaErrorInvalidConfiguration);
  }
  if (launch.grid[0] > 0x7fffffffu || launch.grid[1] > 65535 || launch.grid[2] > 65535 ||
      launch.block[0] > 1024 || launch.block[1] > 1024 || launch.block[2] > 64 ||
      launch.block[0] * launch.block[1] * launch.block[2] > 1024) {
    return refuse(cudaErrorInvalidConfiguration);
  }
  if (inside_launch) return refuse(cudaErrorInvalidConfiguration);  // a kernel cannot launch
  std::uint64_t generation = 0;
  const Settings used = configured(&generation);
  if (launch.shared > static_cast<std::size_t>(used.shared_limit) ||
      launch.shared > shared_opt_in(launch.kernel)) {
    return refuse(cudaErrorInvalidValue);
  }

  const std::lock_guard<std::mutex> lock(launch_mutex());
  std::fenv_t environment;
  std::fegetenv(&environment);
  std::fesetenv(FE_DFL_ENV);

  m.settings = used;
  m.launch = launch;
  m.report.clear();
  m.host_known = false;
  m.impatience = 0;
  m.points = 0;
  m.num_blocks = std::uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  m.started = 0;
  m.first = 0;
  m.stride = 1;
  if (m.shuffled()) {
    // Not anew for each launch: those of a test differ.
    if (m.seeded != generation) {
      m.seeded = generation;
      m.random_state = used.seed * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull;
      m.random_state |= 1;
      for (int i = 0; i < 8; ++i) m.random();
    }
    m.first = m.random() % m.num_blocks;
    do {
      m.stride = 1 + m.random() % m.num_blocks;
    } while (std::gcd(m.stride, m.num_blocks) != 1);
  }
  gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
  blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);

  inside_launch = true;
  std::string report;
  bool enough_memory = true;
  try {
    const FaultHandler handler;
    report = run_blocks();
  } catch (const std::bad_alloc&) {
    enough_memory = false;
  }
  m.current = nullptr;
  inside_launch = false;
  std::fesetenv(&environment);
  if (!enough_memory) return refuse(cudaErrorMemoryAllocation);
  if (report.empty()) report = check_allocations();
  if (report.empty()) return cudaSuccess;
  set_last_report(report);
  return refuse(cudaErrorLaunchFailure);
}

// ---------------------------------------------------------------- settings

Settings settings_of_environment() {
  Settings result;
  if (const char* order = std::getenv("VQCODEC_CUDA_SIMULATOR_ORDER")) {
    if (std::strcmp(order, "reverse") == 0) {
      result.order = Order::reverse;
    } else if (std::strncmp(order, "random", 6) == 0) {
      result.order = Order::random;
      if (order[6] == ':') result.seed = std::strtoull(order + 7, nullptr, 10);
    } else if (std::strcmp(order, "forward") != 0 && *order != '\0') {
      std::fprintf(stderr,
                   "VQCODEC_CUDA_SIMULATOR_ORDER is forward, reverse or random:SEED, got %s\n",
                   order);
      std::abort();
    }
  }
  const auto number = [](const char* variable, int* value) {
    const char* setting = std::getenv(variable);
    if (setting != nullptr && *setting != '\0') *value = std::atoi(setting);
  };
  if (const char* skip = std::getenv("VQCODEC_CUDA_SIMULATOR_SKIP")) result.skip = skip;
  number("VQCODEC_CUDA_SIMULATOR_SMS", &result.multiprocessors);
  number("VQCODEC_CUDA_SIMULATOR_SHARED", &result.shared_limit);
  number("VQCODEC_CUDA_SIMULATOR_RESIDENT", &result.resident_blocks);
  return result;
}

Settings settings() {
  std::uint64_t generation;
  return configured(&generation);
}

void configure(const Settings& settings) {
  const std::lock_guard<std::mutex> lock(settings_mutex());
  configuration().settings = settings;
  ++configuration().generation;
}

std::uint64_t switches() { return m.switches; }

}  // namespace vqcodec::cuda_simulator
