// gated_conv with three channels out, the last of the network: too few for a convolution that has channels in its
// vectors. Here pixels are, and all convolutions run between load and store.
#ifndef ABPN_ISA

#include <optional>
#include <stdexcept>
#include <vector>

#include "operators.h"
#include "parallel.h"
#include "picture.h"

namespace abpn {

// Outputs of a pixel: features, gates and, where there is a skip convolution, kept; three each.
struct GatedPicture {
  Picture features, skip, out;
  std::optional<Picture> mask;
  // Six sums per row phase, channel, coarse row (2), column phase and coarse column (2).
  std::vector<float> phases;
  // As many sums as there are outputs, per channel and tap; six per tap.
  std::vector<float> skip_taps, mask_taps;
  float bias[9];
  bool kept;
  float negative_slope;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/gated_conv_picture.cpp"
#include "each_isa.h"

namespace abpn {
namespace {

// Nearest x2 and three taps are two taps on the coarse rows: phase 0 has w0 above, w1 + w2 here; phase 1 w0 + w1, w2 below.
float phase_weight(const float* w, int64_t py, int64_t px, int64_t ky, int64_t kx) {
  const auto covers = [](int64_t phase, int64_t k, int64_t tap) { return k == (tap > phase ? 1 : 0); };
  float sum = 0.0f;
  for (int64_t y = 0; y < 3; ++y)
    for (int64_t x = 0; x < 3; ++x)
      if (covers(py, ky, y) && covers(px, kx, x)) sum += w[3 * y + x];
  return sum;
}

void lay_out(GatedPicture& task, const std::vector<float>& weight, const std::vector<float>& skip_weight) {
  const int64_t features = task.features.channels, skip = task.skip.channels, outputs = task.kept ? 9 : 6;
  const int64_t inputs = features + skip + (task.mask ? 1 : 0);
  const auto filter = [&](int64_t output, int64_t input) { return weight.data() + (output * inputs + input) * 9; };
  for (int64_t py = 0; py < 2; ++py)
    for (int64_t c = 0; c < features; ++c)
      for (int64_t ky = 0; ky < 2; ++ky)
        for (int64_t px = 0; px < 2; ++px)
          for (int64_t kx = 0; kx < 2; ++kx)
            for (int64_t o = 0; o < 6; ++o) task.phases.push_back(phase_weight(filter(o, c), py, px, ky, kx));
  for (int64_t c = 0; c < skip; ++c)
    for (int64_t tap = 0; tap < 9; ++tap)
      for (int64_t o = 0; o < outputs; ++o)
        task.skip_taps.push_back(o < 6 ? filter(o, features + c)[tap] : skip_weight[((o - 6) * skip + c) * 9 + tap]);
  for (int64_t tap = 0; task.mask && tap < 9; ++tap)
    for (int64_t o = 0; o < 6; ++o) task.mask_taps.push_back(filter(o, features + skip)[tap]);
}

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(tensor.numel());
  read_floats(tensor, values.data());
  return values;
}

}  // namespace

void gated_conv_picture(Tensor features, Tensor skip, std::optional<Tensor> mask, Tensor weight, Tensor bias,
                        std::optional<Tensor> skip_weight, std::optional<Tensor> skip_bias, double negative_slope,
                        Tensor out) {
  GatedPicture task{input(features), input(skip), output(out), std::nullopt, {}, {}, {}, {}, skip_weight.has_value(),
                    static_cast<float>(negative_slope)};
  if (mask) task.mask = input(*mask);
  const Picture &fine = task.out, &coarse = task.features;
  if (fine.channels != 3 || fine.height != 2 * coarse.height || fine.width != 2 * coarse.width ||
      (mask && task.mask->kind != Kind::f32))
    throw std::runtime_error("gated_conv_picture takes three channels of an even size and a float mask");
  read_floats(bias, task.bias);
  if (task.kept) read_floats(*skip_bias, task.bias + 6);
  lay_out(task, floats_of(weight), task.kept ? floats_of(*skip_weight) : std::vector<float>());
  const auto gate_rows = ABPN_FOR_ISA(gate_picture_rows);
  over_rows(coarse.count, coarse.height, 4 * coarse.width,
            [&](int64_t begin, int64_t end) { gate_rows(task, begin, end); });
}

}  // namespace abpn

#else

#include "gate.h"

// The rows around a pair of rows, one plane per channel, in floats, 0 outside the image.
class GateRows {
 public:
  explicit GateRows(const GatedPicture& task)
      : task_(task),
        fine_((task.out.width + 2 * lanes - 1) / (2 * lanes) * 2 * lanes + 2 * lanes),
        coarse_(fine_ / 2 + lanes),
        planes_(task.skip.channels + (task.mask ? 1 : 0)),
        scratch_(3 * task.features.channels * coarse_ + 4 * planes_ * fine_ + 3 * fine_ + lanes),
        features_(scratch_.take(3 * task.features.channels * coarse_)),
        pictures_(scratch_.take(4 * planes_ * fine_)),
        result_(scratch_.take(3 * fine_ + lanes)) {}

  // Pixel -1 of a coarse row and of a fine row; the skip's channels, then the mask.
  float* feature(int64_t c, int64_t y) { return features_ + ((y + 3) % 3 * task_.features.channels + c) * coarse_; }
  float* picture(int64_t c, int64_t y) { return pictures_ + ((y + 4) % 4 * planes_ + c) * fine_; }
  float* result(int64_t c) { return result_ + c * fine_; }
  int64_t fine() const { return fine_; }

