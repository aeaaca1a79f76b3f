// The finest level: Eq. 5, then Eq. 3.
#include "operators.h"
#include "refine.h"

namespace abpn {
namespace {

// The power of two that divides the image's size, rounded up, into the mask's.
int64_t mask_scale(const Picture& image, const Picture& mask) {
  int64_t scale = 1;
  while ((image.height + scale - 1) / scale > mask.height || (image.width + scale - 1) / scale > mask.width) scale *= 2;
  return scale;
}

}  // namespace

void upsample_refine_blend(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1,
                           Tensor weight2, Tensor bias2, Tensor j, Tensor k, double strength,
                           std::optional<Tensor> mask, std::optional<double> mask_threshold, bool bf16,
                           Tensor out) {
  Blending blending{{}, {}, static_cast<float>(strength)};
  read_floats(j, blending.j);
  read_floats(k, blending.k);
  Refinement refinement{input(blend_low), input(image), input(image_low), output(out),
                        refining_weights(weight1, bias1, weight2, bias2), blending, std::nullopt, bf16};
  if (mask && mask_threshold) {
    const Picture given = input(*mask);
    refinement.keeping = {given, mask_scale(refinement.image, given), static_cast<float>(*mask_threshold)};
  }
  refine(refinement);
}

}  // namespace abpn
