// What a launch hands to the kernels of the gated convolution.
#pragma once

#include "gated_plan.h"

namespace abpn::gated {

struct View {
  const void* data;
  // In elements, of (N, C, H, W).
  int64_t stride[4];
  // Two-byte channels are neighbours, eight at a time on 16 bytes.
  bool vectors;
};

inline bool steps_by(const View& view, int64_t elements) {
  return view.stride[1] == 1 && view.stride[0] % elements == 0 && view.stride[2] % elements == 0 &&
         view.stride[3] % elements == 0 && reinterpret_cast<uintptr_t>(view.data) % (2 * elements) == 0;
}

inline View view_of(const void* data, const int64_t* size, const int64_t* stride) {
  View view{data, {}, false};
  // One of something may have any stride.
  for (int i = 0; i < 4; ++i) view.stride[i] = size[i] == 1 && i != 1 ? 0 : stride[i];
  view.vectors = size[1] % 8 == 0 && steps_by(view, 8);
  return view;
}

struct Task {
  Plan plan;
  View source[sources];
  // In the order of gated_weights.h, in the dtype of the sources.
  const void* packed;
  const void* bias;
  const void* skip_bias;
  void* out;
  int64_t out_stride[4];
  // Two neighbouring two-byte channels of the result share an aligned pair.
  bool out_pairs;
  float slope;
  // Sums of the splits: [split][block][filter][fragment][thread][4]; null without.
  float* partial;
};

// The arguments that are packed: a strided (O, C, 3, 3) tensor.
struct Weight {
  const void* data;
  int64_t stride[4];
};

enum class Type { half, bfloat16, single };

// Each returns null, or the CUDA error's message.
const char* launch(const Task& task, Kernel kernel, Type type, void* stream);
const char* launch_packing(const Plan& plan, const Weight& weight, const Weight& skip_weight, void* packed, Type type,
                           void* stream);
// 4 bytes each: the sums that `launch` needs room for.
int64_t partial_size(const Plan& plan, Kernel kernel);

}  // namespace abpn::gated
