// The gradients of ABM and R-ABM, Eq. 3 and 4, in one pass over what the forward pass read.
#ifndef ABPN_ISA

#include <memory>

#include "operators.h"
#include "parallel.h"
#include "picture.h"

namespace abpn {

struct BlendGradients {
  // `other` is the blend layer, or the retouched image where R-ABM is meant; `number` the strength or the damping.
  Picture grad, image, other;
  std::optional<Picture> image_grad, other_grad;
  float j[3], k[3], number;
  bool reverse, damped;
  // Six of each row of each channel, or of all: of j, then of k.
  double* sums;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/blend_gradients.cpp"
#include "each_isa.h"

namespace abpn {

void blend_gradients(Tensor grad, Tensor image, Tensor other, Tensor j, Tensor k, double number, bool reverse,
                     std::optional<Tensor> image_grad, std::optional<Tensor> other_grad, Tensor sums) {
  BlendGradients task{input(grad), input(image), input(other), std::nullopt, std::nullopt, {}, {},
                      static_cast<float>(number), reverse, number != 0, nullptr};
  if (image_grad) task.image_grad = output(*image_grad);
  if (other_grad) task.other_grad = output(*other_grad);
  read_floats(j, task.j);
  read_floats(k, task.k);
  const int64_t rows = task.image.count * task.image.height, all = 3 * rows;
  // Of pictures that are not cut into channels two thirds of it stay zero.
  const std::unique_ptr<double[]> found(new double[6 * all]());
  const auto gradient_rows = ABPN_FOR_ISA(gradient_rows);
  const auto run = [&](int64_t c, const Picture& grad, const Picture& image, const Picture& other) {
    BlendGradients part = task;
    part.grad = grad, part.image = image, part.other = other;
    part.sums = found.get() + 6 * rows * c;
    for (std::optional<Picture>* each : {&part.image_grad, &part.other_grad})
      if (*each && image.channels == 1) *each = (*each)->channel(c);
    over_rows(image, [&](int64_t begin, int64_t end) { gradient_rows(part, begin, end); });
  };
  by_channels(run, task.grad, task.image, task.other);
  double* to = static_cast<double*>(sums.mutable_data_ptr());
  for (int64_t i = 0; i < 6; ++i) {
    to[i] = 0;
    for (int64_t row = 0; row < all; ++row) to[i] += found[6 * row + i];
  }
}

}  // namespace abpn

#else

#include "polynomial.h"

// What the result's gradient makes of I, of the other picture, and of the values of both polynomials.
struct Gradient {
  Vec image, other, along_j, along_k;
};

inline Vec slope(Vec image, const float* c) {
  return multiply_add(image, broadcast(2.0f * c[2]), broadcast(c[1]));
}

inline Gradient blended_gradient(const BlendGradients& task, Vec grad, Vec image, Vec blend) {
  const Vec strength = broadcast(task.number), along_j = grad * (strength * blend);
  const Vec to_image = multiply_add(along_j, slope(image, task.j), grad * slope(image, task.k));
  return {to_image, grad * Polynomial(task.j)(image) * strength, along_j, grad};
}

inline Gradient unblended_gradient(const BlendGradients& task, Vec grad, Vec image, Vec retouched) {
  const Vec zero = broadcast(0.0f), d = Polynomial(task.j)(image);
  const Vec difference = retouched - Polynomial(task.k)(image);
  Vec inverse, along_j;
  if (task.damped) {
    const Vec damping = broadcast(task.number), divisor = multiply_add(d, d, damping);
    inverse = grad * d / divisor;
    along_j = grad * difference / divisor * (damping - d * d) / divisor;
  } else {
    const Vec divisor = where_equal(d, zero, broadcast(1.0f), d);
    inverse = where_equal(d, zero, zero, grad / divisor);
    along_j = zero - inverse * (difference / divisor);
  }
  const Vec along_k = zero - inverse;
  return {multiply_add(along_j, slope(image, task.j), along_k * slope(image, task.k)), inverse, along_j, along_k};
}

// So many are added up in float32; their sums, in float64.
constexpr int64_t vectors_summed = 64;

// Whole vectors, in place of both pictures.
inline void gradient_pixels(const BlendGradients& task, const float* grads, float* image, float* other, int64_t count,
                            double* to) {
  Vec sums[6];
  for (Vec& sum : sums) sum = broadcast(0.0f);
  for (int64_t i = 0; i < count; i += lanes) {
    const Vec grad = load(grads + i), unit = load(image + i), picture = load(other + i);
    const Gradient found =
        task.reverse ? unblended_gradient(task, grad, unit, picture) : blended_gradient(task, grad, unit, picture);
    const Vec first_j = found.along_j * unit, first_k = found.along_k * unit;
    const Vec terms[6] = {found.along_j, first_j, first_j * unit, found.along_k, first_k, first_k * unit};
    for (int s = 0; s < 6; ++s) sums[s] = sums[s] + terms[s];
    store(image + i, found.image);
    store(other + i, found.other);
  }
  for (int s = 0; s < 6; ++s) {
    alignas(64) float lane[lanes];
    store(lane, sums[s]);
    for (float each : lane) to[s] += each;
  }
}

inline void gradient_rows(const BlendGradients& task, int64_t begin, int64_t end) {
  alignas(64) float grads[3 * chunk] = {}, image[3 * chunk] = {}, other[3 * chunk] = {};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / task.image.height, y = row % task.image.height;
    double* const to = task.sums + 6 * row;
    std::fill(to, to + 6, 0.0);
    for (int64_t x = 0; x < task.image.width; x += chunk) {
      const int64_t some = std::min(chunk, task.image.width - x), whole = (some + lanes - 1) / lanes * lanes;
      load_rows(task.grad, n, y, x, some, grads, chunk);
      load_rows(task.image, n, y, x, some, image, chunk);
      load_rows(task.other, n, y, x, some, other, chunk);
      for (int64_t first = 0; first < task.image.channels * chunk; first += chunk) {
        // Beyond the row's end its last pixel again, without a gradient: nothing is added to the sums.
        std::fill(grads + first + some, grads + first + whole, 0.0f);
        for (float* each : {image, other}) std::fill(each + first + some, each + first + whole, each[first + some - 1]);
        for (int64_t i = 0; i < whole; i += vectors_summed * lanes) {
          const int64_t count = std::min(vectors_summed * lanes, whole - i);
          gradient_pixels(task, grads + first + i, image + first + i, other + first + i, count, to);
        }
      }
      if (task.image_grad) store_rows(image, chunk, *task.image_grad, n, y, x, some);
      if (task.other_grad) store_rows(other, chunk, *task.other_grad, n, y, x, some);
    }
  }
  streamed();
}

#endif
