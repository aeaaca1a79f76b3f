// What launches over a list of numbers have in common.
#pragma once

#include <cuda_runtime.h>

#include "gated_plan.h"

namespace abpn::gated {

constexpr int flat_threads = 256;

// A thread for each number, up to where a thread takes several.
inline unsigned flat_blocks(int64_t size) {
  const int64_t wanted = parts(size, flat_threads);
  return static_cast<unsigned>(wanted < 65536 ? wanted : 65536);
}

template <class Take>
__device__ __forceinline__ void each_of(int64_t size, const Take& take) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride) take(i);
}

inline const char* message(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace abpn::gated
