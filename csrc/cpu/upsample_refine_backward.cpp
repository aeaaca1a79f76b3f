// The gradient of Eq. 5: columns of a level are walked downwards, two rows of the sixteen hidden channels at a time, which
// are computed once more; what is kept is three rows of inputs, of the result's gradient and of the hidden layer's.
#ifndef ABPN_ISA

#include "refine.h"

#include <memory>

#include <torch/csrc/stable/ops.h>

#include "operators.h"

namespace abpn {

// Sums over pixels, in the order of the filters: of weight1, bias1, weight2, bias2.
constexpr int64_t sums1 = 16 * 6 * 9, sums2 = 3 * 16 * 9, all_sums = sums1 + 16 + sums2 + 3;

struct RefiningGradients {
  Picture grad, blend_low, image, image_low;
  RefiningWeights weights;
  // Of what the convolutions see: up(B_{i+1}), the residual included, and H_i where it is wanted.
  Picture grad_up;
  std::optional<Picture> grad_high;
  int64_t block_columns, blocks, strips;
  // `all_sums` of each unit.
  float* sums;
};

// Of every unit, whatever the threads, so that sums are added up in one order.
constexpr int64_t unit_columns = 238, unit_rows = 128;

}  // namespace abpn

#define ABPN_SOURCE "../cpu/upsample_refine_backward.cpp"
#include "each_isa.h"

namespace abpn {

void upsample_refine_backward(Tensor grad, Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1,
                              Tensor bias1, Tensor weight2, Tensor bias2, Tensor grad_up, std::optional<Tensor> grad_high,
                              Tensor sums) {
  RefiningGradients task{input(grad), input(blend_low), input(image), input(image_low),
                         refining_weights(weight1, bias1, weight2, bias2), output(grad_up), std::nullopt, 0, 0, 0, nullptr};
  if (grad_high) task.grad_high = output(*grad_high);
  const auto parts = [](int64_t whole, int64_t part) { return (whole + part - 1) / part; };
  task.blocks = parts(task.image.width, unit_columns);
  // Even, so that every block begins where a low pixel begins.
  task.block_columns = parts(parts(task.image.width, std::max<int64_t>(task.blocks, 1)), 2) * 2;
  task.strips = parts(task.image.height, unit_rows);
  const int64_t units = task.image.count * task.blocks * task.strips;
  const std::unique_ptr<float[]> found(new float[units * all_sums]);
  task.sums = found.get();
  const auto refine_backward_units = ABPN_FOR_ISA(refine_backward_units);
  if (units > 0)
    torch::stable::parallel_for(
        0, units, 1, [&](int64_t begin, int64_t end) { refine_backward_units(task, begin, end); });
  float* to = static_cast<float*>(sums.mutable_data_ptr());
  for (int64_t i = 0; i < all_sums; ++i) {
    double sum = 0;
    for (int64_t unit = 0; unit < units; ++unit) sum += found[unit * all_sums + i];
    to[i] = static_cast<float>(sum);
  }
}

}  // namespace abpn

#else

#include "repeat.h"

#include "upsampling.h"

// In registers at once: sums of a convolution, of so many outputs by so many vectors, and of products, of four channels by so
// many others by three taps.
constexpr int tile_outputs = 4, tile_vectors = registers == 32 ? 3 : 2, input_vectors = registers == 32 ? 4 : 3;
constexpr int tile_partners = registers == 32 ? 2 : 1;

// What one thread keeps while it walks down a block. Column `margin` of every row is the block's first.
class RefineBackwardBlock {
 public:
  static int64_t step(const RefiningGradients& task) { return (task.block_columns + 2 * margin + 48 + 15) / 16 * 16; }
  static int64_t floats(const RefiningGradients& task) {
    return (4 * (6 + 3 + 16) + 2 * 16 + 3 + 3) * step(task) + all_sums * lanes + LevelRows::floats(low_columns(task));
  }

