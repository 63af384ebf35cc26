// What warp operations compute, once all of their lanes are there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda_runtime.h"
#include "simulator.h"

namespace vqcodec::cuda_simulator {

// A lane's side of a warp operation: what it brings, then what it gets.
struct Arrival {
  Operation operation;
  std::uint32_t mask;
  std::uint64_t value, argument, result;
  Location at;
};

// How sums of float32 are rounded where CUDA does not say.
struct Rounding {
  Order order;
  std::uint64_t state;  // of the random numbers; not 0

  std::uint64_t random() {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Dull >> 16;
  }
};

inline const char* name(Operation operation) {
  switch (operation) {
    case Operation::syncwarp: return "__syncwarp";
    case Operation::shfl: return "__shfl_sync";
    case Operation::shfl_up: return "__shfl_up_sync";
    case Operation::shfl_down: return "__shfl_down_sync";
    case Operation::shfl_xor: return "__shfl_xor_sync";
    case Operation::ballot: return "__ballot_sync";
    case Operation::any: return "__any_sync";
    case Operation::all: return "__all_sync";
    case Operation::reduce_add: return "__reduce_add_sync";
    case Operation::reduce_min:
    case Operation::reduce_min_unsigned: return "__reduce_min_sync";
    case Operation::reduce_max:
    case Operation::reduce_max_unsigned: return "__reduce_max_sync";
    case Operation::mma_s8: return "mma_s8";
    case Operation::mma_tf32: return "mma_tf32";
  }
  return "?";
}

inline float truncated(double exact) {
  float result = static_cast<float>(exact);
  if (std::fabs(static_cast<double>(result)) > std::fabs(exact)) {
    result = std::nextafter(result, 0.0f);
  }
  return result;
}

// The sum of float32 terms as a tensor core may make it: in any order, rounded to nearest or
// towards zero, or with all terms cut off at the last place of the largest one.
inline float sum_of_any_order(double (&terms)[9], Rounding& rounding) {
  std::uint64_t random = 0;  // forward: in order, to nearest
  if (rounding.order == Order::reverse) {
    std::reverse(terms, terms + 9);
    random = 1;
  } else if (rounding.order == Order::random) {
    for (int i = 8; i > 0; --i) std::swap(terms[i], terms[rounding.random() % (i + 1)]);
    random = rounding.random() % 3;
  }
  if (random == 2) {
    double largest = 0;
    for (double term : terms) largest = std::max(largest, std::fabs(term));
    if (!(largest > 0) || !std::isfinite(largest)) random = 0;
    if (random == 2) {
      const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
      double sum = 0;
      for (double term : terms) sum += std::trunc(term / unit) * unit;
      return truncated(sum);
    }
  }
  float sum = static_cast<float>(terms[0]);
  for (int i = 1; i < 9; ++i) {
    const double next = sum + terms[i];
    sum = random == 1 && std::isfinite(next) ? truncated(next) : static_cast<float>(next);
  }
  return sum;
}

inline void multiply_s8(const Arrival (&lanes)[32]) {
  std::int16_t a[16][32], b[8][32];  // b: by columns
  const auto fragments = [&lanes](int lane) -> const FragmentsS8& {
    return *reinterpret_cast<const FragmentsS8*>(lanes[lane].value);
  };
  const auto unpack = [](std::uint32_t bytes, std::int16_t* to) {
    for (int i = 0; i < 4; ++i) to[i] = static_cast<std::int8_t>(bytes >> 8 * i);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const FragmentsS8& f = fragments(lane);
    const int g = lane / 4, q = lane % 4;
    unpack(f.a[0], &a[g][4 * q]);
    unpack(f.a[1], &a[g + 8][4 * q]);
    unpack(f.a[2], &a[g][16 + 4 * q]);
    unpack(f.a[3], &a[g + 8][16 + 4 * q]);
    unpack(f.b[0], &b[g][4 * q]);
    unpack(f.b[1], &b[g][16 + 4 * q]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    std::int32_t* c = fragments(lane).c;
    const int g = lane / 4, q = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const std::int16_t* row = a[g + (i & 2) * 4];
      const std::int16_t* column = b[2 * q + (i & 1)];
      std::int32_t sum = 0;  // at most 2^19
      for (int k = 0; k < 32; ++k) sum += row[k] * column[k];
      c[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(c[i]) +
                                       static_cast<std::uint32_t>(sum));
    }
  }
}

inline void multiply_tf32(const Arrival (&lanes)[32], Rounding& rounding) {
  double a[16][8], b[8][8];
  const auto fragments = [&lanes](int lane) -> const FragmentsTF32& {
    return *reinterpret_cast<const FragmentsTF32*>(lanes[lane].value);
  };
  const auto tf32 = [](std::uint32_t bits) -> double {
    return same_bits<float>(bits & ~std::uint32_t{0x1fff});
  };
  for (int lane = 0; lane < 32; ++lane) {
    const FragmentsTF32& f = fragments(lane);
    const int g = lane / 4, q = lane % 4;
    a[g][q] = tf32(f.a[0]);
    a[g + 8][q] = tf32(f.a[1]);
    a[g][q + 4] = tf32(f.a[2]);
    a[g + 8][q + 4] = tf32(f.a[3]);
    b[q][g] = tf32(f.b[0]);
    b[q + 4][g] = tf32(f.b[1]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* c = fragments(lane).c;
    const int g = lane / 4, q = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i & 2) * 4, column = 2 * q + (i & 1);
      double terms[9];
      terms[0] = c[i];
      for (int k = 0; k < 8; ++k) terms[k + 1] = a[row][k] * b[k][column];
      c[i] = sum_of_any_order(terms, rounding);
    }
  }
}

