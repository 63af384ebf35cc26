// Marks the functions that CUDA kernels share with the CPU.
#pragma once

#ifdef __CUDACC__
#define VQCODEC_HOST_DEVICE __host__ __device__
#else
#define VQCODEC_HOST_DEVICE
#endif