  void load_coarse(int64_t n, int64_t y) {
    if (y < 0 || y >= task_.features.height) return clear(feature(0, y), task_.features.channels * coarse_);
    load_rows(task_.features, n, y, 0, task_.features.width, feature(0, y) + 1, coarse_);
  }
  void load_fine(int64_t n, int64_t y) {
    if (y < 0 || y >= task_.out.height) return clear(picture(0, y), planes_ * fine_);
    load_rows(task_.skip, n, y, 0, task_.skip.width, picture(0, y) + 1, fine_);
    if (task_.mask) load_rows(*task_.mask, n, y, 0, task_.mask->width, picture(planes_ - 1, y) + 1, fine_);
  }

 private:
  static void clear(float* row, int64_t count) { std::fill(row, row + count, 0.0f); }

  const GatedPicture& task_;
  const int64_t fine_, coarse_, planes_;
  Scratch scratch_;
  float *const features_, *const pictures_, *const result_;
};

// Features and gates of 2 x lanes pixels from x on, biases included, to six rows of `sums`.
inline void add_phases(const GatedPicture& task, GateRows& rows, int64_t y, int64_t x, float* sums) {
  const int64_t channels = task.features.channels, below = y & 1;
  const float* weight = task.phases.data() + below * channels * 48;
  Vec left[6], right[6];
  for (int o = 0; o < 6; ++o) left[o] = right[o] = broadcast(task.bias[o]);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t ky = 0; ky < 2; ++ky, weight += 24) {
      const float* row = rows.feature(c, y / 2 - 1 + below + ky) + x / 2;
      const Vec before = in_register(load(row)), here = in_register(load(row + 1)), after = in_register(load(row + 2));
      for (int o = 0; o < 6; ++o) {
        left[o] = multiply_add(here, broadcast(weight[6 + o]), multiply_add(before, broadcast(weight[o]), left[o]));
        right[o] = multiply_add(after, broadcast(weight[18 + o]), multiply_add(here, broadcast(weight[12 + o]), right[o]));
      }
    }
  for (int o = 0; o < 6; ++o) store_alternating(sums + o * 2 * lanes, left[o], right[o]);
}

template <int outputs>
inline void gate_pixels(const GatedPicture& task, GateRows& rows, int64_t y, int64_t x, const float* sums, float* to) {
  Vec sum[outputs];
  for (int o = 0; o < outputs; ++o) sum[o] = o < 6 ? load(sums + o * 2 * lanes) : broadcast(task.bias[o]);
  const float* weight = task.skip_taps.data();
  for (int64_t c = 0; c < task.skip.channels; ++c)
    for (int64_t dy = -1; dy <= 1; ++dy)
      for (int64_t dx = 0; dx < 3; ++dx, weight += outputs) {
        const Vec value = in_register(load(rows.picture(c, y + dy) + x + dx));
        for (int o = 0; o < outputs; ++o) sum[o] = multiply_add(value, broadcast(weight[o]), sum[o]);
      }
  weight = task.mask_taps.data();
  for (int64_t dy = -1; task.mask && dy <= 1; ++dy)
    for (int64_t dx = 0; dx < 3; ++dx, weight += 6) {
      const Vec value = in_register(load(rows.picture(task.skip.channels, y + dy) + x + dx));
      for (int o = 0; o < 6; ++o) sum[o] = multiply_add(value, broadcast(weight[o]), sum[o]);
    }
  const Vec slope = broadcast(task.negative_slope);
  for (int c = 0; c < 3; ++c) {
    Vec value;
    if constexpr (outputs == 9)
      value = gated(sum[c], sum[3 + c], sum[6 + c], slope);
    else
      value = gated(sum[c], sum[3 + c], slope);
    store(to + c * rows.fine(), value);
  }
}

inline void gate_row(const GatedPicture& task, GateRows& rows, int64_t n, int64_t y) {
  float sums[6 * 2 * lanes];
  for (int64_t x = 0; x < task.out.width; x += 2 * lanes) {
    add_phases(task, rows, y, x, sums);
    for (int64_t i = 0; i < 2 * lanes; i += lanes) {
      float* to = rows.result(0) + x + i;
      if (task.kept)
        gate_pixels<9>(task, rows, y, x + i, sums + i, to);
      else
        gate_pixels<6>(task, rows, y, x + i, sums + i, to);
    }
  }
  store_rows(rows.result(0), rows.fine(), task.out, n, y, 0, task.out.width);
}

// Pairs of rows [begin, end), counted over all images.
inline void gate_picture_rows(const GatedPicture& task, int64_t begin, int64_t end) {
  GateRows rows(task);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t n = pair / task.features.height, y = pair % task.features.height;
    if (pair == begin || y == 0) {
      rows.load_coarse(n, y - 1);
      rows.load_coarse(n, y);
      rows.load_fine(n, 2 * y - 1);
      rows.load_fine(n, 2 * y);
    }
    rows.load_coarse(n, y + 1);
    rows.load_fine(n, 2 * y + 1);
    rows.load_fine(n, 2 * y + 2);
    gate_row(task, rows, n, 2 * y);
    gate_row(task, rows, n, 2 * y + 1);
  }
}

#endif