  RefineBackwardBlock(const RefiningGradients& task, Scratch& scratch)
      : task_(task),
        step_(step(task)),
        input_(scratch.take(4 * 6 * step_)),
        grad_(scratch.take(4 * 3 * step_)),
        hidden_grad_(scratch.take(4 * 16 * step_)),
        hidden_(scratch.take(2 * 16 * step_)),
        image_(scratch.take(3 * step_)),
        result_(scratch.take(3 * step_)),
        sums_(scratch.take(all_sums * lanes)),
        level_(task.image, task.blend_low, task.image_low, scratch, low_columns(task)) {
    for (int o = 0; o < 16; ++o)
      for (int i = 0; i < 6; ++i)
        for (int t = 0; t < 9; ++t) {
          const float weight = task.weights.weight1[o][i][t / 3][t % 3];
          weight1_[o / tile_outputs][i][t][o % tile_outputs] = weight;
          back1_[i / 3][o][8 - t][i % 3] = weight;
        }
    for (int o = 0; o < 3; ++o)
      for (int i = 0; i < 16; ++i)
        for (int t = 0; t < 9; ++t)
          back2_[i / tile_outputs][o][8 - t][i % tile_outputs] = task.weights.weight2[o][i][t / 3][t % 3];
  }

  // One strip of one block; `sums` takes what its pixels add to the gradients of the filters.
  void run(int64_t n, int64_t block, int64_t strip, float* sums) {
    n_ = n;
    start_columns(block * task_.block_columns);
    std::fill(sums_, sums_ + all_sums * lanes, 0.0f);
    const int64_t begin = strip * unit_rows, end = std::min(begin + unit_rows, task_.image.height);
    take(begin - 2);
    take(begin - 1);
    for (int64_t y = begin - 1; y <= end; y += 2) {
      take(y + 1);
      take(y + 2);
      for (int64_t row = y; row < y + 2; ++row) {
        hide(row);
        if (row >= begin && row < end) add_products(row);
      }
      for (int64_t row = std::max(y - 1, begin); row < std::min(y + 1, end); ++row) finish(row);
    }
    for (int64_t i = 0; i < all_sums; ++i) {
      sums[i] = 0.0f;
      for (int64_t lane = 0; lane < lanes; ++lane) sums[i] += sums_[i * lanes + lane];
    }
  }

 private:
  static constexpr int64_t margin = 16;

  // A row between those above and below it.
  struct Around {
    const float* row[3];
  };

  static int64_t low_columns(const RefiningGradients& task) { return task.block_columns / 2 + 4; }
  float* input(int64_t y) const { return input_ + (y & 3) * 6 * step_; }
  float* grad(int64_t y) const { return grad_ + (y & 3) * 3 * step_; }
  float* hidden_grad(int64_t y) const { return hidden_grad_ + (y & 3) * 16 * step_; }
  float* hidden(int64_t y) const { return hidden_ + (y & 1) * 16 * step_; }
  bool is_inside(int64_t y) const { return y >= 0 && y < task_.image.height; }

  void start_columns(int64_t x) {
    x_ = x;
    columns_ = std::min(task_.block_columns, task_.image.width - x);
    begin_ = std::max<int64_t>(x_ - 2, 0);
    end_ = std::min(x_ + columns_ + 2, task_.image.width);
    level_.start(n_, begin_, end_);
  }

  // Row y of up(B), H and the result's gradient; nothing outside the image.
  void take(int64_t y) {
    float *row = input(y), *grads = grad(y);
    if (!is_inside(y)) {
      std::fill(row, row + 6 * step_, 0.0f);
      std::fill(grads, grads + 3 * step_, 0.0f);
      return;
    }
    const int64_t before = margin + begin_ - x_, count = end_ - begin_;
    level_.load_row(y, row + before, row + 3 * step_ + before, image_ + before, step_);
    load_rows(task_.grad, n_, y, begin_, count, grads + before, step_);
    clear_around(row, 6, before, count);
    clear_around(grads, 3, before, count);
  }

  void clear_around(float* row, int64_t channels, int64_t before, int64_t count) const {
    for (const float* end = row + channels * step_; row < end; row += step_) {
      std::fill(row, row + before, 0.0f);
      std::fill(row + before + count, row + step_, 0.0f);
    }
  }

