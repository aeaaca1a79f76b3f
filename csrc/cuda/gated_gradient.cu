// The kernel of the gate's gradient and its launch.
#include "gated_gradient.cuh"
#include "launching.cuh"

namespace abpn::gated {
namespace {

template <class T, int many>
__global__ void __launch_bounds__(flat_threads) gated_gradient(const __grid_constant__ GradientTask task) {
  each_of(task.count * task.run / many, [&](int64_t i) { gate_gradient<T, many>(task, i); });
}

template <class T, int many>
const char* launch_groups(const GradientTask& task, cudaStream_t stream) {
  const unsigned blocks = flat_blocks(task.count * task.run / many);
  if (blocks == 0) return nullptr;
  gated_gradient<T, many><<<blocks, flat_threads, 0, stream>>>(task);
  return message(cudaGetLastError());
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
