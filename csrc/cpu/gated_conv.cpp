// What follows the convolutions of gated_conv: their sums, the mask's share, activations and gate, in one pass.
#ifndef ABPN_ISA

#include <optional>
#include <stdexcept>
#include <vector>

#include "operators.h"
#include "parallel.h"
#include "picture.h"

namespace abpn {

struct GatedFinish {
  // Channels last: 1, 2 or 3 groups of `width` channels a pixel (features; gates; kept).
  Picture joined;
  // Channels last, one row and column more than half of `out`: for each phase of a pixel the first two groups.
  std::optional<Picture> low;
  // float, the whole image; row `row` of it lies over row 0 of `out`.
  std::optional<Picture> mask;
  // Nine taps of two groups.
  const float* mask_weight;
  Picture out;
  int64_t width, groups, row;
  float negative_slope;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/gated_conv.cpp"
#include "each_isa.h"

namespace abpn {
namespace {

void check(bool holds, const char* message) {
  if (!holds) throw std::runtime_error(message);
}

}  // namespace

void gated_conv_finish(Tensor joined, std::optional<Tensor> low, std::optional<Tensor> mask,
                       std::optional<Tensor> mask_weight, int64_t width, int64_t row, double negative_slope, Tensor out) {
  GatedFinish task{input(joined), std::nullopt, std::nullopt, nullptr, output(out), width, 0, row,
                   static_cast<float>(negative_slope)};
  task.groups = task.joined.channels / width;
  check(width % 16 == 0 && task.joined.stride[1] == 1 && task.joined.channels == task.groups * width &&
            task.groups >= 1 && task.groups <= 3 && task.joined.height == task.out.height &&
            task.joined.width == task.out.width && task.out.channels <= width,
        "joined does not fit out");
  if (low) {
    task.low = input(*low);
    check(task.low->stride[1] == 1 && task.low->channels == 4 * std::min<int64_t>(task.groups, 2) * width &&
              2 * (task.low->height - 1) == task.out.height && 2 * (task.low->width - 1) == task.out.width,
          "low does not fit out");
  }
  std::vector<float> taps;
  if (mask) {
    check(mask_weight && mask_weight->numel() == 18 * width && task.groups > 1, "mask_weight does not fit");
    task.mask = input(*mask);
    check(task.mask->kind == Kind::f32 && row >= 0 && row + task.out.height <= task.mask->height &&
              task.mask->width == task.out.width,
          "mask does not fit out");
    taps.resize(18 * width);
    read_floats(*mask_weight, taps.data());
    task.mask_weight = taps.data();
  }
  const auto finish_rows = ABPN_FOR_ISA(finish_rows);
  over_rows(task.out.count, task.out.height, task.out.width * std::max<int64_t>(width / 16, 1),
            [&](int64_t begin, int64_t end) { finish_rows(task, begin, end); });
}

}  // namespace abpn

#else

#include "gate.h"

// `count` channels of one pixel; `buffer` holds them where they are not float.
inline const float* channels_at(const Picture& picture, const char* from, int64_t count, float* buffer) {
  if (picture.kind == Kind::f32) return reinterpret_cast<const float*>(from);
  decode(picture.kind, from, buffer, count);
  return buffer;
}

// Three rows of the mask around one row of the image, 0 outside, from column -1 on.
struct MaskRows {
  float* rows;
  int64_t step;

