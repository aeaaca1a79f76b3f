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

// Of what is asked for; `other` is the blend layer and `number` the strength, or with `reverse` the retouched image and the
// damping. `sums`, six doubles: of j, then of k.
void blend_gradients(Tensor grad, Tensor image, Tensor other, Tensor j, Tensor k, double number, bool reverse,
                     std::optional<Tensor> image_grad, std::optional<Tensor> other_grad, Tensor sums);

void pyramid_down(Tensor image, bool box, Tensor out);

void laplacian_decompose(Tensor image, int64_t levels, bool box, std::vector<Tensor> out);

void upsample_refine(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, Tensor weight2,
                     Tensor bias2, bool bf16, Tensor out);

// Of what the convolutions see, float32: `grad_up` of up(B_{i+1}), the residual included, `grad_high` of H_i; `sums` of
// weight1, bias1, weight2 and bias2, one after the other.
void upsample_refine_backward(Tensor grad, Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1,
                              Tensor bias1, Tensor weight2, Tensor bias2, Tensor grad_up,
                              std::optional<Tensor> grad_high, Tensor sums);

void upsample_refine_blend(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1,
                           Tensor weight2, Tensor bias2, Tensor j, Tensor k, double strength,
                           std::optional<Tensor> mask, std::optional<double> mask_threshold, bool bf16,
                           Tensor out);

// With filters packed by abpn_fast/backends/packed_filters.py, `groups` of channels: features, gates and kept. False, and
// nothing in `out`, where a value is too large or not finite.
bool gated_conv(std::optional<Tensor> features, Tensor skip, std::optional<Tensor> mask,
                std::optional<Tensor> features_weight, Tensor skip_weight, Tensor bias, int64_t groups,
                double negative_slope, bool bf16, Tensor out);

// Any values, and odd sizes; into a result of half the size with a stride of 2. False, and nothing in `out`, where features
// that are not finite meet filters of phases, which are sums of taps.
bool gated_conv_directly(std::optional<Tensor> features, Tensor skip, std::optional<Tensor> mask,
                         std::optional<Tensor> features_weight, std::optional<Tensor> mask_weight, Tensor skip_weight,
                         Tensor bias, int64_t groups, double negative_slope, Tensor out);

// By the plan of the GPU's kernel `kernel` (gated_plan.h), in float32.
void gated_conv_tiles(Tensor features, Tensor skip, std::optional<Tensor> mask, Tensor weight, Tensor bias,
                      std::optional<Tensor> skip_weight, std::optional<Tensor> skip_bias, double negative_slope,
                      int64_t kernel, bool phased, int64_t multiprocessors, Tensor out);

// FLOP/s of multiply-adds in the instruction set in use, summed over PyTorch's threads, each busy for `seconds`.
double fma_peak(double seconds);

}  // namespace abpn