// Source lane of a shuffle; -1 if its width is not a power of 2.
inline int source_lane(Operation operation, int lane, std::uint64_t argument) {
  const int width = static_cast<int>(argument & 0xffffffff);
  const int operand = static_cast<int>(argument >> 32);
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) return -1;
  const int begin = lane & ~(width - 1), end = begin + width;
  int source = lane;
  switch (operation) {
    case Operation::shfl: return begin + (operand & (width - 1));
    case Operation::shfl_up: source = lane - std::min(operand & 0xff, 32); break;
    case Operation::shfl_down: source = lane + std::min(operand & 0xff, 32); break;
    default: source = lane ^ (operand & 31); break;
  }
  // As the hardware: xor may read a lower segment, none a higher one.
  if (source >= end) return lane;
  if (operation == Operation::shfl_up && source < begin) return lane;
  return source;
}

// Makes the results of all lanes in `mask`, which have arrived at the same operation.
inline void complete(Arrival (&lanes)[32], std::uint32_t mask, Rounding& rounding) {
  const int first = __builtin_ctz(mask);
  const Operation operation = lanes[first].operation;
  std::uint64_t result = 0;
  switch (operation) {
    case Operation::syncwarp: return;
    case Operation::mma_s8: return multiply_s8(lanes);
    case Operation::mma_tf32: return multiply_tf32(lanes, rounding);
    case Operation::shfl:
    case Operation::shfl_up:
    case Operation::shfl_down:
    case Operation::shfl_xor:
      for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        lanes[lane].result = lanes[source_lane(operation, lane, lanes[lane].argument)].value;
      }
      return;
    case Operation::ballot:
    case Operation::any:
    case Operation::all:
      for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        result |= lanes[lane].value << lane;
      }
      if (operation == Operation::any) result = result != 0;
      if (operation == Operation::all) result = result == mask;
      break;
    default:
      result = lanes[first].value;
      for (std::uint32_t rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
        const std::uint64_t value = lanes[__builtin_ctz(rest)].value;
        const auto a = static_cast<std::int32_t>(result), b = static_cast<std::int32_t>(value);
        if (operation == Operation::reduce_add) {
          result = static_cast<std::uint32_t>(result + value);
        } else if (operation == Operation::reduce_min_unsigned) {
          result = std::min(result, value);
        } else if (operation == Operation::reduce_max_unsigned) {
          result = std::max(result, value);
        } else {
          result = static_cast<std::uint32_t>(operation == Operation::reduce_min ? std::min(a, b)
                                                                                 : std::max(a, b));
        }
      }
      break;
  }
  for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    lanes[__builtin_ctz(rest)].result = result;
  }
}

}  // namespace vqcodec::cuda_simulator
