// How one gated convolution, or a convolution alone, is cut into tiles, and where each number of its virtual
// concatenation comes from: plain index arithmetic, compiled for the GPU's kernels, their launches and the twin that
// checks both on a CPU.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define ABPN_BOTH __host__ __device__ __forceinline__
#else
#define ABPN_BOTH inline
#endif

namespace abpn::gated {

// As a matrix product: a row per pixel, a column per filter, and k over the taps of every channel that is concatenated.
// k is walked in steps; the last step of a source is padded with zeros.
constexpr int step_size = 32;

enum Source { features_source = 0, skip_source = 1, mask_source = 2, sources = 3 };
// Of a 3x3 filter; where there are classes, features have four.
constexpr int most_taps = 9;
// Filters of a tile: those of F and of G, and of S where the skip is kept. A convolution alone has three parts of one
// set.
enum Filter { feature_filter = 0, gate_filter = 1, skip_filter = 2, filters = 3 };

struct Shape {
  int count, height, width;
  int features, skip, out;
  // 0 without a mask.
  int mask_height, mask_width;
  bool kept;
  // Else leaky(F) alone, whose skip may have a stride of 2 and then has a size of its own.
  bool gated = true;
  int stride = 1, skip_height = 0, skip_width = 0;
};

// k of one source: blocks of `run` channels, in each the taps, in each the channels of the block.
struct Segment {
  // 4 or 9 taps; run is 1 << shift where that is not negative.
  int channels, run, shift, taps, steps;
  // The place of its weights (gated_weights.h).
  int64_t packed;
};

// Pixels and output channels that one block of threads computes, and how many such blocks a multiprocessor holds.
struct Tile {
  int pixels, outs, resident;
};
constexpr Tile wide_tile{128, 64, 1}, middle_tile{64, 32, 3}, narrow_tile{128, 8, 4}, float_tile{64, 32, 3};
enum class Kernel { wide, middle, narrow, full };

struct Plan {
  Shape shape;
  // Even and odd rows and columns apart: four classes of pixels, in each of which nearest upsampling and a 3x3 filter
  // are one 2x2 filter of summed weights over the low features.
  bool phased;
  Segment segment[sources];
  float mask_row_scale, mask_column_scale;
  Tile tile;
  int64_t pixel_tiles;  // of one class
  int out_tiles, splits;
  // The splits that meet the third set of filters; `reduce` would else divide for every split.
  int third_begin, third_end;
};

struct Pixel {
  // -1 outside.
  int image, y, x;
};

ABPN_BOTH int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

ABPN_BOTH int classes(const Plan& plan) { return plan.phased ? 4 : 1; }
// Filters that meet a source: S's only the skip.
ABPN_BOTH int filter_sets(const Plan& plan, int source) {
  return !plan.shape.gated || (source == skip_source && plan.shape.kept) ? 3 : 2;
}

ABPN_BOTH int packed_rows(const Plan& plan, int source) {
  return plan.shape.gated ? filter_sets(plan, source) * plan.shape.out : plan.shape.out;
}

// Channels of the result that a tile computes.
ABPN_BOTH int tile_channels(const Plan& plan) { return plan.shape.gated ? plan.tile.outs : filters * plan.tile.outs; }

// The filter, as they are packed, in row `row` of a tile's weights; negative past the last channel.
ABPN_BOTH int filter_in(const Plan& plan, int first_out, int row) {
  const int out = plan.shape.out;
  if (!plan.shape.gated) return first_out + row < out ? first_out + row : -1;
  const int set = row / plan.tile.outs, channel = first_out + row - set * plan.tile.outs;
  return channel < out ? set * out + channel : -1;
}

ABPN_BOTH int64_t packed_size(const Plan& plan, int source) {
  const int64_t size = int64_t{plan.segment[source].steps} * packed_rows(plan, source) * step_size;
  return source == features_source ? size * classes(plan) : size;
}

// The longest run of channels, a power of two up to a step, that all blocks can have; an odd number of channels is one.
inline int run_of(int channels) {
  for (int run = step_size; run >= 8; run /= 2)
    if (channels % run == 0) return run;
  return channels;
}

inline Segment segment_of(int channels, int taps) {
  const int run = run_of(channels), steps = static_cast<int>(parts(int64_t{channels} * taps, step_size));
  int shift = -1;
  for (int bit = 0; bit < 31; ++bit)
    if (run == 1 << bit) shift = bit;
  return {channels, run, shift, taps, steps, 0};
}

// Classes save 5 of 9 multiplications of the features and cost 7 of 9 more of their weights to read: worth it from two
// full tiles of pixels per class on. The sizes must be even, or a summed weight would reach past the edge.
inline bool worth_phases(const Shape& shape) {
  return shape.height % 2 == 0 && shape.width % 2 == 0 && int64_t{shape.count} * shape.height * shape.width >= 1024;
}

// Of bilinear resizing.
ABPN_BOTH float scale_of(int size, int resized) { return static_cast<float>(size) / static_cast<float>(resized); }

// What the packed weights depend on; the rest of the plan is added by `plan_tiles`.
inline Plan plan_weights(const Shape& shape, bool phased) {
  Plan plan{};
  plan.shape = shape;
  if (shape.stride == 1) plan.shape.skip_height = shape.height, plan.shape.skip_width = shape.width;
  plan.phased = phased;
  plan.segment[features_source] = segment_of(shape.features, phased ? 4 : most_taps);
  plan.segment[skip_source] = segment_of(shape.skip, most_taps);
  plan.segment[mask_source] = segment_of(shape.mask_height ? 1 : 0, most_taps);
  plan.mask_row_scale = scale_of(shape.mask_height, shape.height);
  plan.mask_column_scale = scale_of(shape.mask_width, shape.width);
  int64_t packed = 0;
  for (int source = 0; source < sources; ++source) {
    plan.segment[source].packed = packed;
    packed += packed_size(plan, source);
  }
  return plan;
}

ABPN_BOTH int steps(const Plan& plan) {
  return plan.segment[0].steps + plan.segment[1].steps + plan.segment[2].steps;
}

ABPN_BOTH int64_t class_pixels(const Plan& plan) {
  return int64_t{plan.shape.count} * plan.shape.height * plan.shape.width / classes(plan);
}

inline Tile tile_of(Kernel kernel) {
  return kernel == Kernel::wide     ? wide_tile
         : kernel == Kernel::middle ? middle_tile
         : kernel == Kernel::narrow ? narrow_tile
                                    : float_tile;
}

// The kernel for half precisions.
inline Kernel half_kernel(const Plan& plan) {
  const int sets = plan.shape.gated ? 1 : filters;
  if (plan.shape.out <= sets * narrow_tile.outs) return Kernel::narrow;
  const bool wide = plan.shape.out > sets * middle_tile.outs && class_pixels(plan) > middle_tile.pixels;
  return wide ? Kernel::wide : Kernel::middle;
}

// The first step of split `index`: equal shares of the cost, which is that of the filters a step meets.
ABPN_BOTH int split_begin(const Plan& plan, int index) {
  const int64_t features = plan.segment[0].steps, skip = plan.segment[1].steps, mask = plan.segment[2].steps;
  const int64_t of_skip = filter_sets(plan, skip_source), of_others = filter_sets(plan, features_source);
  const int64_t share = (of_others * (features + mask) + of_skip * skip) * index / plan.splits;
  if (share <= of_others * features) return static_cast<int>(share / of_others);
  const int64_t after = share - of_others * features;
  if (after <= of_skip * skip) return static_cast<int>(features + after / of_skip);
  return static_cast<int>(features + skip + (after - of_skip * skip) / of_others);
}

// The steps that meet the third set of filters.
struct Steps {
  int begin, end;
};
ABPN_BOTH Steps steps_of_third(const Plan& plan) {
  const int features = plan.segment[0].steps, skip = plan.segment[1].steps;
  if (!plan.shape.gated) return {0, steps(plan)};
  return {features, plan.shape.kept ? features + skip : features};
}

ABPN_BOTH bool split_has_third(const Plan& plan, int index) {
  const Steps third = steps_of_third(plan);
  return third.begin < third.end && split_begin(plan, index) < third.end && split_begin(plan, index + 1) > third.begin;
}

// k is split between blocks of threads until they fill the GPU, each with at least four steps.
inline void plan_tiles(Plan& plan, Tile tile, int multiprocessors) {
  plan.tile = tile;
  plan.pixel_tiles = parts(class_pixels(plan), tile.pixels);
  plan.out_tiles = static_cast<int>(parts(plan.shape.out, tile_channels(plan)));
  const int64_t blocks = plan.pixel_tiles * classes(plan) * plan.out_tiles;
  const int64_t most = steps(plan) / 4, wanted = blocks ? int64_t{multiprocessors} * tile.resident / blocks : 1;
  plan.splits = static_cast<int>(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
  plan.third_begin = plan.third_end = 0;
  for (int split = 0; split < plan.splits; ++split) {
    if (!split_has_third(plan, split)) continue;
    if (plan.third_end == 0) plan.third_begin = split;
    plan.third_end = split + 1;
  }
}

// From a step of all to one of its source.
ABPN_BOTH int source_of(const Plan& plan, int& step) {
  int source = 0;
  while (source < mask_source && step >= plan.segment[source].steps) step -= plan.segment[source++].steps;
  return source;
}

// The channel and tap that k stands for; false for padding.
ABPN_BOTH bool locate(const Segment& segment, int k, int& channel, int& tap) {
  const int block = segment.shift >= 0 ? k >> segment.shift : k / segment.run, inner = k - block * segment.run;
  const int outer = segment.taps == 4 ? block / 4 : block / 9;
  tap = block - outer * segment.taps;
  channel = outer * segment.run + inner;
  return channel < segment.channels;
}

// From k to k + step_size, for runs of at most a step; returns how many channels on.
ABPN_BOTH int advance(const Segment& segment, int& tap) {
  tap += step_size >> segment.shift;
  if (tap < segment.taps) return 0;
  tap -= segment.taps;
  return segment.run;
}

// Pixel `index` of a class.
ABPN_BOTH Pixel pixel_of(const Plan& plan, int phase, int64_t index) {
  const int width = plan.phased ? plan.shape.width / 2 : plan.shape.width;
  const int height = plan.phased ? plan.shape.height / 2 : plan.shape.height;
  const int64_t row = index / width;
  const int image = static_cast<int>(row / height), x = static_cast<int>(index - row * width);
  const int y = static_cast<int>(row - int64_t{image} * height);
  if (index >= class_pixels(plan)) return {-1, 0, 0};
  return plan.phased ? Pixel{image, 2 * y + phase / 2, 2 * x + phase % 2} : Pixel{image, y, x};
}

// What a pixel sees of a source: where its first tap falls, which of the taps are inside, a bit each, and, where two
// taps can fall on one low pixel, whether the first is the second of two. Of the mask in pixels of the result.
struct Window {
  int y, x;
  unsigned inside;
  int odd_y, odd_x;
};

// Bits of the three places from `first` on that are at least 0 and below `end`.
ABPN_BOTH unsigned places_inside(int first, int end) {
  return (first >= 0 && first < end) | (first >= -1 && first + 1 < end) << 1 | (first >= -2 && first + 2 < end) << 2;
}

ABPN_BOTH bool has_classes(const Plan& plan, int source) { return source == features_source && plan.phased; }
ABPN_BOTH bool is_doubled(const Plan& plan, int source) { return source == features_source && !plan.phased; }

ABPN_BOTH Window window(const Plan& plan, int source, const Pixel& pixel) {
  const int stride = source == skip_source ? plan.shape.stride : 1;
  const int y = stride * pixel.y - 1, x = stride * pixel.x - 1;
  if (has_classes(plan, source)) {
    const unsigned rows = places_inside(y >> 1, plan.shape.height / 2);
    const unsigned columns = places_inside(x >> 1, plan.shape.width / 2) & 3;
    const unsigned taps = columns * ((rows & 1) | (rows & 2) << 1);
    return {y >> 1, x >> 1, pixel.image < 0 ? 0 : taps, 0, 0};
  }
  const bool skip = source == skip_source;
  const unsigned rows = places_inside(y, skip ? plan.shape.skip_height : plan.shape.height);
  const unsigned columns = places_inside(x, skip ? plan.shape.skip_width : plan.shape.width);
  // A row of taps is three bits.
  const unsigned taps = pixel.image < 0 ? 0 : columns * ((rows & 1) | (rows & 2) << 2 | (rows & 4) << 4);
  if (is_doubled(plan, source)) return {y >> 1, x >> 1, taps, y & 1, x & 1};
  return {y, x, taps, 0, 0};
}

// Rows and columns from a window's first tap to another.
struct Shift {
  int rows, columns;
};

ABPN_BOTH Shift shift_of(const Plan& plan, int source, const Window& seen, int tap) {
  const int row = has_classes(plan, source) ? tap / 2 : tap / 3;
  const int column = has_classes(plan, source) ? tap % 2 : tap - 3 * row;
  if (!is_doubled(plan, source)) return {row, column};
  return {(seen.odd_y + row) >> 1, (seen.odd_x + column) >> 1};
}

// Bilinear resizing as PyTorch's with align_corners=False: value = first + weight * (second - first), in its own order.
struct Between {
  int first, second;
  float weight;
};

// Where a pixel of the resized picture falls in one of `size`.
ABPN_BOTH Between between(int at, int size, float scale) {
  const float inside = scale * (static_cast<float>(at) + 0.5f) - 0.5f, position = inside < 0.0f ? 0.0f : inside;
  const int floor = static_cast<int>(position), first = floor < size ? floor : size - 1;
  return {first, first + 1 < size && scale != 1.0f ? first + 1 : first, position - static_cast<float>(first)};
}

// read(y, x) gives the mask's value there.
template <class Read>
ABPN_BOTH float resized_mask(const Plan& plan, int y, int x, const Read& read) {
  const Between row = between(y, plan.shape.mask_height, plan.mask_row_scale);
  const Between column = between(x, plan.shape.mask_width, plan.mask_column_scale);
  const float left = 1.0f - column.weight, right = column.weight;
  return (1.0f - row.weight) * (left * read(row.first, column.first) + right * read(row.first, column.second)) +
         row.weight * (left * read(row.second, column.first) + right * read(row.second, column.second));
}

}  // namespace abpn::gated
