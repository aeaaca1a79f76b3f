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
  using Tables = gated::Tables<pixels>;
  // A row of shared memory is one step of a pixel or of a filter, four chunks of 16 bytes.
  static constexpr unsigned row_bytes = step_size * 2, chunks = 4;
  static constexpr int stage_bytes = (pixels + filters * outs) * row_bytes;
  static constexpr int shared_bytes = stages * stage_bytes + sizeof(Tables);

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

  // Where the sums of a thread's pixels and of its pairs of channels are.
  static constexpr int rows = 2 * row_fragments, pairs = column_fragments;
  static constexpr ABPN_BOTH int fragment(int row, int pair) { return row / 2 * column_fragments + pair; }
  static constexpr ABPN_BOTH int element(int row, int) { return row % 2 * 2; }

  // Eight rows' chunks of the same number lie in eight different groups of banks; rows repeat that after eight.
  static __device__ __forceinline__ unsigned place_in_stage(unsigned row, unsigned chunk) {
    return row * row_bytes + (chunk ^ (row / 2 % chunks)) * 16;
  }

  // Loads one chunk of every `loaded_rows`-th pixel and filter.
  class Walk {
   public:
    __device__ __forceinline__ Walk(const Task& task, const Place& place, const Tables& tables, int step)
        : to_(gpu::kept(place_in_stage(first_row(), chunk()))) {
      const int source = source_of(task.plan, step);
      enter(task, place, tables, source, step);
    }

    __device__ __forceinline__ void load(const Task& task, const Place& place, const Tables& tables, char* stage) {
      while (left_ == 0) enter(task, place, tables, source_ + 1, 0);
      if (task.source[source_].vectors)
        load_vectors(task, tables, stage + to_);
      else if (source_ == mask_source)
        load_mask(task, tables, stage);
      else
        load_elements(task, tables, stage);
      char* to = stage + to_ + pixels * row_bytes;
      const T* from = weights_;
#pragma unroll
      for (int i = 0; i < loaded_filters; ++i, from += next_filter_)
        if (i < filters_) gpu::copy16_once(to + i * loaded_rows * row_bytes, from);
      weights_ += weights_of_step_;
      --left_;
    }

   private:
    static constexpr int loaded_rows = threads / chunks, loaded_pixels = pixels / loaded_rows;
    static constexpr int loaded_filters = (filters * outs + loaded_rows - 1) / loaded_rows;
    static_assert(loaded_rows % outs == 0, "a thread's filters of a gated convolution are of one channel");
    static_assert(loaded_rows % 8 == 0, "a thread's chunks lie in one place of their rows");

    static __device__ __forceinline__ unsigned chunk() { return threadIdx.x % chunks; }
    static __device__ __forceinline__ unsigned first_row() { return threadIdx.x / chunks; }

    __device__ __forceinline__ void enter(const Task& task, const Place& place, const Tables& tables, int source,
                                          int step) {
      const Segment& segment = task.plan.segment[source];
      source_ = source;
      left_ = segment.steps - step;
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i)
        sight_[i] = sight_of<T>(task, source, tables.pixel[first_row() + i * loaded_rows]);
      if (task.source[source].vectors) {
        int channel;
        locate(segment, step * step_size + chunk() * 8, channel, tap_);
        channels_left_ = segment.channels - channel;
#pragma unroll
        for (int i = 0; i < loaded_pixels; ++i) sight_[i].first += channel;
      }
      const int rows = filter_sets(task.plan, source) * outs;
      filters_ = 0;
#pragma unroll
      for (int i = 0; i < loaded_filters; ++i) {
        const int row = first_row() + i * loaded_rows;
        if (row < rows && filter_in(task.plan, place.first_out, row) >= 0) filters_ = i + 1;
      }
      next_filter_ = (task.plan.shape.gated ? loaded_rows / outs * task.plan.shape.out : loaded_rows) * step_size;
      weights_of_step_ = packed_rows(task.plan, source) * step_size;
      weights_ = static_cast<const T*>(task.packed) + packed_at(task.plan, source, place.phase, step);
      if (filters_ > 0)
        weights_ += int64_t{filter_in(task.plan, place.first_out, first_row())} * step_size + chunk() * 8;
    }

    __device__ __forceinline__ void load_vectors(const Task& task, const Tables& tables, char* to) {
      const unsigned tap = channels_left_ > 0 ? 1u << tap_ : 0;
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i) {
        const bool valid = sight_[i].inside & tap;
        const T* from = valid ? sight_[i].first + tables.shift[sight_[i].row + tap_] : sight_[i].first;
        gpu::copy16(to + i * loaded_rows * row_bytes, from, valid);
      }
      const Segment& segment = task.plan.segment[source_];
      const int channels = advance(segment, tap_);
      channels_left_ -= channels;
