// R-ABM, Eq. 4.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "picture.h"

namespace abpn {

struct ReverseAdaptiveBlend {
  Picture image, retouched, out;
  float j[3], k[3], damping;
  bool damped;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/reverse_adaptive_blend.cpp"
#include "each_isa.h"

namespace abpn {

void reverse_adaptive_blend(Tensor image, Tensor retouched, Tensor j, Tensor k, double damping, Tensor out) {
  ReverseAdaptiveBlend task{input(image), input(retouched), output(out), {}, {}, static_cast<float>(damping), damping != 0};
  read_floats(j, task.j);
  read_floats(k, task.k);
  const auto reverse_rows = ABPN_FOR_ISA(reverse_rows);
  const auto run = [&](int64_t, const Picture& image, const Picture& retouched, const Picture& out) {
    ReverseAdaptiveBlend part = task;
    part.image = image, part.retouched = retouched, part.out = out;
    over_rows(image, [&](int64_t begin, int64_t end) { reverse_rows(part, begin, end); });
  };
  by_channels(run, task.image, task.retouched, task.out);
}

}  // namespace abpn

#else

#include "polynomial.h"

inline Vec damped_quotient(Vec difference, Vec d, Vec damping) {
  return difference * d / multiply_add(d, d, damping);
}

// The quotient itself, and 0 where d is 0.
inline Vec quotient(Vec difference, Vec d) {
  const Vec zero = broadcast(0.0f);
  return where_equal(d, zero, zero, difference / d);
}

inline void reverse_rows(const ReverseAdaptiveBlend& task, int64_t begin, int64_t end) {
  alignas(64) float image[3 * chunk] = {}, retouched[3 * chunk] = {};
  const Polynomial j(task.j), k(task.k);
  const Vec damping = broadcast(task.damping);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / task.image.height, y = row % task.image.height;
    for (int64_t x = 0; x < task.image.width; x += chunk) {
      const int64_t some = std::min(chunk, task.image.width - x);
      load_rows(task.image, n, y, x, some, image, chunk);
      load_rows(task.retouched, n, y, x, some, retouched, chunk);
      for (int64_t i = 0; i < task.image.channels * chunk; i += lanes) {
        const Vec unit = load(image + i), d = j(unit), difference = load(retouched + i) - k(unit);
        store(retouched + i, task.damped ? damped_quotient(difference, d, damping) : quotient(difference, d));
      }
      store_rows(retouched, chunk, task.out, n, y, x, some);
    }
  }
  streamed();
}

#endif
