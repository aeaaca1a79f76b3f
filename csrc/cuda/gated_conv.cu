// The kernels of the gated convolution (docs/gated_conv.md) and their launches.
#include "gated_float.cuh"
#include "gated_half.cuh"
#include "launching.cuh"

namespace abpn::gated {
namespace {

template <class K, int Resident>
__global__ void __launch_bounds__(K::threads, Resident) gated_conv(const __grid_constant__ Task task) {
  tile<K>(task);
}

template <class K>
__global__ void __launch_bounds__(K::threads) gated_conv_reduce(const __grid_constant__ Task task) {
  reduce<K>(task);
}

template <class T>
__global__ void gated_conv_pack(const __grid_constant__ Plan plan, const __grid_constant__ Weight weight,
                                const __grid_constant__ Weight skip_weight, T* packed) {
  const auto reader = [](const Weight& of) {
    return [&of](int filter, int channel, int tap) {
      return to_float(static_cast<const T*>(of.data)[filter * of.stride[0] + channel * of.stride[1] +
                                                     tap / 3 * of.stride[2] + tap % 3 * of.stride[3]]);
    };
  };
  each_of(packed_size(plan), [&](int64_t i) {
    packed[i] = from_float<T>(packed_weight(plan, i, reader(weight), reader(skip_weight)));
  });
}

template <class K, int Resident>
const char* launch_kernel(const Task& task, cudaStream_t stream) {
  const Plan& plan = task.plan;
  const int64_t pixel_blocks = plan.pixel_tiles * classes(plan);
  if (pixel_blocks == 0) return nullptr;
  if (pixel_blocks > INT32_MAX) return "the images have too many pixels for one launch";
  const auto kernel = gated_conv<K, Resident>;
  const dim3 grid(static_cast<unsigned>(pixel_blocks), plan.out_tiles, plan.splits);
  // Every time: it is cheap, and holds for the current device only.
  if (const char* error =
          message(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, K::shared_bytes))) {
    // Else the next launch would report it as its own.
    cudaGetLastError();
    return error;
  }
  kernel<<<grid, K::threads, K::shared_bytes, stream>>>(task);
  const char* error = message(cudaGetLastError());
  if (error != nullptr || plan.splits == 1) return error;
  gated_conv_reduce<K><<<dim3(grid.x, grid.y, K::fragments), K::threads, 0, stream>>>(task);
  return message(cudaGetLastError());
}

template <class T>
const char* launch_half(const Task& task, Kernel kernel, cudaStream_t stream) {
  if (kernel == Kernel::wide) return launch_kernel<Half<T, WideCut>, wide_tile.resident>(task, stream);
  if (kernel == Kernel::middle) return launch_kernel<Half<T, MiddleCut>, middle_tile.resident>(task, stream);
  return launch_kernel<Half<T, NarrowCut>, narrow_tile.resident>(task, stream);
}

}  // namespace

int64_t partial_size(const Plan& plan, Kernel kernel) {
  if (plan.splits == 1) return 0;
  const int64_t blocks = plan.splits * plan.pixel_tiles * classes(plan) * plan.out_tiles;
  return blocks * filters * tile_of(kernel).pixels * tile_of(kernel).outs;
}

const char* launch(const Task& task, Kernel kernel, Type type, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (kernel == Kernel::full) return launch_kernel<Full, float_tile.resident>(task, on);
  return type == Type::half ? launch_half<__half>(task, kernel, on) : launch_half<__nv_bfloat16>(task, kernel, on);
}

const char* launch_packing(const Plan& plan, const Weight& weight, const Weight& skip_weight, void* packed, Type type,
                           void* stream) {
  const unsigned blocks = flat_blocks(packed_size(plan)), threads = flat_threads;
  if (blocks == 0) return nullptr;
  const auto on = static_cast<cudaStream_t>(stream);
  if (type == Type::half)
    gated_conv_pack<<<blocks, threads, 0, on>>>(plan, weight, skip_weight, static_cast<__half*>(packed));
  else if (type == Type::bfloat16)
    gated_conv_pack<<<blocks, threads, 0, on>>>(plan, weight, skip_weight, static_cast<__nv_bfloat16*>(packed));
  else
    gated_conv_pack<<<blocks, threads, 0, on>>>(plan, weight, skip_weight, static_cast<float*>(packed));
  return message(cudaGetLastError());
}

}  // namespace abpn::gated