  // Row y of the hidden layer and of its gradient before the leaky ReLU, a column more on either side of the block.
  void hide(int64_t y) {
    float *to = hidden(y), *grads = hidden_grad(y);
    if (!is_inside(y)) {
      std::fill(to, to + 16 * step_, 0.0f);
      std::fill(grads, grads + 16 * step_, 0.0f);
      return;
    }
    const Around inputs{{input(y - 1), input(y), input(y + 1)}}, results{{grad(y - 1), grad(y), grad(y + 1)}};
    for (int64_t x = margin - 1; x < margin + columns_ + 1; x += tile_vectors * lanes)
      for (int group = 0; group < 16 / tile_outputs; ++group) {
        const int64_t at = group * tile_outputs * step_ + x;
        convolve<6, tile_outputs, tile_vectors>(inputs, x, weight1_[group], task_.weights.bias1 + group * tile_outputs,
                                                to + at);
        convolve<3, tile_outputs, tile_vectors>(results, x, back2_[group], zeros_, grads + at);
        activate(to + at, grads + at);
      }
    const int64_t before = margin - std::min<int64_t>(x_, 1), past = std::min(columns_ + 1, task_.image.width - x_);
    clear_around(to, 16, before, margin + past - before);
    clear_around(grads, 16, before, margin + past - before);
  }

  void activate(float* hidden, float* grads) const {
    const Vec slope = broadcast(0.2f), zero = broadcast(0.0f);
    for (int64_t o = 0; o < tile_outputs; ++o, hidden += step_, grads += step_)
      for (int64_t i = 0; i < tile_vectors * lanes; i += lanes) {
        const Vec z = load(hidden + i), grad = load(grads + i);
        store(hidden + i, maximum(z, slope * z));
        store(grads + i, where_less(zero, z, grad, slope * grad));
      }
  }

  // Of the block's pixels of row y, which is in the image: each hidden pixel with all that it sees and is seen by.
  void add_products(int64_t y) {
    const float *grads = hidden_grad(y), *values = hidden(y);
    for (int o = 0; o < 16; o += tile_outputs)
      for (int dy = 0; dy < 3; ++dy) {
        const float *inputs = input(y + dy - 1), *results = grad(y + 1 - dy);
        for (int i = 0; i < 6; i += tile_partners)
          products<tile_partners, 6 * 9, 9, 1>(grads + o * step_, inputs + i * step_, (o * 6 + i) * 9 + dy * 3);
        constexpr int last = 3 % tile_partners;
        for (int i = 0; i + tile_partners <= 3; i += tile_partners)
          products<tile_partners, 9, 16 * 9, -1>(values + o * step_, results + i * step_,
                                                 sums1 + 16 + (i * 16 + o) * 9 + dy * 3);
        if constexpr (last > 0)
          products<last, 9, 16 * 9, -1>(values + o * step_, results + (3 - last) * step_,
                                        sums1 + 16 + ((3 - last) * 16 + o) * 9 + dy * 3);
      }
    for (int o = 0; o < 16; ++o) add_up(grads + o * step_, sums1 + o);
    for (int o = 0; o < 3; ++o) add_up(grad(y) + o * step_, sums1 + 16 + sums2 + o);
  }

  // To three taps' sums of four channels and `partners` others: their products over the columns of the block, the others
  // shifted by a column in the direction of the taps.
  template <int partners, int channel_sums, int partner_sums, int direction>
  [[gnu::noinline]] void products(const float* channels, const float* others, int64_t first) {
    float* const sums = sums_ + first * lanes;
    Vec sum[tile_outputs][partners][3];
    each<partners>([&](auto o, auto p, auto dx) ABPN_INLINED {
      sum[o][p][dx] = load(sums + (o * channel_sums + p * partner_sums + dx) * lanes);
    });
    const auto add = [&](int64_t x, const auto& read) ABPN_INLINED {
      Vec channel[tile_outputs];
      repeat<tile_outputs>([&](auto o) ABPN_INLINED { channel[o] = in_register(read(channels + o * step_ + x)); });
      repeat<partners>([&](auto p) ABPN_INLINED {
        repeat<3>([&](auto dx) ABPN_INLINED {
          const Vec other = in_register(read(others + p * step_ + x + direction * (dx - 1)));
          repeat<tile_outputs>([&](auto o) ABPN_INLINED { add_product(sum[o][p][dx], channel[o], other); });
        });
      });
    };
    int64_t x = margin;
    for (; x + lanes <= margin + columns_; x += lanes) add(x, [](const float* from) ABPN_INLINED { return load(from); });
    const int64_t left = margin + columns_ - x;
    if (left > 0) add(x, [&](const float* from) ABPN_INLINED { return load_some(from, 0, left); });
    each<partners>([&](auto o, auto p, auto dx) ABPN_INLINED {
      store(sums + (o * channel_sums + p * partner_sums + dx) * lanes, sum[o][p][dx]);
    });
  }

