// vqcodec_tests [part of a name]: runs the tests, all or some. Exit status 1 if one fails.

#include <cstring>

#include "check.h"
#include "nn/instruction_set.h"

namespace vqcodec::testing {
namespace {
int failures = 0;
}

std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

void report_failure(const char* file, int line, const std::string& message) {
  ++failures;
  std::cerr << file << ":" << line << ": " << message << "\n";
}

}  // namespace vqcodec::testing

int main(int argc, char** argv) {
  using namespace vqcodec;
  std::cout << "CPU variants that run here:";
  for (Variant variant : kVariants) {
    if (is_supported(variant)) std::cout << " " << name(variant);
  }
  std::cout << "\n";

  const char* wanted = argc > 1 ? argv[1] : "";
  int failed = 0, run = 0;
  for (const testing::Test& test : testing::all_tests()) {
    if (std::strstr(test.name.c_str(), wanted) == nullptr) continue;
    const int before = testing::failures;
    test.run();
    const bool ok = testing::failures == before;
    std::cout << (ok ? "ok      " : "FAILED  ") << test.name << "\n";
    failed += !ok;
    ++run;
  }
  std::cout << run - failed << " of " << run << " tests passed\n";
  return failed == 0 && run > 0 ? 0 : 1;
}
