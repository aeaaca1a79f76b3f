// The kernels of csrc/cuda/gated_conv.cu, block after block on a CPU, for ctypes.
#include "emulated_device.h"

#include "gated_float.cuh"
#include "gated_gradient.cuh"
#include "gated_half.cuh"

using namespace abpn;
using namespace abpn::gated;

namespace {

std::string error;

template <class K>
void run(Task task, unsigned seed) {
  const Plan& plan = task.plan;
  const auto over = [&](int depth, int shared, const std::function<void()>& kernel) {
    const dim3 grid(static_cast<unsigned>(plan.pixel_tiles * classes(plan)), plan.out_tiles, depth);
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = dim3(x, y, z);
          gpu::Block(K::threads, shared, seed++).run(kernel);
        }
  };
  const int64_t blocks = plan.splits * plan.pixel_tiles * classes(plan) * plan.out_tiles;
  std::vector<float4> partial;
  if (plan.splits > 1) partial.resize(blocks * filters * K::fragments * K::threads, {NAN, NAN, NAN, NAN});
  task.partial = reinterpret_cast<float*>(partial.data());
  over(plan.splits, K::shared_bytes, [&] { tile<K>(task); });
  if (plan.splits > 1) over(K::fragments, 0, [&] { reduce<K>(task); });
}

template <class T>
void run_half(const Task& task, Kernel kernel, unsigned seed) {
  if (kernel == Kernel::wide) return run<Half<T, WideCut>>(task, seed);
  if (kernel == Kernel::middle) return run<Half<T, MiddleCut>>(task, seed);
  return run<Half<T, NarrowCut>>(task, seed);
}

template <class T>
std::vector<T> packed(const Plan& plan, const T* weight, const T* skip_weight) {
  const int64_t channels = plan.shape.features + plan.shape.skip + (plan.shape.mask_height ? 1 : 0);
  const auto reader = [](const T* from, int64_t channels) {
    return [=](int filter, int channel, int tap) { return to_float(from[(filter * channels + channel) * 9 + tap]); };
  };
  std::vector<T> to(packed_size(plan));
  for (int64_t i = 0; i < static_cast<int64_t>(to.size()); ++i)
    to[i] = from_float<T>(packed_weight(plan, i, reader(weight, channels), reader(skip_weight, plan.shape.skip)));
  return to;
}

}  // namespace

// shape: count, height, width, features, skip, out, mask height, mask width, kept, phased, gated, stride; sizes and strides
// of features, skip, mask and result; weights contiguous. Returns null or what went wrong.
extern "C" const char* emulate(const int64_t* shape, int kernel, int type, int multiprocessors, unsigned seed,
                               const void* const* source, const int64_t (*size)[4], const int64_t (*stride)[4],
                               const void* weight, const void* skip_weight, const void* bias, const void* skip_bias,
                               float slope, void* out) {
  try {
    const auto at = [&](int i) { return static_cast<int>(shape[i]); };
    Task task{};
    const int skip_height = static_cast<int>(size[skip_source][2]), skip_width = static_cast<int>(size[skip_source][3]);
    task.plan = plan_weights({at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8) != 0, at(10) != 0, at(11),
                              skip_height, skip_width},
                             at(9) != 0);
    plan_tiles(task.plan, tile_of(static_cast<Kernel>(kernel)), multiprocessors);
    for (int i = 0; i < sources; ++i) task.source[i] = view_of(source[i], size[i], stride[i]);
    const View result = view_of(out, size[sources], stride[sources]);
    std::copy(result.stride, result.stride + 4, task.out_stride);
    task.out_pairs = type != 2 && steps_by(result, 2);
    task.bias = bias, task.skip_bias = skip_bias, task.out = out, task.slope = slope;
    const auto with = [&](auto element, const auto& go) {
      using T = decltype(element);
      const auto weights = packed(task.plan, static_cast<const T*>(weight), static_cast<const T*>(skip_weight));
      std::vector<char> aligned(weights.size() * sizeof(T) + 16);
      char* to = aligned.data() + (16 - reinterpret_cast<uintptr_t>(aligned.data()) % 16);
      std::memcpy(to, weights.data(), weights.size() * sizeof(T));
      task.packed = to;
      go();
    };
    const auto chosen = static_cast<Kernel>(kernel);
    if (type == 2)
      with(float{}, [&] { run<Full>(task, seed); });
    else if (type == 1)
      with(__nv_bfloat16{}, [&] { run_half<__nv_bfloat16>(task, chosen, seed); });
    else
      with(__half{}, [&] { run_half<__half>(task, chosen, seed); });
    return nullptr;
  } catch (const std::exception& caught) {
    error = caught.what();
    return error.c_str();
  }
}

// both and kept in place; runs of `run` numbers of grad, `count` times. Returns whether they went in groups of 16 bytes.
extern "C" int emulate_gradient(void* both, void* kept, const void* grad, int64_t count, int64_t run, int type,
                                float slope) {
  const GradientTask task{both, kept, grad, count, run, slope};
  const auto go = [&](auto element) {
    using T = decltype(element);
    constexpr int many = 16 / sizeof(T);
    const bool groups = in_groups<T>(task);
    for (int64_t i = 0; i < count * run / (groups ? many : 1); ++i)
      groups ? gate_gradient<T, many>(task, i) : gate_gradient<T, 1>(task, i);
    return groups;
  };
  return type == 2 ? go(float{}) : type == 1 ? go(__nv_bfloat16{}) : go(__half{});
}
