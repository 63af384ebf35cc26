// A fuzz target without libFuzzer: runs it on files, and on mutations of them.
//
//     fuzz_NAME [--mutations N] FILE|FOLDER...
//
// Mutations come from a fixed seed. The input that ends the program is printed in hexadecimal.
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Sanitizers end with the signal that `report` waits for.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes current;

extern "C" void report(int number) {
  constexpr char digits[] = "0123456789abcdef";
  const auto put = [](const char* text, std::size_t size) {
    if (write(STDERR_FILENO, text, size) < 0) _exit(1);
  };
  put("input: ", 7);
  for (std::uint8_t byte : current) {
    const char hex[2] = {digits[byte >> 4], digits[byte & 15]};
    put(hex, 2);
  }
  put("\n", 1);
  std::signal(number, SIG_DFL);
  std::raise(number);
}

// No input may take more than ten seconds of processor time.
void run(const Bytes& input) {
  const itimerval limit = {{0, 0}, {10, 0}};
  setitimer(ITIMER_PROF, &limit, nullptr);
  current = input;
  current.shrink_to_fit();
  LLVMFuzzerTestOneInput(current.data(), current.size());
}

Bytes mutated(Bytes bytes, const std::vector<Bytes>& seeds, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1));
    const auto byte = static_cast<std::uint8_t>(random());
    switch (below(4)) {
      case 0: bytes.insert(at, byte); break;
      case 1:
        bytes.erase(at, at + static_cast<std::ptrdiff_t>(
                                 std::min<std::size_t>(below(4), bytes.end() - at)));
        break;
      case 2:
        if (at != bytes.end()) *at = byte;
        break;
      case 3: {
        const Bytes& other = seeds[below(seeds.size())];
        const auto from = other.begin() + static_cast<std::ptrdiff_t>(below(other.size() + 1));
        const auto size = std::min(bytes.end() - at, other.end() - from);
        std::copy_n(from, size, at);
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  for (int number : {SIGABRT, SIGSEGV, SIGFPE, SIGILL, SIGPROF}) std::signal(number, report);
  long mutations = 0;
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--mutations") == 0 && i + 1 < argc) {
      mutations = std::atol(argv[++i]);
    } else if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry);
    } else {
      files.emplace_back(argv[i]);
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> seeds;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::cerr << file << " cannot be read\n";
      return 1;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    run(seeds.back());
  }
  if (seeds.empty()) {
    std::cerr << "no inputs\n";
    return 1;
  }
  std::mt19937 random(1);
  for (long i = 0; i < mutations; ++i) {
    run(mutated(seeds[random() % seeds.size()], seeds, random));
  }
  std::cout << seeds.size() << " inputs and " << mutations << " mutations of them\n";
}
