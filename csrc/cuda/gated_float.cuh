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
  using Tables = gated::Tables<pixels>;
  static constexpr int shared_bytes = stages * stage_bytes + sizeof(Tables);

  static __device__ __forceinline__ int row(int fragment, int) { return threadIdx.x / columns * 4 + fragment; }
  static __device__ __forceinline__ int column(int, int e) { return threadIdx.x % columns * 4 + e; }

  static constexpr int rows = 4, pairs = 2;
  static constexpr ABPN_BOTH int fragment(int row, int) { return row; }
  static constexpr ABPN_BOTH int element(int, int pair) { return pair * 2; }

  // Loads every eighth k of every sixteenth pixel and filter.
  class Walk {
   public:
    __device__ __forceinline__ Walk(const Task& task, const Place& place, const Tables& tables, int step) {
      const int source = source_of(task.plan, step);
      enter(task, place, tables, source, step);
    }

    __device__ __forceinline__ void load(const Task& task, const Place& place, const Tables& tables, char* stage) {
      while (left_ == 0) enter(task, place, tables, source_ + 1, 0);
      float* to = reinterpret_cast<float*>(stage);
#pragma unroll 1
      for (int k = first_k(); k < step_size; k += lanes) load_pixels(task, tables, k, to + k * pixel_pitch);
      to += step_size * pixel_pitch;
      const int rows = filter_sets(task.plan, source_) * outs;
      for (int row = first_row(); row < rows; row += loaded_rows) {
        const int filter = filter_in(task.plan, place.first_out, row);
        if (filter < 0) continue;
        const float* from = weights_ + filter * step_size;
#pragma unroll
        for (int k = 0; k < step_size; k += lanes)
          gpu::copy4(to + (k + first_k()) * filter_pitch + row, from + k, true);
      }
      weights_ += packed_rows(task.plan, source_) * step_size;
      --left_;
    }

   private:
    static constexpr int lanes = 8, loaded_rows = threads / lanes, loaded_pixels = pixels / loaded_rows;

    static __device__ __forceinline__ int first_k() { return threadIdx.x % lanes; }
    static __device__ __forceinline__ int first_row() { return threadIdx.x / lanes; }

    __device__ __forceinline__ void enter(const Task& task, const Place& place, const Tables& tables, int source,
                                          int step) {
      source_ = source;
      left_ = task.plan.segment[source].steps - step;
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i)
        sight_[i] = sight_of<float>(task, source, tables.pixel[first_row() + i * loaded_rows]);
      weights_ = static_cast<const float*>(task.packed) + packed_at(task.plan, source, place.phase, step) + first_k();
    }

    __device__ __forceinline__ void load_pixels(const Task& task, const Tables& tables, int k, float* to) {
      const Segment& segment = task.plan.segment[source_];
      int channel, tap;
      const bool some = locate(segment, (segment.steps - left_) * step_size + k, channel, tap);
      const unsigned bit = some ? 1u << tap : 0;
      const int64_t of_channel = channel * task.source[source_].stride[1];
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i) {
        const int row = first_row() + i * loaded_rows;
        if (source_ == mask_source) {
          to[row] = some ? mask_under<float>(task, tap / 3, tap % 3, tables.pixel[row]) : 0.0f;
          continue;
        }
        const bool valid = sight_[i].inside & bit;
        const float* first = sight_[i].first;
        gpu::copy4(to + row, valid ? first + of_channel + tables.shift[sight_[i].row + tap] : first, valid);
      }
    }

    int source_, left_;
    // The thread's first k of the step's first filter.
    const float* weights_;
    Sight<float> sight_[loaded_pixels];
  };

  struct Reader {
    template <int Sets>
    __device__ __forceinline__ void multiply(const char* stage, float (&sum)[filters][fragments][4]) const {
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
};

}  // namespace abpn::gated
