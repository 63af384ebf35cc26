// The fixed-point arithmetic of integer networks, element by element: rounding, saturation, formats
// of features (docs/FORMAT.md, "Prior: integer arithmetic").
//
// All of it is exact, so any schedule of it gives the same numbers. Everything has internal
// linkage: files with different instruction sets must not share a copy.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace vqcodec {

inline constexpr int kActivationFraction = 4;
inline constexpr int kStreamFraction = 8;
inline constexpr int kGateFraction = 7;
inline constexpr int kMaxShift = 30;

// Pixels that enter an autoencoder, and those that leave it; both are less kGreyOffset grey levels.
inline constexpr int kPixelsInFraction = 8;
inline constexpr int kPixelsOutFraction = 14;
inline constexpr int kGreyOffset = 128;

VQCODEC_HOST_DEVICE static inline std::int32_t clamp(std::int32_t x, std::int32_t low,
                                                     std::int32_t high) {
  return x < low ? low : x > high ? high : x;
}

VQCODEC_HOST_DEVICE static inline std::int32_t saturate8(std::int32_t x) {
  return clamp(x, -128, 127);
}

VQCODEC_HOST_DEVICE static inline std::int32_t saturate16(std::int32_t x) {
  return clamp(x, -32768, 32767);
}

// What a rounding right shift by `shift` adds first: rounding_shift(x) = (x + half) >> shift.
// Convolutions have it in their bias.
//     // shift 3: (x + 4) >> 3, so 11 -> 1, 12 -> 2, -12 -> -1, -13 -> -2; shift 0: x
VQCODEC_HOST_DEVICE static inline std::int32_t rounding_half(int shift) {
  return (std::int32_t{1} << shift) >> 1;
}

// The stream with `x` added, in int16. `base` lies within 2^18 of zero, `x` anywhere: beyond
// 2^20 it decides the result alone, and clamped to that the sum cannot overflow.
VQCODEC_HOST_DEVICE static inline std::int32_t add_to_stream(std::int32_t base, std::int32_t x) {
  constexpr std::int32_t limit = std::int32_t{1} << 20;
  return saturate16(base + clamp(x, -limit, limit));
}

// The activation with slope 1/8 below zero, which is x where x is larger: -5 -> -1, -4 -> 0, 3
// -> 3.
VQCODEC_HOST_DEVICE static inline std::int32_t leaky(std::int32_t x) {
  return x < 0 ? (x + 4) >> 3 : x;
}

// Pixels as an autoencoder makes them (fraction 14, less 128 grey levels) -> grey level.
VQCODEC_HOST_DEVICE static inline std::int32_t pixel(std::int32_t x) {
  constexpr int shift = kPixelsOutFraction - kPixelsInFraction;
  return clamp(((x + (1 << (shift - 1))) >> shift) + kGreyOffset, 0, 255);
}

// Stream (fraction 8) -> input of a convolution (int8, fraction 4).
VQCODEC_HOST_DEVICE static inline std::int32_t activation(std::int32_t stream) {
  constexpr int shift = kStreamFraction - kActivationFraction;
  return saturate8((stream + (1 << (shift - 1))) >> shift);
}

// Entry of the tanh and sigmoid tables.
VQCODEC_HOST_DEVICE static inline std::int32_t gate_index(std::int32_t x) {
  return saturate8(x) + 128;
}

// tanh * sigmoid, of table entries (fraction 7); the result is int8, fraction 7.
VQCODEC_HOST_DEVICE static inline std::int32_t gate(std::int32_t tanh, std::int32_t sigmoid) {
  return (tanh * sigmoid + (1 << (kGateFraction - 1))) >> kGateFraction;
}

// The inner activation of a conditioning block.
VQCODEC_HOST_DEVICE static inline std::int32_t relu(std::int32_t x) { return clamp(x, 0, 127); }

}  // namespace vqcodec