  void load(const Picture& mask, int64_t n, int64_t y) {
    for (int64_t dy = 0; dy < 3; ++dy) {
      if (y + dy >= 1 && y + dy <= mask.height)
        load_rows(mask, n, y + dy - 1, 0, mask.width, rows + dy * step + 1, step);
      else
        std::fill(rows + dy * step, rows + (dy + 1) * step, 0.0f);
    }
  }
};

// The sums of one group and channel: of the joined convolution, of the phase, of the mask's nine taps.
template <bool masked>
inline Vec summed(const float* joined, const float* low, const float* taps, const float* mask, int64_t row, int64_t step) {
  Vec sum = load(joined);
  if (low != nullptr) sum = sum + load(low);
  if constexpr (masked)
    for (int tap = 0; tap < 9; ++tap)
      sum = multiply_add(broadcast(mask[tap / 3 * row + tap % 3]), load(taps + tap * step), sum);
  return sum;
}

template <int groups, bool masked>
inline void finish_pixel(const GatedFinish& task, const float* joined, const float* low, const float* mask, float* to) {
  const int64_t width = task.width, step = 2 * width, row = task.out.width + 2;
  const float *taps = masked ? task.mask_weight : joined, *low_gate = low == nullptr ? nullptr : low + width;
  const Vec slope = broadcast(task.negative_slope);
  for (int64_t c = 0; c < width; c += lanes) {
    const Vec feature = summed<masked>(joined + c, low == nullptr ? nullptr : low + c, taps + c, mask, row, step);
    if constexpr (groups == 1) {
      store(to + c, leaky_relu(feature, slope));
    } else {
      const float* gate_taps = masked ? taps + width + c : taps;
      const Vec gate =
          summed<masked>(joined + width + c, low == nullptr ? nullptr : low_gate + c, gate_taps, mask, row, step);
      if constexpr (groups == 2)
        store(to + c, gated(feature, gate, slope));
      else
        store(to + c, gated(feature, gate, load(joined + 2 * width + c), slope));
    }
  }
}

template <class T>
void scatter_channels(const T* from, char* to, int64_t stride, int64_t count) {
  scatter(from, reinterpret_cast<T*>(to), stride, count);
}

inline void store_channels(const Picture& out, const float* from, char* to) {
  if (out.stride[1] == 1) return encode(out.kind, from, to, out.channels);
  if (out.kind == Kind::f32) return scatter_channels(from, to, out.stride[1], out.channels);
  uint16_t raw[chunk];
  for (int64_t c = 0; c < out.channels; c += chunk) {
    const int64_t some = std::min(chunk, out.channels - c);
    encode(out.kind, from + c, raw, some);
    scatter_channels(raw, to + c * out.stride[1] * out.element_size, out.stride[1], some);
  }
}

template <int groups, bool masked>
void finish(const GatedFinish& task, int64_t begin, int64_t end) {
  const Picture& out = task.out;
  const int64_t width = task.width, phase = std::min(groups, 2) * width;
  Scratch scratch((groups + 2 + 1) * width + 3 * (out.width + 2));
  float *joined_floats = scratch.take(groups * width), *low_floats = scratch.take(2 * width), *result = scratch.take(width);
  MaskRows mask{scratch.take(3 * (out.width + 2)), out.width + 2};
  const bool direct = out.kind == Kind::f32 && out.stride[1] == 1 && out.channels == width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / out.height, y = row % out.height;
    if constexpr (masked) mask.load(*task.mask, n, task.row + y);
    for (int64_t x = 0; x < out.width; ++x) {
      const float* joined = channels_at(task.joined, task.joined.address(n, 0, y, x), groups * width, joined_floats);
      const float* low = nullptr;
      if (task.low) {
        const int64_t below = y & 1, right = x & 1;
        low = channels_at(*task.low, task.low->address(n, (2 * below + right) * phase, y / 2 + below, x / 2 + right), phase,
                          low_floats);
      }
      char* to = out.address(n, 0, y, x);
      finish_pixel<groups, masked>(task, joined, low, mask.rows + x, direct ? reinterpret_cast<float*>(to) : result);
      if (!direct) store_channels(out, result, to);
    }
  }
}

inline void finish_rows(const GatedFinish& task, int64_t begin, int64_t end) {
  if (task.groups == 1) return finish<1, false>(task, begin, end);
  if (task.groups == 2) return task.mask ? finish<2, true>(task, begin, end) : finish<2, false>(task, begin, end);
  return task.mask ? finish<3, true>(task, begin, end) : finish<3, false>(task, begin, end);
}

#endif
