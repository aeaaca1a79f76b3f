// ABM, Eq. 3.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "picture.h"

namespace abpn {

struct AdaptiveBlend {
  Picture image, blend, out;
  float j[3], k[3], strength;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/adaptive_blend.cpp"
#include "each_isa.h"

namespace abpn {

void adaptive_blend(Tensor image, Tensor blend, Tensor j, Tensor k, double strength, Tensor out) {
  AdaptiveBlend task{input(image), input(blend), output(out), {}, {}, static_cast<float>(strength)};
  read_floats(j, task.j);
  read_floats(k, task.k);
  const auto blend_rows = ABPN_FOR_ISA(blend_rows);
  const auto run = [&](int64_t, const Picture& image, const Picture& blend, const Picture& out) {
    AdaptiveBlend part = task;
    part.image = image, part.blend = blend, part.out = out;
    over_rows(image, [&](int64_t begin, int64_t end) { blend_rows(part, begin, end); });
  };
  by_channels(run, task.image, task.blend, task.out);
}

}  // namespace abpn

#else

#include "polynomial.h"

inline void blend_rows(const AdaptiveBlend& task, int64_t begin, int64_t end) {
  alignas(64) float image[3 * chunk] = {}, blend[3 * chunk] = {};
  const Polynomial j(task.j), k(task.k);
  const Vec strength = broadcast(task.strength);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / task.image.height, y = row % task.image.height;
    for (int64_t x = 0; x < task.image.width; x += chunk) {
      const int64_t some = std::min(chunk, task.image.width - x);
      load_rows(task.image, n, y, x, some, image, chunk);
      load_rows(task.blend, n, y, x, some, blend, chunk);
      for (int64_t i = 0; i < task.image.channels * chunk; i += lanes)
        store(blend + i, blended(load(image + i), strength * load(blend + i), j, k));
      store_rows(blend, chunk, task.out, n, y, x, some);
    }
  }
  streamed();
}

#endif
