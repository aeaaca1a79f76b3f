// The image pyramid and the high-frequency pyramid.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "pyramid.h"

#define ABPN_SOURCE "../cpu/laplacian_decompose.cpp"
#include "each_isa.h"

namespace abpn {

void subtract_upsampled(const Picture& image, const Picture& low, const Picture& out) {
  const auto subtract_rows = ABPN_FOR_ISA(subtract_rows);
  const auto run = [&](int64_t, const Picture& image, const Picture& low, const Picture& out) {
    over_rows(out, [&](int64_t begin, int64_t end) { subtract_rows(image, low, out, begin, end); });
  };
  by_channels(run, image, low, out);
}

void laplacian_decompose(Tensor image, int64_t levels, bool box, std::vector<Tensor> out) {
  Picture finer = input(image);
  for (int64_t i = 0; i < levels; ++i) {
    const Picture coarser = output(out[i]);
    reduce(finer, box, coarser);
    subtract_upsampled(finer, coarser, output(out[levels + i]));
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
  Scratch scratch(LowRows::floats(subtracted_chunk / 2) + (3 + 1) * step);
  LowRows low_rows(low, scratch, subtracted_chunk / 2);
  float *high = scratch.take(3 * step), *up = scratch.take(step);
  for (int64_t x = 0; x < out.width; x += subtracted_chunk) {
    const int64_t some = std::min(subtracted_chunk, out.width - x);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / out.height, y = row % out.height;
      if (row == begin || y == 0) low_rows.start(n, x / 2, (some + 1) / 2);
      load_rows(image, n, y, x, some, high, step);
      for (int64_t c = 0; c < out.channels; ++c) {
        low_rows.upsample(y, c, [&](int64_t i, Vec even, Vec odd) { store_alternating(up + i, even, odd); });
        for (int64_t i = 0; i < some; ++i) high[c * step + i] -= up[i];
      }
      store_rows(high, step, out, n, y, x, some);
    }
  }
  streamed();
}

#endif
