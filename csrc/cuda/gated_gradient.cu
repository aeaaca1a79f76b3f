// The kernel of the gate's gradient and its launch.
#include <cuda_runtime.h>

#include "gated_gradient.cuh"

namespace abpn::gated {
namespace {

constexpr int threads = 256;

template <class T, int many>
__global__ void __launch_bounds__(threads) gated_gradient(const __grid_constant__ GradientTask task) {
  const int64_t size = task.count * task.run / many, stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride)
    gate_gradient<T, many>(task, i);
}

template <class T, int many>
const char* launch_groups(const GradientTask& task, cudaStream_t stream) {
  const int64_t wanted = parts(task.count * task.run / many, threads);
  if (wanted == 0) return nullptr;
  gated_gradient<T, many><<<static_cast<unsigned>(wanted < 65536 ? wanted : 65536), threads, 0, stream>>>(task);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <class T>
const char* launch_type(const GradientTask& task, cudaStream_t stream) {
  if (in_groups<T>(task)) return launch_groups<T, 16 / sizeof(T)>(task, stream);
  return launch_groups<T, 1>(task, stream);
}

}  // namespace

const char* launch_gradient(const GradientTask& task, Type type, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (type == Type::half) return launch_type<__half>(task, on);
  return type == Type::bfloat16 ? launch_type<__nv_bfloat16>(task, on) : launch_type<float>(task, on);
}

}  // namespace abpn::gated
