// What the kernels of both precisions share: reading the virtual concatenation, the walk over k, and what follows it.
#pragma once

#include "device.cuh"
#include "gated_task.h"
#include "gated_weights.h"

namespace abpn::gated {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// Where a block of threads stands.
struct Place {
  int phase, split, first_out;
  int64_t first_pixel, block;
};

__device__ __forceinline__ Place place_of(const Plan& plan, unsigned pixel_block, unsigned out_block, unsigned split) {
  const int phase = static_cast<int>(pixel_block / plan.pixel_tiles);
  const int64_t tile = pixel_block - phase * plan.pixel_tiles;
  return {phase, static_cast<int>(split), static_cast<int>(out_block) * plan.tile.outs, tile * plan.tile.pixels,
          int64_t{pixel_block} * plan.out_tiles + out_block};
}

template <class T>
__device__ __forceinline__ const T* address(const View& view, const Pixel& pixel, int channel, int y, int x) {
  return static_cast<const T*>(view.data) + pixel.image * view.stride[0] + channel * view.stride[1] +
         y * view.stride[2] + x * view.stride[3];
}

// What one tap of a pixel reads, whatever the source.
template <class T>
__device__ __forceinline__ T value_of(const Task& task, int source, int channel, int tap, const Pixel& pixel) {
  int y, x;
  if (!reach(task.plan, source, tap, pixel, y, x)) return from_float<T>(0.0f);
  const View& view = task.source[source];
  if (source != mask_source) return *address<T>(view, pixel, channel, y, x);
  return from_float<T>(resized_mask(task.plan, y, x, [&](int row, int column) {
    return to_float(*address<T>(view, pixel, 0, row, column));
  }));
}

__device__ __forceinline__ int64_t out_offset(const Task& task, const Pixel& pixel) {
  if (!pixel.inside) return -1;
  return pixel.image * task.out_stride[0] + pixel.y * task.out_stride[2] + pixel.x * task.out_stride[3];
}

__device__ __forceinline__ float activated(float x, float slope) { return x > 0.0f ? x : slope * x; }

// F * G + S * (1 - G), or F * G, of one channel's sums.
template <class T>
__device__ __forceinline__ T blended(const Task& task, int channel, float feature, float gate, float skip) {
  const T* bias = static_cast<const T*>(task.bias);
  const float f = activated(feature + to_float(bias[channel]), task.slope);
  const float g = 1.0f / (1.0f + expf(-(gate + to_float(bias[task.plan.shape.out + channel]))));
  if (!task.plan.shape.kept) return from_float<T>(f * g);
  const float s = activated(skip + to_float(static_cast<const T*>(task.skip_bias)[channel]), task.slope);
  return from_float<T>(f * g + s * (1.0f - g));
}

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

// Two neighbouring channels of one pixel; `offset` is the pixel's, negative outside.
template <class T>
__device__ __forceinline__ void store_pair(const Task& task, int64_t offset, int channel, const float* feature,
                                           const float* gate, const float* skip) {
  const int channels = task.plan.shape.out;
  if (offset < 0 || channel >= channels) return;
  T* to = static_cast<T*>(task.out) + offset + channel * task.out_stride[1];
  const T first = blended<T>(task, channel, feature[0], gate[0], skip[0]);
  if (channel + 1 == channels) {
    *to = first;
    return;
  }
  const T second = blended<T>(task, channel + 1, feature[1], gate[1], skip[1]);
  if (task.out_pairs) {
    *reinterpret_cast<Pair<T>*>(to) = {first, second};
  } else {
    to[0] = first;
    to[task.out_stride[1]] = second;
  }
}

// The place in `partial` of one thread's four sums.
template <class K>
__device__ __forceinline__ float4* partial_at(const Task& task, int split, int64_t block, int filter, int fragment) {
  const int64_t blocks = task.plan.pixel_tiles * classes(task.plan) * task.plan.out_tiles;
  const int64_t at = ((split * blocks + block) * filters + filter) * K::fragments + fragment;
  return reinterpret_cast<float4*>(task.partial) + at * K::threads + threadIdx.x;
}

// One tile of one split. K says how a step is loaded and multiplied, and which of the sums a thread holds.
template <class K>
__device__ __forceinline__ void tile(const Task& task) {
  using T = typename K::Element;
  const Plan& plan = task.plan;
  const Place place = place_of(plan, blockIdx.x, blockIdx.y, blockIdx.z);
  int64_t* offsets = reinterpret_cast<int64_t*>(gpu::shared_memory());
  char* stages = gpu::shared_memory() + K::pixels * sizeof(int64_t);
  for (int i = threadIdx.x; i < K::pixels; i += K::threads)
    offsets[i] = out_offset(task, pixel_of(plan, place.phase, place.first_pixel + i));
  Pixel pixel[K::loaded_pixels];
#pragma unroll
  for (int i = 0; i < K::loaded_pixels; ++i)
    pixel[i] = pixel_of(plan, place.phase, place.first_pixel + K::loaded_pixel(i));

  const int begin = split_begin(plan, place.split), end = split_begin(plan, place.split + 1);
  float sum[filters][K::fragments][4] = {};
  int slot = 0;
  // The first rounds load only.
#pragma unroll 1
  for (int step = begin - (K::stages - 1); step < end; ++step) {
    if (step >= begin) {
      gpu::wait_for_copies<K::stages - 2>();
      gpu::synchronize();
    }
    // Into the slot that the step before has been read from.
    const int ahead = step + K::stages - 1;
    if (ahead < end) K::load(task, place, ahead, pixel, stages + (slot == 0 ? K::stages - 1 : slot - 1) * K::stage_bytes);
    gpu::commit_copies();
    if (step >= begin) {
      int within = step;
      if (filter_sets(plan, source_of(plan, within)) == filters)
        K::template multiply<filters>(stages + slot * K::stage_bytes, sum);
      else
        K::template multiply<filters - 1>(stages + slot * K::stage_bytes, sum);
    }
    slot = slot + 1 == K::stages ? 0 : slot + 1;
  }
  if (plan.splits > 1) {
    const int sets = split_has_skip(plan, place.split) ? filters : filters - 1;
#pragma unroll
    for (int f = 0; f < filters; ++f)
#pragma unroll
      for (int i = 0; i < K::fragments; ++i)
        if (f < sets)
          *partial_at<K>(task, place.split, place.block, f, i) =
              make_float4(sum[f][i][0], sum[f][i][1], sum[f][i][2], sum[f][i][3]);
    return;
  }
  gpu::synchronize();
#pragma unroll
  for (int i = 0; i < K::fragments; ++i)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      store_pair<T>(task, offsets[K::row(i, e)], place.first_out + K::column(i, e), &sum[feature_filter][i][e],
                    &sum[gate_filter][i][e], &sum[skip_filter][i][e]);
}

// Adds the sums of splits [begin, end), in their order, of which several are read at a time.
template <class K>
__device__ __forceinline__ void add_splits(const Task& task, int64_t block, int filter, int fragment, int begin, int end,
                                           float (&sum)[4]) {
  constexpr int ahead = 6;
#pragma unroll 1
  for (; begin < end; begin += ahead) {
    float4 part[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i)
      part[i] = *partial_at<K>(task, begin + i < end ? begin + i : begin, block, filter, fragment);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const bool there = begin + i < end;
      sum[0] += there ? part[i].x : 0.0f;
      sum[1] += there ? part[i].y : 0.0f;
      sum[2] += there ? part[i].z : 0.0f;
      sum[3] += there ? part[i].w : 0.0f;
    }
  }
}

// Adds the splits' sums, in their order, and finishes; a block of threads per fragment.
template <class K>
__device__ __forceinline__ void reduce(const Task& task) {
  using T = typename K::Element;
  const Plan& plan = task.plan;
  const Place place = place_of(plan, blockIdx.x, blockIdx.y, 0);
  const int fragment = blockIdx.z;
  int64_t offset[2];
  for (int e = 0; e < 2; ++e)
    offset[e] = out_offset(task, pixel_of(plan, place.phase, place.first_pixel + K::row(fragment, 2 * e)));
  float sum[filters][4] = {};
  add_splits<K>(task, place.block, feature_filter, fragment, 0, plan.splits, sum[feature_filter]);
  add_splits<K>(task, place.block, gate_filter, fragment, 0, plan.splits, sum[gate_filter]);
  add_splits<K>(task, place.block, skip_filter, fragment, plan.skip_begin, plan.skip_end, sum[skip_filter]);
#pragma unroll
  for (int e = 0; e < 4; e += 2)
    store_pair<T>(task, offset[e / 2], place.first_out + K::column(fragment, e), &sum[feature_filter][e],
                  &sum[gate_filter][e], &sum[skip_filter][e]);
}

}  // namespace abpn::gated
