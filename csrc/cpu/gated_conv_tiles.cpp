// The gated convolution, or a convolution alone, by the GPU's plan, tile by tile, step by step and split by split, for
// tests of that plan.
#include <algorithm>
#include <cmath>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "gated_weights.h"
#include "operators.h"
#include "picture.h"

namespace abpn {
namespace {

using namespace gated;

struct Layer {
  Plan plan;
  // Contiguous copies of the arguments; the packed weights as the GPU has them.
  std::vector<float> source[sources], packed, bias, skip_bias;
  float slope;
  Picture out;
};

std::vector<float> floats(const Tensor& tensor) {
  std::vector<float> values(tensor.numel());
  read_floats(tensor, values.data());
  return values;
}

// Where tap `tap` of a pixel reads; false for zero.
bool reach(const Plan& plan, int source, int tap, const Pixel& pixel, int& y, int& x) {
  const Window seen = window(plan, source, pixel);
  const Shift shift = shift_of(plan, source, seen, tap);
  y = seen.y + shift.rows;
  x = seen.x + shift.columns;
  return seen.inside >> tap & 1;
}

float value(const Layer& layer, int source, int k, const Pixel& pixel) {
  const Plan& plan = layer.plan;
  int channel, tap, y, x;
  if (!locate(plan.segment[source], k, channel, tap) || !reach(plan, source, tap, pixel, y, x)) return 0.0f;
  const std::vector<float>& data = layer.source[source];
  const auto at = [&](int height, int width, int y, int x) {
    return data.at(((int64_t{pixel.image} * plan.segment[source].channels + channel) * height + y) * width + x);
  };
  if (source == features_source) return at((plan.shape.height + 1) / 2, (plan.shape.width + 1) / 2, y, x);
  if (source == skip_source) return at(plan.shape.skip_height, plan.shape.skip_width, y, x);
  return resized_mask(plan, y, x,
                      [&](int row, int column) { return at(plan.shape.mask_height, plan.shape.mask_width, row, column); });
}

// sums[filter set][channel of the tile][pixel of the tile], of one split.
void add_split(const Layer& layer, int phase, int64_t first_pixel, int first_out, int split, std::vector<float>& sums) {
  const Plan& plan = layer.plan;
  const int pixels = plan.tile.pixels, outs = plan.tile.outs;
  std::vector<float> rows(step_size * pixels);
  for (int all = split_begin(plan, split); all < split_begin(plan, split + 1); ++all) {
    int step = all;
    const int source = source_of(plan, step);
    for (int k = 0; k < step_size; ++k)
      for (int i = 0; i < pixels; ++i)
        rows[k * pixels + i] = value(layer, source, step * step_size + k, pixel_of(plan, phase, first_pixel + i));
    for (int row = 0; row < filter_sets(plan, source) * outs; ++row) {
      const int filter = filter_in(plan, first_out, row);
      if (filter < 0) continue;
      const float* weights = &layer.packed.at(packed_at(plan, source, phase, step) + int64_t{filter} * step_size);
      float* to = &sums[row * pixels];
      for (int k = 0; k < step_size; ++k)
        for (int i = 0; i < pixels; ++i) to[i] += weights[k] * rows[k * pixels + i];
    }
  }
}

void finish(const Layer& layer, int phase, int64_t first_pixel, int first_out, const std::vector<float>& sums) {
  const Plan& plan = layer.plan;
  const int pixels = plan.tile.pixels, out = plan.shape.out;
  const auto activated = [&](float x) { return x > 0 ? x : layer.slope * x; };
  for (int o = 0; o < tile_channels(plan) && first_out + o < out; ++o)
    for (int i = 0; i < pixels; ++i) {
      const Pixel pixel = pixel_of(plan, phase, first_pixel + i);
      if (pixel.image < 0) continue;
      const auto sum = [&](int set) { return sums[(set * plan.tile.outs + o) * pixels + i]; };
      const int channel = first_out + o;
      const float f = activated(sum(feature_filter) + layer.bias[channel]);
      float* to = reinterpret_cast<float*>(layer.out.address(pixel.image, channel, pixel.y, pixel.x));
      if (!plan.shape.gated) {
        *to = f;
        continue;
      }
      const float g = 1 / (1 + std::exp(-(sum(gate_filter) + layer.bias[out + channel])));
      float blended = f * g;
      if (plan.shape.kept) blended += activated(sum(skip_filter) + layer.skip_bias[channel]) * (1 - g);
      *to = blended;
    }
}

void compute(const Layer& layer, int64_t block) {
  const Plan& plan = layer.plan;
  const int phase = static_cast<int>(block / plan.pixel_tiles);
  const int64_t first_pixel = block % plan.pixel_tiles * plan.tile.pixels;
  const size_t set = static_cast<size_t>(plan.tile.outs) * plan.tile.pixels;
  for (int tile = 0; tile < plan.out_tiles; ++tile) {
    std::vector<float> total(filters * set);
    for (int split = 0; split < plan.splits; ++split) {
      std::vector<float> sums(filters * set);
      add_split(layer, phase, first_pixel, tile * tile_channels(plan), split, sums);
      const size_t used = (split_has_third(plan, split) ? filters : filters - 1) * set;
      for (size_t i = 0; i < used; ++i) total[i] += sums[i];
    }
    finish(layer, phase, first_pixel, tile * tile_channels(plan), total);
  }
}

}  // namespace

void gated_conv_tiles(Tensor features, Tensor skip, std::optional<Tensor> mask, Tensor weight, Tensor bias,
                      std::optional<Tensor> skip_weight, std::optional<Tensor> skip_bias, double negative_slope,
                      int64_t kernel, bool phased, int64_t multiprocessors, Tensor out) {
  const auto size = [](const Tensor& tensor, int dimension) { return static_cast<int>(tensor.size(dimension)); };
  const Shape shape{size(out, 0),
                    size(out, 2),
                    size(out, 3),
                    size(features, 1),
                    size(skip, 1),
                    size(out, 1),
                    mask ? size(*mask, 2) : 0,
                    mask ? size(*mask, 3) : 0,
                    skip_weight.has_value(),
                    size(weight, 0) != size(out, 1),
                    size(skip, 2) == size(out, 2) && size(skip, 3) == size(out, 3) ? 1 : 2,
                    size(skip, 2),
                    size(skip, 3)};
  Layer layer{plan_weights(shape, phased), {}, {}, floats(bias), {}, static_cast<float>(negative_slope), output(out)};
  plan_tiles(layer.plan, tile_of(static_cast<Kernel>(kernel)), static_cast<int>(multiprocessors));
  layer.source[features_source] = floats(features);
  layer.source[skip_source] = floats(skip);
  if (mask) layer.source[mask_source] = floats(*mask);
  if (skip_bias) layer.skip_bias = floats(*skip_bias);
  const std::vector<float> plain = floats(weight), kept = skip_weight ? floats(*skip_weight) : std::vector<float>();
  const auto reader = [](const std::vector<float>& from, int64_t channels) {
    return [&from, channels](int filter, int channel, int tap) {
      return from.at((filter * channels + channel) * 9 + tap);
    };
  };
  layer.packed.resize(packed_size(layer.plan));
  for (size_t i = 0; i < layer.packed.size(); ++i)
    layer.packed[i] =
        packed_weight(layer.plan, static_cast<int64_t>(i), reader(plain, weight.size(1)), reader(kept, shape.skip));
  torch::stable::parallel_for(0, layer.plan.pixel_tiles * classes(layer.plan), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) compute(layer, block);
  });
}

}  // namespace abpn
