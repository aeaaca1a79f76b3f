// Eq. 5, and Eq. 3 where asked for, over a whole level.
#pragma once

#include <cstdint>
#include <optional>

#include "picture.h"

namespace abpn {

struct RefiningWeights {
  float weight1[16][6][3][3], bias1[16], weight2[3][16][3][3], bias2[3];
};

struct Blending {
  float j[3], k[3], strength;
};

struct Keeping {
  Picture mask;
  int64_t scale;
  float threshold;
};

struct Refinement {
  Picture blend_low, image, image_low, out;
  RefiningWeights weights;
  std::optional<Blending> blending;
  std::optional<Keeping> keeping;
  // Whether factors may be rounded to bf16; the sums are in float32.
  bool bf16;
};

RefiningWeights refining_weights(const torch::stable::Tensor& weight1, const torch::stable::Tensor& bias1,
                                 const torch::stable::Tensor& weight2, const torch::stable::Tensor& bias2);

void refine(const Refinement& refinement);

}  // namespace abpn
