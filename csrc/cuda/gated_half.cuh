// float16 and bfloat16: tensor cores, mma.sync.m16n8k16 with float32 sums.
#pragma once

#include "gated_common.cuh"

namespace abpn::gated {

// Warps tile the block: each takes `row_fragments` x 16 pixels by `column_fragments` x 8 channels of every filter set.
template <class T, class Cut>
struct Half {
  using Element = T;
  static constexpr int pixels = Cut::pixels, outs = Cut::outs, threads = 32 * Cut::warp_rows * Cut::warp_columns;
  static constexpr int row_fragments = pixels / Cut::warp_rows / 16, column_fragments = outs / Cut::warp_columns / 8;
  static constexpr int fragments = row_fragments * column_fragments, stages = 4;
  // A row of shared memory is one step of a pixel or of a filter, four chunks of 16 bytes.
  static constexpr int row_bytes = step_size * 2, chunks = 4;
  static constexpr int stage_bytes = (pixels + filters * outs) * row_bytes;
  static constexpr int shared_bytes = stages * stage_bytes + pixels * 8;
  static constexpr int loaded_pixels = pixels * chunks / threads;

  static __device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / Cut::warp_columns; }
  static __device__ __forceinline__ int warp_column() { return threadIdx.x / 32 % Cut::warp_columns; }
  static __device__ __forceinline__ int row(int fragment, int e) {
    const int first = (warp_row() * row_fragments + fragment / column_fragments) * 16;
    return first + threadIdx.x % 32 / 4 + e / 2 * 8;
  }
  static __device__ __forceinline__ int column(int fragment, int e) {
    const int first = (warp_column() * column_fragments + fragment % column_fragments) * 8;
    return first + threadIdx.x % 4 * 2 + e % 2;
  }
  static __device__ __forceinline__ int loaded_pixel(int i) { return (threadIdx.x + i * threads) / chunks; }

  // Eight rows' chunks of the same number lie in eight different groups of banks.
  static __device__ __forceinline__ int place_in_stage(int row, int chunk) {
    return row * row_bytes + (chunk ^ (row / 2 % chunks)) * 16;
  }

  static __device__ __forceinline__ void load(const Task& task, const Place& place, int step,
                                              const Pixel (&pixel)[loaded_pixels], char* stage) {
    const int source = source_of(task.plan, step);
    load_pixels(task, source, step, pixel, stage);
    const int sets = filter_sets(task.plan, source), out = task.plan.shape.out;
    const T* packed = static_cast<const T*>(task.packed) + packed_at(task.plan, source, place.phase, step);
    constexpr int copies = filters * outs * chunks;
#pragma unroll
    for (int i = 0; i < (copies + threads - 1) / threads; ++i) {
      const int at = threadIdx.x + i * threads, row = at / chunks, chunk = at % chunks;
      if (row >= sets * outs) break;
      const int channel = place.first_out + row % outs;
      const bool valid = channel < out;
      const T* from = packed + (valid ? (row / outs * out + channel) * step_size + chunk * 8 : 0);
      gpu::copy16_once(stage + place_in_stage(pixels + row, chunk), from, valid);
    }
  }

  static __device__ __forceinline__ void load_pixels(const Task& task, int source, int step,
                                                     const Pixel (&pixel)[loaded_pixels], char* stage) {
    const View& view = task.source[source];
    const int chunk = threadIdx.x % chunks, k = step * step_size + chunk * 8;
    if (view.vectors) {
      int channel = 0, tap = 0;
      const bool some = locate(task.plan.segment[source], k, channel, tap);
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i) {
        int y = 0, x = 0;
        const bool valid = some && reach(task.plan, source, tap, pixel[i], y, x);
        const T* from = valid ? address<T>(view, pixel[i], channel, y, x) : static_cast<const T*>(view.data);
        gpu::copy16(stage + place_in_stage(loaded_pixel(i), chunk), from, valid);
      }
      return;
    }
    // Few channels, or of another layout: neighbouring threads take neighbouring k.
    const int first = step * step_size;
#pragma unroll 1
    for (int j = chunk; j < step_size; j += chunks) {
      int channel = 0, tap = 0;
      const bool some = locate(task.plan.segment[source], first + j, channel, tap);
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i)
        reinterpret_cast<T*>(stage + place_in_stage(loaded_pixel(i), j / 8))[j % 8] =
            some ? value_of<T>(task, source, channel, tap, pixel[i]) : from_float<T>(0.0f);
    }
  }

  template <int Sets>
  static __device__ __forceinline__ void multiply(const char* stage, float (&sum)[filters][fragments][4]) {
    const int lane = threadIdx.x % 32;
    uint32_t a[row_fragments][2][4];
#pragma unroll
    for (int i = 0; i < row_fragments; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (warp_row() * row_fragments + i) * 16 + lane % 16;
        gpu::load_matrices(a[i][half], stage + place_in_stage(row, half * 2 + lane / 16));
      }
#pragma unroll
    for (int set = 0; set < Sets; ++set)
#pragma unroll
      for (int j = 0; j < column_fragments; ++j) {
        // The whole step of eight filters.
        uint32_t b[4];
        const int row = pixels + set * outs + (warp_column() * column_fragments + j) * 8 + lane % 8;
        gpu::load_matrices(b, stage + place_in_stage(row, lane / 8));
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int i = 0; i < row_fragments; ++i)
            gpu::multiply_add<T>(sum[set][i * column_fragments + j], a[i][half], b[half * 2], b[half * 2 + 1]);
      }
  }
};

struct WideCut {
  static constexpr int pixels = wide_tile.pixels, outs = wide_tile.outs, warp_rows = 4, warp_columns = 2;
};
struct MiddleCut {
  static constexpr int pixels = middle_tile.pixels, outs = middle_tile.outs, warp_rows = 2, warp_columns = 2;
};
struct NarrowCut {
  static constexpr int pixels = narrow_tile.pixels, outs = narrow_tile.outs, warp_rows = 4, warp_columns = 1;
};

}  // namespace abpn::gated
