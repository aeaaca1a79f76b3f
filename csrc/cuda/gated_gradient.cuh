// The elementwise part of the gradient of F * G + S * (1 - G), each number read and written once.
#pragma once

#include "gated_common.cuh"
#include "gated_gradient.h"

namespace abpn::gated {

template <class T, int many>
struct alignas(many * sizeof(T)) Neighbours {
  T number[many];
};

__device__ __forceinline__ float before_activation(float x, float grad, float slope) {
  return x > 0.0f ? grad : slope * grad;
}

// The numbers of `grad` from i * many on.
template <class T, int many>
__device__ __forceinline__ void gate_gradient(const GradientTask& task, int64_t i) {
  using Group = Neighbours<T, many>;
  const int64_t run = task.run / many;
  Group* const features = static_cast<Group*>(task.both) + i + i / run * run;
  Group* const gates = features + run;
  Group* const skips = task.kept == nullptr ? nullptr : static_cast<Group*>(task.kept) + i;
  const Group grad = static_cast<const Group*>(task.grad)[i];
  Group feature = *features, gate = *gates, skip = skips == nullptr ? Group{} : *skips;
#pragma unroll
  for (int k = 0; k < many; ++k) {
    const float by = to_float(grad.number[k]), f = to_float(feature.number[k]), s = to_float(skip.number[k]);
    const float g = sigmoid<T>(to_float(gate.number[k])), not_g = 1.0f - g;
    const float difference = activated(f, task.slope) - activated(s, task.slope);
    feature.number[k] = from_float<T>(before_activation(f, by * g, task.slope));
    gate.number[k] = from_float<T>(by * difference * (g * not_g));
    skip.number[k] = from_float<T>(before_activation(s, by * not_g, task.slope));
  }
  *features = feature;
  *gates = gate;
  if (skips != nullptr) *skips = skip;
}

// As many numbers as 16 bytes hold, where every run begins on 16 bytes; else one.
template <class T>
inline bool in_groups(const GradientTask& task) {
  constexpr int64_t many = 16 / sizeof(T);
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return task.run % many == 0 && aligned(task.both) && aligned(task.kept) && aligned(task.grad);
}

}  // namespace abpn::gated
