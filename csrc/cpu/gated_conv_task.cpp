#include "gated_conv.h"

#include <algorithm>
#include <stdexcept>

#include <torch/csrc/stable/ops.h>

namespace abpn {
namespace {

using torch::stable::Tensor;

void check(bool holds, const char* message) {
  if (!holds) throw std::runtime_error(message);
}

}  // namespace

GatedCut cut(const GatedConv& task, int64_t floats_per_pixel, int64_t more_rows) {
  // What a part reads stays in L2, unless that would be too few pixels for all the filters they are multiplied by.
  constexpr int64_t most_floats = 160 << 10, least_pixels = 64;
  // The rows that a part shares with others are few beside its own.
  constexpr int64_t least_rows = 4, step = 16, units_per_thread = 4;
  const auto parts = [](int64_t whole, int64_t part) { return (whole + part - 1) / part; };
  const int64_t height = task.coarse_height(), width = task.coarse_width();
  const int64_t pixels = std::max(most_floats / floats_per_pixel, least_pixels);
  GatedCut cut;
  // A part beyond L2 is read less often when several blocks of channels are made at once.
  cut.channel_blocks = pixels * floats_per_pixel > most_floats * 5 / 4 ? 4 : 1;
  const int64_t widest = std::max(pixels / (least_rows + more_rows) / step * step, step);
  cut.columns = width <= widest ? width : parts(parts(width, parts(width, widest)), step) * step;
  cut.blocks = parts(width, cut.columns);
  const int64_t most = std::max<int64_t>(pixels / cut.columns - more_rows, 1);
  const int64_t units = task.skip.count * cut.blocks * task.channel_sets(cut);
  const int64_t wanted = parts(units_per_thread * torch::stable::get_num_threads(), units);
  cut.rows = parts(height, std::clamp<int64_t>(std::max(parts(height, most), wanted), 1, height));
  cut.strips = parts(height, cut.rows);
  return cut;
}

GatedConv gated_conv_task(const std::optional<Tensor>& features, const Tensor& skip, const std::optional<Tensor>& mask,
                          const Tensor& bias, int64_t groups, double negative_slope, Tensor& out) {
  check(groups >= 1 && groups <= 3, "there are one to three groups of channels");
  GatedConv task{std::nullopt, std::nullopt, input(skip), output(out), nullptr, nullptr, nullptr, nullptr,
                 static_cast<int>(groups), static_cast<float>(negative_slope), false, false};
  const Picture& fine = task.skip;
  const int64_t height = task.coarse_height(), width = task.coarse_width();
  check(task.out.count == fine.count && (!task.halved() || (task.out.height == height && task.out.width == width)),
        "out does not fit skip");
  if (features) {
    task.features = input(*features);
    check(!task.halved() && task.features->height == height && task.features->width == width &&
              task.features->count == fine.count,
          "features do not fit skip");
  }
  if (mask) {
    task.mask = input(*mask);
    check(task.mask->channels == 1 && task.mask->height > 0 && task.mask->width > 0 && task.mask->count == fine.count &&
              groups > 1,
          "mask does not fit skip, or there are no gates");
  }
  task.bias = packed_filters(bias, groups * task.channel_blocks() * task.packed_channels());
  return task;
}

const float* packed_filters(const Tensor& tensor, int64_t count, bool pairs) {
  using torch::headeronly::ScalarType;
  check(tensor.scalar_type() == (pairs ? ScalarType::BFloat16 : ScalarType::Float) &&
            tensor.numel() == (pairs ? 2 * count : count),
        "packed filters do not fit the pictures");
  return static_cast<const float*>(tensor.const_data_ptr());
}

}  // namespace abpn
