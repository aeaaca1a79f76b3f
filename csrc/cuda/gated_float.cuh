// float32: fused multiply-adds as IEEE has them, no TF32.
#pragma once

#include "gated_common.cuh"

namespace abpn::gated {

// Each thread sums 4 pixels x 4 channels of every filter set.
struct Full {
  using Element = float;
  static constexpr int pixels = float_tile.pixels, outs = float_tile.outs, threads = 128;
  static constexpr int fragments = 4, stages = 2, columns = outs / 4;
  // k by pixels and k by filters; rows of 4 more words, so that 8 k of 4 neighbours are written to 32 banks.
  static constexpr int pixel_pitch = pixels + 4, filter_pitch = filters * outs + 4;
  static constexpr int stage_bytes = (pixel_pitch + filter_pitch) * step_size * 4;
  static constexpr int shared_bytes = stages * stage_bytes + pixels * 8;
  // Threads load 8 k of 16 pixels or filters at a time.
  static constexpr int lanes = 8, loaded_rows = threads / lanes, loaded_pixels = pixels / loaded_rows;

  static __device__ __forceinline__ int row(int fragment, int) { return threadIdx.x / columns * 4 + fragment; }
  static __device__ __forceinline__ int column(int, int e) { return threadIdx.x % columns * 4 + e; }
  static __device__ __forceinline__ int loaded_pixel(int i) { return threadIdx.x / lanes + i * loaded_rows; }

  static __device__ __forceinline__ void load(const Task& task, const Place& place, int step,
                                              const Pixel (&pixel)[loaded_pixels], char* stage) {
    const int source = source_of(task.plan, step), first = threadIdx.x % lanes;
    float* to = reinterpret_cast<float*>(stage);
#pragma unroll 1
    for (int k = first; k < step_size; k += lanes)
      load_pixels(task, source, step * step_size + k, pixel, to + k * pixel_pitch);
    to += step_size * pixel_pitch;
    const int sets = filter_sets(task.plan, source), out = task.plan.shape.out;
    const float* packed = static_cast<const float*>(task.packed) + packed_at(task.plan, source, place.phase, step);
    for (int row = threadIdx.x / lanes; row < sets * outs; row += loaded_rows) {
      const int channel = place.first_out + row % outs;
      const bool valid = channel < out;
      const float* from = packed + (valid ? (row / outs * out + channel) * step_size + first : 0);
#pragma unroll
      for (int k = 0; k < step_size; k += lanes)
        gpu::copy4(to + (k + first) * filter_pitch + row, from + k, valid);
    }
  }

  static __device__ __forceinline__ void load_pixels(const Task& task, int source, int k,
                                                     const Pixel (&pixel)[loaded_pixels], float* to) {
    const View& view = task.source[source];
    int channel = 0, tap = 0;
    const bool some = locate(task.plan.segment[source], k, channel, tap);
#pragma unroll
    for (int i = 0; i < loaded_pixels; ++i) {
      if (source == mask_source) {
        to[loaded_pixel(i)] = some ? value_of<float>(task, source, channel, tap, pixel[i]) : 0.0f;
        continue;
      }
      int y = 0, x = 0;
      const bool valid = some && reach(task.plan, source, tap, pixel[i], y, x);
      const float* from =
          valid ? address<float>(view, pixel[i], channel, y, x) : static_cast<const float*>(view.data);
      gpu::copy4(to + loaded_pixel(i), from, valid);
    }
  }

  template <int Sets>
  static __device__ __forceinline__ void multiply(const char* stage, float (&sum)[filters][fragments][4]) {
    const float* a = reinterpret_cast<const float*>(stage) + threadIdx.x / columns * 4;
    const float* b = reinterpret_cast<const float*>(stage) + step_size * pixel_pitch + threadIdx.x % columns * 4;
#pragma unroll 4
    for (int k = 0; k < step_size; ++k, a += pixel_pitch, b += filter_pitch) {
      const float4 rows = *reinterpret_cast<const float4*>(a);
      const float row[4] = {rows.x, rows.y, rows.z, rows.w};
#pragma unroll
      for (int set = 0; set < Sets; ++set) {
        const float4 weights = *reinterpret_cast<const float4*>(b + set * outs);
#pragma unroll
        for (int i = 0; i < fragments; ++i) {
          sum[set][i][0] = fmaf(row[i], weights.x, sum[set][i][0]);
          sum[set][i][1] = fmaf(row[i], weights.y, sum[set][i][1]);
          sum[set][i][2] = fmaf(row[i], weights.z, sum[set][i][2]);
          sum[set][i][3] = fmaf(row[i], weights.w, sum[set][i][3]);
        }
      }
    }
  }
};

}  // namespace abpn::gated
