// The image pyramid and the high-frequency pyramid.
#ifndef ABPN_ISA

#include <algorithm>
#include <vector>

#include "operators.h"
#include "parallel.h"
#include "pyramid.h"

#define ABPN_SOURCE "../cpu/laplacian_decompose.cpp"
#include "each_isa.h"

namespace abpn {

namespace {

// I_{i+1} and H_i = I_i - up(I_{i+1}) of one level, a band of rows after the other: what a band of I_{i+1} was made of, and
// is subtracted from, is then read from memory once.
void decompose(const Picture& image, bool box, const Picture& low, const Picture& high) {
  constexpr int64_t cached = 256 << 10, most_rows = 16;
  const auto subtract_rows = ABPN_FOR_ISA(subtract_rows);
  const int64_t row_bytes = image.channels * image.width * image.element_size;
  const int64_t rows = std::clamp<int64_t>(cached / (2 * row_bytes), 1, most_rows);
  const int64_t bands = (low.height + rows - 1) / rows;
  const auto subtract = [&](int64_t n, int64_t begin, int64_t end) {
    subtract_rows(image, low, high, n * high.height + begin, n * high.height + end);
  };

  // The rows on both sides of where a thread began wait for those of I_{i+1} that another made.
  std::vector<char> waiting(low.count * bands);
  const int64_t grain = std::max<int64_t>(1, pixels_worth_a_thread / (2 * rows * image.width));
  torch::stable::parallel_for(0, low.count * bands, grain, [&](int64_t begin, int64_t end) {
    for (int64_t band = begin; band < end; ++band) {
      const int64_t n = band / bands, top = band % bands * rows, bottom = std::min(top + rows, low.height);
      reduce_rows(image, box, low, n * low.height + top, n * low.height + bottom);
      waiting[band] = band == begin && top > 0;
      const int64_t first = waiting[band] ? 2 * top + 1 : std::max<int64_t>(2 * top - 1, 0);
      subtract(n, first, bottom < low.height ? 2 * bottom - 1 : high.height);
    }
  });
  for (int64_t band = 0; band < low.count * bands; ++band) {
    const int64_t top = band % bands * rows;
    if (waiting[band]) subtract(band / bands, 2 * top - 1, 2 * top + 1);
  }
}

}  // namespace

void laplacian_decompose(Tensor image, int64_t levels, bool box, std::vector<Tensor> out) {
  Picture finer = input(image);
  const auto run = [&](int64_t, const Picture& image, const Picture& low, const Picture& high) {
    decompose(image, box, low, high);
  };
  for (int64_t i = 0; i < levels && finer.count * finer.height * finer.width > 0; ++i) {
    Picture coarser = output(out[i]);
    // It is read again at once.
    coarser.passing = false;
    by_channels(run, finer, coarser, output(out[levels + i]));
    finer = coarser;
  }
}

}  // namespace abpn

#else

#include "upsampling.h"

// Long runs of each row, as in REDUCE.
constexpr int64_t subtracted_chunk = 4096;

inline void subtract_rows(const Picture& image, const Picture& low, const Picture& out, int64_t begin, int64_t end) {
  constexpr int64_t step = subtracted_chunk + 2 * 16;
  // Not cleared, which a band would pay for anew: what lies past the end of a row goes into no result.
  Scratch scratch(LowRows::floats(subtracted_chunk / 2) + 3 * step, false);
  LowRows low_rows(low, scratch, subtracted_chunk / 2);
  float* buffer = scratch.take(3 * step);
  for (int64_t x = 0; x < out.width; x += subtracted_chunk) {
    const int64_t some = std::min(subtracted_chunk, out.width - x);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / out.height, y = row % out.height;
      if (row == begin || y == 0) low_rows.start(n, x / 2, (some + 1) / 2);
      if (!of_floats(image)) load_rows(image, n, y, x, some, buffer, step);
      for (int64_t c = 0; c < out.channels; ++c) {
        const float* from = row_or_buffer(image, n, c, y, x, buffer + c * step).to;
        const Row to = row_or_buffer(out, n, c, y, x, buffer + c * step);
        const auto subtract = [&](int64_t i, Vec up) {
          const Vec here = i + lanes <= some ? load(from + i) : load_some(from + i, 0, some - i);
          to.put(i, some, here - up);
        };
        low_rows.upsample(y, c, [&](int64_t i, Vec even, Vec odd) {
          const Pair up = alternating(even, odd);
          subtract(i, up.first);
          subtract(i + lanes, up.second);
        });
      }
      if (!of_floats(out)) store_rows(buffer, step, out, n, y, x, some);
    }
  }
  streamed();
}

#endif
