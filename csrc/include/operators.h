// The operators of this library as PyTorch calls them; each writes into the tensors it is given last.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <torch/csrc/stable/tensor.h>

namespace abpn {

using torch::stable::Tensor;

void adaptive_blend(Tensor image, Tensor blend, Tensor j, Tensor k, double strength, Tensor out);

void reverse_adaptive_blend(Tensor image, Tensor retouched, Tensor j, Tensor k, double damping, Tensor out);

void pyramid_down(Tensor image, bool box, Tensor out);

void laplacian_decompose(Tensor image, int64_t levels, bool box, std::vector<Tensor> out);

void upsample_refine(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, Tensor weight2,
                     Tensor bias2, Tensor out);

void upsample_refine_blend(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1,
                           Tensor weight2, Tensor bias2, Tensor j, Tensor k, double strength,
                           std::optional<Tensor> mask, std::optional<double> mask_threshold, Tensor out);

}  // namespace abpn
