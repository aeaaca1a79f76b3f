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
  return {phase, static_cast<int>(split), static_cast<int>(out_block) * tile_channels(plan), tile * plan.tile.pixels,
          int64_t{pixel_block} * plan.out_tiles + out_block};
}

template <class T>
__device__ __forceinline__ const T* address(const View& view, const Pixel& pixel, int channel, int y, int x) {
  return static_cast<const T*>(view.data) + pixel.image * view.stride[0] + channel * view.stride[1] +
         y * view.stride[2] + x * view.stride[3];
}

// One tap of the resized mask. What is outside is read where it would be inside, so that the taps of a row have no
// branches between them and share what they have in common.
template <class T>
__device__ __forceinline__ T mask_under(const Task& task, int row, int column, const Pixel& pixel) {
  const int y = pixel.y - 1 + row, near_y = min(max(y, 0), task.plan.shape.height - 1);
  const int x = pixel.x - 1 + column, near_x = min(max(x, 0), task.plan.shape.width - 1);
  const Pixel near{max(pixel.image, 0), 0, 0};
  const float value = resized_mask(task.plan, near_y, near_x, [&](int row, int column) {
    return to_float(*address<T>(task.source[mask_source], near, 0, row, column));
  });
  return from_float<T>(pixel.image >= 0 && y == near_y && x == near_x ? value : 0.0f);
}

// What a block looks up, in shared memory before its stages.
template <int pixels>
struct alignas(16) Tables {
  // In elements, from the first tap that a pixel sees to each: four rows for the features, by odd row and column of the
  // pixel's window, and one for the skip.
  static constexpr int rows = 5;
  int64_t shift[rows * most_taps];
  Pixel pixel[pixels];

  __device__ __forceinline__ void fill(const Task& task, const Place& place, int thread, int threads) {
    for (int i = thread; i < pixels; i += threads)
      pixel[i] = pixel_of(task.plan, place.phase, place.first_pixel + i);
    if (thread >= rows * most_taps) return;
    const int row = thread / most_taps, source = row < 4 ? features_source : skip_source;
    const Shift by = shift_of(task.plan, source, {0, 0, 0, row / 2, row % 2}, thread % most_taps);
    shift[thread] = by.rows * task.source[source].stride[2] + by.columns * task.source[source].stride[3];
  }
};

// What a pixel sees of features or skip: the address of its first tap, inside or not, and its row of shifts.
template <class T>
struct Sight {
  const T* first;
  unsigned inside;
  int row;
};

template <class T>
__device__ __forceinline__ Sight<T> sight_of(const Task& task, int source, const Pixel& pixel) {
  const Window seen = window(task.plan, source, pixel);
  const int row = source == features_source ? 2 * seen.odd_y + seen.odd_x : 4;
  return {address<T>(task.source[source], pixel, 0, seen.y, seen.x), seen.inside, most_taps * row};
}

__device__ __forceinline__ int64_t out_offset(const Task& task, const Pixel& pixel) {
  if (pixel.image < 0) return -1;
  return pixel.image * task.out_stride[0] + pixel.y * task.out_stride[2] + pixel.x * task.out_stride[3];
}

__device__ __forceinline__ float activated(float x, float slope) { return x > 0.0f ? x : slope * x; }

// Two neighbouring channels of the result, of which the second may not exist, and the biases of their filters.
struct Pair {
  int count;
  int64_t offset;
  float bias[filters][2];
};

template <class T>
__device__ __forceinline__ Pair pair_of(const Task& task, int channel) {
  const int channels = task.plan.shape.out;
  Pair pair{channel + 1 < channels ? 2 : channel < channels ? 1 : 0, channel * task.out_stride[1], {}};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (i >= pair.count) break;
    const T* bias = static_cast<const T*>(task.bias) + channel + i;
    pair.bias[feature_filter][i] = to_float(*bias);
    if (task.plan.shape.gated) pair.bias[gate_filter][i] = to_float(bias[channels]);
    if (task.plan.shape.kept) pair.bias[skip_filter][i] = to_float(static_cast<const T*>(task.skip_bias)[channel + i]);
  }
  return pair;
}

template <class T>
__device__ __forceinline__ float sigmoid(float x) {
  return sizeof(T) == 2 ? gpu::fast_sigmoid(x) : 1.0f / (1.0f + expf(-x));
}

// F * G + S * (1 - G), or F * G, of one channel's sums with their biases.
template <class T>
__device__ __forceinline__ T blended(const Task& task, float feature, float gate, float skip) {
  const float f = activated(feature, task.slope);
  const float g = sigmoid<T>(gate);
  if (!task.plan.shape.kept) return from_float<T>(f * g);
  return from_float<T>(f * g + activated(skip, task.slope) * (1.0f - g));
}

template <class T>
struct alignas(2 * sizeof(T)) Two {
  T first, second;
};

// `offset` is the pixel's, negative outside.
template <class T>
__device__ __forceinline__ void store(const Task& task, int64_t offset, const Pair& pair, const Two<T>& results) {
  if (offset < 0 || pair.count == 0) return;
  T* to = static_cast<T*>(task.out) + offset + pair.offset;
  if (task.out_pairs && pair.count == 2) {
    *reinterpret_cast<Two<T>*>(to) = results;
    return;
  }
  to[0] = results.first;
  if (pair.count == 2) to[task.out_stride[1]] = results.second;
}

// One pixel's results of a pair of channels from their sums.
template <class T>
__device__ __forceinline__ void store_gated(const Task& task, int64_t offset, const Pair& pair, const float* feature,
                                            const float* gate, const float* skip) {
  const auto result = [&](int i) {
    return blended<T>(task, feature[i] + pair.bias[feature_filter][i], gate[i] + pair.bias[gate_filter][i],
                      skip[i] + pair.bias[skip_filter][i]);
  };
  store<T>(task, offset, pair, {result(0), result(1)});
}

