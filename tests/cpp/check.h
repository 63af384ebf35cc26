// The smallest test framework that says what went wrong.
//
//     TEST(name) { CHECK(condition); CHECK_EQ(found, expected); }
//
// Every TEST in every file runs; see main.cpp.
#pragma once

#include <iostream>
#include <string>
#include <vector>

namespace vqcodec::testing {

struct Test {
  std::string name;
  void (*run)();
};

std::vector<Test>& all_tests();
void report_failure(const char* file, int line, const std::string& message);

struct Registration {
  Registration(const char* name, void (*run)()) { all_tests().push_back({name, run}); }
};

template <class A, class B>
void check_equal(const A& found, const B& expected, const char* text, const char* file, int line) {
  if (found == expected) return;
  report_failure(file, line, std::string(text) + ": the two differ");
  std::cerr << "    found " << found << ", expected " << expected << "\n";
}

}  // namespace vqcodec::testing

#define TEST(name)                                                                   \
  static void test_##name();                                                         \
  static const ::vqcodec::testing::Registration register_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition) \
  if (!(condition)) ::vqcodec::testing::report_failure(__FILE__, __LINE__, #condition)

#define CHECK_EQ(found, expected) \
  ::vqcodec::testing::check_equal(found, expected, #found " == " #expected, __FILE__, __LINE__)
