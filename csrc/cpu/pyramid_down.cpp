// One REDUCE step of the image pyramid.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "pyramid.h"

#define ABPN_SOURCE "../cpu/pyramid_down.cpp"
#include "each_isa.h"

namespace abpn {

void reduce(const Picture& image, bool box, const Picture& out) {
  const auto reduce_rows = ABPN_FOR_ISA(reduce_rows);
  over_rows(out.count, out.height, out.width,
            [&](int64_t begin, int64_t end) { reduce_rows(image, box, out, begin, end); });
}

void pyramid_down(Tensor image, bool box, Tensor out) { reduce(input(image), box, output(out)); }

}  // namespace abpn

#else

// Long runs of each row: a jump from row to row is one from page to page.
constexpr int64_t reduced_chunk = 2048;

// [1 3 3 1] / 8, or the mean of the middle two, of four samples.
inline Vec halved(Vec before, Vec left, Vec right, Vec after, bool box) {
  if (box) return (left + right) * broadcast(0.5f);
  const Vec three = broadcast(3.0f);
  return (before + three * left + three * right + after) * broadcast(0.125f);
}

// Of four rows; whole vectors, past the end.
inline void halve_rows(const float* const from[4], bool box, int64_t count, float* to) {
  const float *before = from[0], *left = from[1], *right = from[2], *after = from[3];
  for (int64_t i = 0; i < count; i += lanes)
    store(to + i, halved(load(before + i), load(left + i), load(right + i), load(after + i), box));
}

// Of four columns, 2 i to 2 i + 3 for result i, likewise.
inline void halve_columns(const float* from, bool box, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += lanes) {
    const Pair first = separated(load(from + 2 * i), load(from + 2 * i + lanes));
    const Pair second = separated(load(from + 2 * i + 2), load(from + 2 * i + 2 + lanes));
    store(to + i, halved(first.first, first.second, second.first, second.second, box));
  }
}

// The four rows that one reduced row reads; two of them serve the next one too.
struct RowsToReduce {
  static constexpr int64_t step = 2 * reduced_chunk + 16;
  float rows[4][3 * step];
  int64_t held[4] = {-1, -1, -1, -1};

  const float* row(const Picture& image, int64_t n, int64_t y, int64_t first, int64_t count) {
    const int64_t inside = std::clamp<int64_t>(y, 0, image.height - 1);
    float* slot = rows[inside & 3];
    if (held[inside & 3] != n * image.height + inside) {
      load_padded_rows(image, n, inside, first, count, slot, step);
      held[inside & 3] = n * image.height + inside;
    }
    return slot;
  }
};

inline void reduce_columns(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end, int64_t x,
                           int64_t count) {
  constexpr int64_t step = RowsToReduce::step;
  RowsToReduce source;
  float reduced[3 * reduced_chunk], vertical[step + 16] = {};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / out.height, y = row % out.height;
    const float* rows[4];
    for (int64_t i = 0; i < 4; ++i) rows[i] = source.row(image, n, 2 * y - 1 + i, 2 * x, 2 * count);
    for (int64_t c = 0; c < 3; ++c) {
      const float* const channel[4] = {rows[0] + c * step, rows[1] + c * step, rows[2] + c * step, rows[3] + c * step};
      halve_rows(channel, box, 2 * count + 2, vertical);
      halve_columns(vertical, box, count, reduced + c * reduced_chunk);
    }
    store_rows(reduced, reduced_chunk, out, n, y, x, count);
  }
}

inline void reduce_rows(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end) {
  for (int64_t x = 0; x < out.width; x += reduced_chunk)
    reduce_columns(image, box, out, begin, end, x, std::min(reduced_chunk, out.width - x));
  streamed();
}

#endif
