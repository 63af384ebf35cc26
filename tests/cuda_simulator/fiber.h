// Fibers: stacks that take turns on one host thread.
//
// A switch saves the registers that a function call preserves and takes those of the other
// stack: some nanoseconds. Elsewhere than on x86-64 and AArch64 it is swapcontext, which is
// slow (a system call), but works.
//
// For one source file only: it defines the switch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "address_sanitizer.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
#define VQCODEC_FIBER_UCONTEXT 1
#endif

#ifdef VQCODEC_FIBER_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__x86_64__) && !defined(VQCODEC_FIBER_UCONTEXT)
__asm__(R"(
.text
.p2align 4
.globl vqcodec_cuda_simulator_switch
.hidden vqcodec_cuda_simulator_switch
.type vqcodec_cuda_simulator_switch, @function
vqcodec_cuda_simulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size vqcodec_cuda_simulator_switch, .-vqcodec_cuda_simulator_switch
)");
#elif defined(__aarch64__) && !defined(VQCODEC_FIBER_UCONTEXT)
__asm__(R"(
.text
.p2align 4
.globl vqcodec_cuda_simulator_switch
.hidden vqcodec_cuda_simulator_switch
.type vqcodec_cuda_simulator_switch, %function
vqcodec_cuda_simulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  br x30
.size vqcodec_cuda_simulator_switch, .-vqcodec_cuda_simulator_switch
)");
#endif

namespace vqcodec::cuda_simulator {

struct Fiber {
  void* stack_pointer = nullptr;  // while it does not run
  const void* stack = nullptr;    // lowest address
  std::size_t stack_size = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
#ifdef VQCODEC_FIBER_UCONTEXT
  ucontext_t context;
#endif
};

#ifndef VQCODEC_FIBER_UCONTEXT
// Saves the stack pointer, with the registers on the stack, in *save, and takes `load`.
extern "C" void vqcodec_cuda_simulator_switch(void** save, void* load);
#endif

// Lets `fiber` begin with `entry`, which never returns, when it is next switched to.
inline void start(Fiber& fiber, void (*entry)()) {
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
  // Whatever ran here before did not return from all of its functions.
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_size);
#endif
  fiber.fake_stack = nullptr;
#ifdef VQCODEC_FIBER_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = const_cast<void*>(fiber.stack);
  fiber.context.uc_stack.ss_size = fiber.stack_size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // Stacks begin at different places of a page: all at the same one would share few cache lines.
  const auto base = reinterpret_cast<std::uintptr_t>(fiber.stack);
  const std::uintptr_t color = (base / fiber.stack_size * 5 % 32) * 128;
  auto** top = reinterpret_cast<void**>((base + fiber.stack_size - color) & ~std::uintptr_t{63});
#if defined(__x86_64__)
  *--top = nullptr;  // where a caller's return address would be: aligns as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
  for (int i = 0; i < 20; ++i) *--top = nullptr;
  top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  fiber.stack_pointer = top;
#endif
}

// Continues `to`; returns when something switches back to `from`. `last`: nothing will.
inline void switch_fiber(Fiber& from, Fiber& to, bool last = false) {
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.stack_size);
#else
  static_cast<void>(last);
#endif
#ifdef VQCODEC_FIBER_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  vqcodec_cuda_simulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// First in `entry`. `caller`, if given, gets the stack that the switch came from.
inline void entered(Fiber* caller) {
#ifdef VQCODEC_CUDA_SIMULATOR_ASAN
  const void* stack;
  std::size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  if (caller != nullptr) {
    caller->stack = stack;
    caller->stack_size = size;
  }
#else
  static_cast<void>(caller);
#endif
}

}  // namespace vqcodec::cuda_simulator