  template <int partners, class Body>
  ABPN_INLINE static void each(const Body& body) {
    repeat<tile_outputs>([&](auto o) ABPN_INLINED {
      repeat<partners>([&](auto p) ABPN_INLINED { repeat<3>([&](auto dx) ABPN_INLINED { body(o, p, dx); }); });
    });
  }

  void add_up(const float* row, int64_t index) {
    Vec sum = load(sums_ + index * lanes);
    int64_t x = margin;
    for (; x + lanes <= margin + columns_; x += lanes) sum = sum + load(row + x);
    store(sums_ + index * lanes, sum + load_some(row + x, 0, margin + columns_ - x));
  }

  // Row y of the results.
  void finish(int64_t y) {
    const Around around{{hidden_grad(y - 1), hidden_grad(y), hidden_grad(y + 1)}};
    for (int part = 0; part < (task_.grad_high ? 2 : 1); ++part) {
      for (int64_t x = margin; x < margin + columns_; x += input_vectors * lanes)
        convolve<16, 3, input_vectors>(around, x, back1_[part], zeros_, result_ + x);
      if (part == 0) {
        for (int64_t i = 0; i < 3 * step_; i += lanes) store(result_ + i, load(result_ + i) + load(grad(y) + i));
      }
      store_rows(result_ + margin, step_, part == 0 ? task_.grad_up : *task_.grad_high, n_, y, x_, columns_);
    }
  }

  // A register tile of a 3x3 convolution of three rows, `bias` included.
  template <int inputs, int outputs, int vectors>
  [[gnu::noinline]] void convolve(const Around& around, int64_t x, const float (&filters)[inputs][9][outputs],
                                  const float* bias, float* to) const {
    Vec sum[outputs][vectors];
    repeat<outputs>([&](auto o) ABPN_INLINED {
      repeat<vectors>([&](auto v) ABPN_INLINED { sum[o][v] = broadcast(bias[o]); });
    });
    for (int64_t i = 0; i < inputs; ++i)
      repeat<3>([&](auto dy) ABPN_INLINED {
        const float* from = around.row[dy] + i * step_ + x - 1;
        repeat<3>([&](auto dx) ABPN_INLINED {
          Vec source[vectors];
          repeat<vectors>([&](auto v) ABPN_INLINED { source[v] = in_register(load(from + dx + v * lanes)); });
          repeat<outputs>([&](auto o) ABPN_INLINED {
            const Vec weight = in_register(broadcast(filters[i][3 * dy + dx][o]));
            repeat<vectors>([&](auto v) ABPN_INLINED { add_product(sum[o][v], weight, source[v]); });
          });
        });
      });
    repeat<outputs>([&](auto o) ABPN_INLINED {
      repeat<vectors>([&](auto v) ABPN_INLINED { store(to + o * step_ + v * lanes, sum[o][v]); });
    });
  }

  const RefiningGradients& task_;
  int64_t step_;
  // Rings of four rows, and of two.
  float *input_, *grad_, *hidden_grad_, *hidden_;
  float *image_, *result_, *sums_;
  LevelRows level_;
  int64_t n_ = 0, x_ = 0, columns_ = 0, begin_ = 0, end_ = 0;
  // By tile: [input][tap][output]. A gradient goes through the filters the other way.
  float weight1_[16 / tile_outputs][6][9][tile_outputs], back1_[2][16][9][3];
  float back2_[16 / tile_outputs][3][9][tile_outputs];
  const float zeros_[tile_outputs] = {};
};

inline void refine_backward_units(const RefiningGradients& task, int64_t begin, int64_t end) {
  Scratch scratch(RefineBackwardBlock::floats(task));
  RefineBackwardBlock walker(task, scratch);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit % task.blocks, strip = unit / task.blocks % task.strips;
    walker.run(unit / task.blocks / task.strips, block, strip, task.sums + unit * all_sums);
  }
  streamed();
}

#endif