template <class T>
__device__ __forceinline__ void store_alone(const Task& task, int64_t offset, const Pair& pair, const float* sum) {
  const auto result = [&](int i) {
    return from_float<T>(activated(sum[i] + pair.bias[feature_filter][i], task.slope));
  };
  store<T>(task, offset, pair, {result(0), result(1)});
}

// The place in `partial` of one thread's four sums.
template <class K>
__device__ __forceinline__ float4* partial_at(const Task& task, int split, int64_t block, int filter, int fragment) {
  const int64_t blocks = task.plan.pixel_tiles * classes(task.plan) * task.plan.out_tiles;
  const int64_t at = ((split * blocks + block) * filters + filter) * K::fragments + fragment;
  return reinterpret_cast<float4*>(task.partial) + at * K::threads + threadIdx.x;
}

template <class K>
__device__ __forceinline__ void finish_gated(const Task& task, const Place& place, const typename K::Tables& tables,
                                             const float (&sum)[filters][K::fragments][4]) {
  using T = typename K::Element;
  Pair pair[K::pairs];
#pragma unroll
  for (int p = 0; p < K::pairs; ++p)
    pair[p] = pair_of<T>(task, place.first_out + K::column(K::fragment(0, p), K::element(0, p)));
#pragma unroll
  for (int r = 0; r < K::rows; ++r) {
    const int64_t offset = out_offset(task, tables.pixel[K::row(K::fragment(r, 0), K::element(r, 0))]);
#pragma unroll
    for (int p = 0; p < K::pairs; ++p) {
      const int i = K::fragment(r, p), e = K::element(r, p);
      store_gated<T>(task, offset, pair[p], &sum[feature_filter][i][e], &sum[gate_filter][i][e],
                     &sum[skip_filter][i][e]);
    }
  }
}

template <class K>
__device__ __forceinline__ void finish_alone(const Task& task, const Place& place, const typename K::Tables& tables,
                                             const float (&sum)[filters][K::fragments][4]) {
  using T = typename K::Element;
  Pair pair[filters][K::pairs];
#pragma unroll
  for (int set = 0; set < filters; ++set)
#pragma unroll
    for (int p = 0; p < K::pairs; ++p)
      pair[set][p] =
          pair_of<T>(task, place.first_out + set * K::outs + K::column(K::fragment(0, p), K::element(0, p)));
#pragma unroll
  for (int r = 0; r < K::rows; ++r) {
    const int64_t offset = out_offset(task, tables.pixel[K::row(K::fragment(r, 0), K::element(r, 0))]);
#pragma unroll
    for (int set = 0; set < filters; ++set)
#pragma unroll
      for (int p = 0; p < K::pairs; ++p)
        store_alone<T>(task, offset, pair[set][p], &sum[set][K::fragment(r, p)][K::element(r, p)]);
  }
}

// One tile of one split. K says how a step is loaded (Walk), how it is multiplied (Reader), and which of the sums a
// thread holds: those of `rows` pixels and `pairs` of channels.
template <class K>
__device__ __forceinline__ void tile(const Task& task) {
  const Plan& plan = task.plan;
  const Place place = place_of(plan, blockIdx.x, blockIdx.y, blockIdx.z);
  auto& tables = *reinterpret_cast<typename K::Tables*>(gpu::shared_memory());
  char* stages = gpu::shared_memory() + sizeof(tables);
  tables.fill(task, place, threadIdx.x, K::threads);
  gpu::synchronize();

  const int begin = split_begin(plan, place.split), end = split_begin(plan, place.split + 1);
  const Steps third = steps_of_third(plan);
  typename K::Walk walk(task, place, tables, begin);
  const typename K::Reader reader;
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
    if (step + K::stages - 1 < end)
      walk.load(task, place, tables, stages + (slot == 0 ? K::stages - 1 : slot - 1) * K::stage_bytes);
    gpu::commit_copies();
    if (step >= begin) {
      if (step >= third.begin && step < third.end)
        reader.template multiply<filters>(stages + slot * K::stage_bytes, sum);
      else
        reader.template multiply<filters - 1>(stages + slot * K::stage_bytes, sum);
    }
    slot = slot + 1 == K::stages ? 0 : slot + 1;
  }
  if (plan.splits > 1) {
    const int sets = split_has_third(plan, place.split) ? filters : filters - 1;
#pragma unroll
    for (int f = 0; f < filters; ++f)
#pragma unroll
      for (int i = 0; i < K::fragments; ++i)
        if (f < sets)
          *partial_at<K>(task, place.split, place.block, f, i) =
              make_float4(sum[f][i][0], sum[f][i][1], sum[f][i][2], sum[f][i][3]);
    return;
  }
  if (plan.shape.gated)
    finish_gated<K>(task, place, tables, sum);
  else
    finish_alone<K>(task, place, tables, sum);
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
  add_splits<K>(task, place.block, skip_filter, fragment, plan.third_begin, plan.third_end, sum[skip_filter]);
#pragma unroll
  for (int e = 0; e < 4; e += 2) {
    const int channel = place.first_out + K::column(fragment, e);
    if (plan.shape.gated) {
      store_gated<T>(task, offset[e / 2], pair_of<T>(task, channel), &sum[feature_filter][e], &sum[gate_filter][e],
                     &sum[skip_filter][e]);
      continue;
    }
#pragma unroll
    for (int set = 0; set < filters; ++set)
      store_alone<T>(task, offset[e / 2], pair_of<T>(task, channel + set * K::outs), &sum[set][e]);
  }
}

}  // namespace abpn::gated