#pragma unroll
      for (int i = 0; i < loaded_pixels; ++i) sight_[i].first += channels;
    }

    static __device__ __forceinline__ T& element(char* stage, unsigned row, unsigned k) {
      return reinterpret_cast<T*>(stage + place_in_stage(row, k / 8))[k % 8];
    }

    // Few channels, or of another layout: neighbouring threads take neighbouring k.
    __device__ __forceinline__ void load_elements(const Task& task, const Tables& tables, char* stage) {
      const Segment& segment = task.plan.segment[source_];
      const int first = (segment.steps - left_) * step_size;
#pragma unroll 1
      for (unsigned k = chunk(); k < step_size; k += chunks) {
        int channel, tap;
        const unsigned bit = locate(segment, first + k, channel, tap) ? 1u << tap : 0;
        const int64_t of_channel = channel * task.source[source_].stride[1];
        T value[loaded_pixels];
#pragma unroll
        for (int i = 0; i < loaded_pixels; ++i)
          value[i] = sight_[i].inside & bit ? sight_[i].first[tables.shift[sight_[i].row + tap] + of_channel]
                                            : from_float<T>(0.0f);
#pragma unroll
        for (int i = 0; i < loaded_pixels; ++i) element(stage, first_row() + i * loaded_rows, k) = value[i];
      }
    }

    // Nine taps and zeros; three of a pixel's four threads take a row of taps each.
    __device__ __forceinline__ void load_mask(const Task& task, const Tables& tables, char* stage) {
#pragma unroll 1
      for (unsigned row = first_row(); row < pixels; row += loaded_rows) {
#pragma unroll
        for (unsigned k = chunk() * 8; k < chunk() * 8 + 8; ++k)
          if (k >= most_taps) element(stage, row, k) = from_float<T>(0.0f);
        if (chunk() == 3) continue;
        T values[3];
#pragma unroll
        for (int column = 0; column < 3; ++column)
          values[column] = mask_under<T>(task, chunk(), column, tables.pixel[row]);
#pragma unroll
        for (int column = 0; column < 3; ++column) element(stage, row, chunk() * 3 + column) = values[column];
      }
    }

    // Of the stage: where the thread's first chunk lies.
    unsigned to_;
    int source_, left_, tap_, channels_left_;
    // Of the thread's filters: how many exist, and where the first is; rows of others are never written, nor used.
    int filters_, next_filter_, weights_of_step_;
    const T* weights_;
    Sight<T> sight_[loaded_pixels];
  };

  class Reader {
   public:
    __device__ __forceinline__ Reader() {
      const unsigned lane = threadIdx.x % 32;
      pixels_ = gpu::kept(place_in_stage(warp_row() * row_fragments * 16 + lane % 16, lane / 16));
      filters_ = gpu::kept(place_in_stage(pixels + warp_column() * column_fragments * 8 + lane % 8, lane / 8));
    }

    template <int Sets>
    __device__ __forceinline__ void multiply(const char* stage, float (&sum)[filters][fragments][4]) const {
      uint32_t a[row_fragments][2][4];
#pragma unroll
      for (int i = 0; i < row_fragments; ++i)
#pragma unroll
        for (unsigned half = 0; half < 2; ++half)
          // The second half is two chunks further: another bit of the chunk's number, wherever the row puts it.
          gpu::load_matrices(a[i][half], stage + (pixels_ ^ half * 32) + i * 16 * row_bytes);
#pragma unroll
      for (int set = 0; set < Sets; ++set)
#pragma unroll
        for (int j = 0; j < column_fragments; ++j) {
          // The whole step of eight filters.
          uint32_t b[4];
          gpu::load_matrices(b, stage + filters_ + (set * outs + j * 8) * row_bytes);
#pragma unroll
          for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < row_fragments; ++i)
              gpu::multiply_add<T>(sum[set][i * column_fragments + j], a[i][half], b[half * 2], b[half * 2 + 1]);
        }
    }

   private:
    // Of the stage: the rows of the warp's first pixels and filters, of which each lane gives the address of one chunk.
    unsigned pixels_, filters_;
  };
};

struct WideCut {
  static constexpr int pixels = wide_tile.pixels, outs = wide_tile.outs, warp_rows = 2, warp_columns = 4;
};
struct MiddleCut {
  static constexpr int pixels = middle_tile.pixels, outs = middle_tile.outs, warp_rows = 2, warp_columns = 2;
};
struct NarrowCut {
  static constexpr int pixels = narrow_tile.pixels, outs = narrow_tile.outs, warp_rows = 4, warp_columns = 1;
};

}  // namespace abpn::gated
