// Convolutions of 3x3 with a leaky ReLU, of a picture or of upsampled features, a picture and a mask, gated or not, with
// filters packed by abpn_fast/backends/packed_filters.py.
#pragma once

#include <cstdint>
#include <optional>

#include <torch/csrc/stable/tensor.h>

#include "picture.h"

namespace abpn {

// Every image in parts of some coarse rows and columns; of each, some blocks of channels at a time.
struct GatedCut {
  int64_t rows, strips, columns, blocks, channel_blocks;
  int64_t parts() const { return strips * blocks; }
};

// Coarse pixels are those of the features; a fine pixel is one of four phases of a coarse one.
struct GatedConv {
  std::optional<Picture> features, mask;
  Picture skip, out;
  // Of `packed_channels` channels out at a time, tap by tap or product by product, input by input, group by group.
  const float *features_weight, *mask_weight, *skip_weight, *bias;
  // Of channels: features; gates; kept.
  int groups;
  float negative_slope;
  // Whether the features have filters of four taps for each phase, not of nine for the upsampled features.
  bool phased = false;
  // Whether the filters are pairs of inputs in bf16, which pixels are rounded to; the sums are in float32.
  bool bf16 = false;

  int packed_channels() const { return groups == 1 ? 8 : 4; }
  int64_t channel_blocks() const { return (out.channels + packed_channels() - 1) / packed_channels(); }
  int64_t channel_sets(const GatedCut& cut) const {
    return (channel_blocks() + cut.channel_blocks - 1) / cut.channel_blocks;
  }
  int64_t features_channels() const { return features ? features->channels : 0; }
  int64_t coarse_height() const { return (skip.height + 1) / 2; }
  int64_t coarse_width() const { return (skip.width + 1) / 2; }
  bool even() const { return skip.height % 2 == 0 && skip.width % 2 == 0; }
  // The result has one pixel for each set of four: a stride of 2.
  bool halved() const { return out.height != skip.height || out.width != skip.width; }
};

// For kernels that keep `floats_per_pixel` of a part, and of `more_rows`.
GatedCut cut(const GatedConv& task, int64_t floats_per_pixel, int64_t more_rows);

// All but the filters of the parts; raises where something does not fit.
GatedConv gated_conv_task(const std::optional<torch::stable::Tensor>& features, const torch::stable::Tensor& skip,
                          const std::optional<torch::stable::Tensor>& mask, const torch::stable::Tensor& bias,
                          int64_t groups, double negative_slope, torch::stable::Tensor& out);

// The filters, `count` floats or pairs of bf16.
const float* packed_filters(const torch::stable::Tensor& tensor, int64_t count, bool pairs = false);

}  // namespace abpn
