// One step up the blend pyramid, Eq. 5.
#include "operators.h"
#include "refine.h"

namespace abpn {

RefiningWeights refining_weights(const Tensor& weight1, const Tensor& bias1, const Tensor& weight2,
                                 const Tensor& bias2) {
  RefiningWeights weights;
  read_floats(weight1, &weights.weight1[0][0][0][0]);
  read_floats(bias1, weights.bias1);
  read_floats(weight2, &weights.weight2[0][0][0][0]);
  read_floats(bias2, weights.bias2);
  return weights;
}

void upsample_refine(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, Tensor weight2,
                     Tensor bias2, bool bf16, Tensor out) {
  refine({input(blend_low), input(image), input(image_low), output(out),
          refining_weights(weight1, bias1, weight2, bias2), std::nullopt, std::nullopt, bf16});
}

}  // namespace abpn
