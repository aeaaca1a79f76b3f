// Eq. 5 and Eq. 3 in one pass: columns of the image are walked downwards with the last four rows of the six input
// channels and of the sixteen hidden channels in cache, two rows at a time.
#ifndef ABPN_ISA

#include "refine.h"

#include "parallel.h"

namespace abpn {

// How a level is cut: every image into blocks of columns, every block into strips of rows.
struct Cut {
  int64_t block_columns, blocks, strip_rows, strips;
};

}  // namespace abpn

#define ABPN_SOURCE "../cpu/refine.cpp"
#include "each_isa.h"

namespace abpn {
namespace {

// The hidden layer of a block is a multiple of 32 columns wide and reaches one column further than the block on each side.
constexpr int64_t hidden_columns_step = 32, widest_hidden = 256;
// The pages of a strip's rows stay in the TLB from one block to the next.
constexpr int64_t tallest_strip = 128;

Cut cut(const Picture& image) {
  const auto parts = [](int64_t whole, int64_t part) { return (whole + part - 1) / part; };
  Cut cut;
  cut.blocks = parts(image.width, widest_hidden - 2);
  const int64_t hidden = parts(image.width, cut.blocks) + 2;
  // Even, so that every block begins where a low pixel begins.
  cut.block_columns = parts(hidden, hidden_columns_step) * hidden_columns_step - 2;
  cut.blocks = parts(image.width, cut.block_columns);
  // Two hidden rows of each strip are computed twice: long strips, unless that leaves threads without work.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t wanted = threads == 1 ? 1 : parts(4 * threads, std::max<int64_t>(1, image.count * cut.blocks));
  cut.strip_rows = std::clamp<int64_t>(parts(image.height, wanted), 16, tallest_strip) / 2 * 2;
  cut.strips = parts(image.height, cut.strip_rows);
  return cut;
}

}  // namespace

void refine(const Refinement& refinement) {
  const Cut pieces = cut(refinement.image);
  const int64_t units = refinement.image.count * pieces.blocks * pieces.strips;
  const auto refine_units = ABPN_FOR_ISA(refine_units);
  if (units > 0)
    torch::stable::parallel_for(
        0, units, 1, [&](int64_t begin, int64_t end) { refine_units(refinement, pieces, begin, end); });
}

}  // namespace abpn

#else

#include "polynomial.h"

#include "upsampling.h"

#include "refining_convolutions.h"

// What one thread keeps while it walks down a block. Channels of an input row: up(B), H, I.
class RefineBlock {
 public:
  static int64_t step(const Cut& pieces) { return (pieces.block_columns + 2 + 64) / 16 * 16; }
  static int64_t floats(const Cut& pieces) {
    return (4 * 9 + 4 * 16 + 2 * 3 + 3) * step(pieces) + 2 * LowRows::floats(low_columns(pieces));
  }

  RefineBlock(const Refinement& task, const Cut& pieces, Scratch& scratch)
      : task_(task),
        pieces_(pieces),
        weights_(task.weights),
        step_(step(pieces)),
        input_(scratch.take(4 * 9 * step_)),
        hidden_(scratch.take(4 * 16 * step_)),
        result_(scratch.take(2 * 3 * step_)),
        row_(scratch.take(3 * step_)),
        blend_low_(task.blend_low, scratch, low_columns(pieces)),
        image_low_(task.image_low, scratch, low_columns(pieces)) {}

  void run(int64_t n, int64_t block, int64_t strip) {
    n_ = n;
    x_ = block * pieces_.block_columns;
    const int64_t begin = strip * pieces_.strip_rows, end = std::min(begin + pieces_.strip_rows, task_.image.height);
    start_columns();
    for (int64_t y = begin - 2; y < begin + 2; ++y) load_input(y);
    convolve1(begin - 1);
    for (int64_t y = begin; y < end; y += 2) {
      load_input(y + 2);
      load_input(y + 3);
      plan_prefetches(y);
      convolve1(y + 1);
      convolve2(y);
      for (int64_t row = y; row < std::min(y + 2, end); ++row) finish(row);
    }
  }

 private:
  static int64_t low_columns(const Cut& pieces) { return pieces.block_columns / 2 + 2; }
  float* input(int64_t y) const { return input_ + (y & 3) * 9 * step_; }
  float* hidden(int64_t y) const { return hidden_ + (y & 3) * 16 * step_; }
  float* result(int64_t y) const { return result_ + (y & 1) * 3 * step_; }
  int64_t hidden_columns() const { return pieces_.block_columns + 2; }

  // Column 0 of an input row is x - 2, of a hidden row x - 1, of a result x.
  void start_columns() {
    columns_ = std::min(pieces_.block_columns, task_.image.width - x_);
    begin_ = std::max<int64_t>(x_ - 2, 0);
    end_ = std::min(x_ - 2 + hidden_columns() + 2, task_.image.width);
    const int64_t low = begin_ / 2, low_count = (end_ + 1) / 2 - low;
    blend_low_.start(n_, low, low_count);
    image_low_.start(n_, low, low_count);
  }

  void load_input(int64_t y) {
    float* row = input(y);
    if (y < 0 || y >= task_.image.height) {
      std::fill(row, row + 9 * step_, 0.0f);
      return;
    }
    const int64_t before = begin_ - (x_ - 2), count = end_ - begin_;
    for (int64_t c = 0; c < 3; ++c) blend_low_.upsample(y, c, row + c * step_ + before);
    load_rows(task_.image, n_, y, begin_, count, row + 6 * step_ + before, step_);
    for (int64_t c = 0; c < 3; ++c) {
      const float* image = row + (6 + c) * step_ + before;
      float* high = row + (3 + c) * step_ + before;
      image_low_.upsample(y, c, row_);
      for (int64_t i = 0; i < count; ++i) high[i] = image[i] - row_[i];
    }
    for (int64_t c = 0; c < 9; ++c) {
      float* channel = row + c * step_;
      std::fill(channel, channel + before, 0.0f);
      std::fill(channel + before + count, channel + step_, 0.0f);
    }
  }

  // What the next step reads and what this one writes.
  void plan_prefetches(int64_t y) {
    ahead_.clear();
    const int64_t low_x = begin_ / 2, low_count = (end_ + 1) / 2 - low_x;
    for (int64_t row = y; row < y + 2; ++row) ahead_.add(task_.out, n_, row, x_, columns_);
    for (int64_t row = y + 4; row < y + 6; ++row) ahead_.add(task_.image, n_, row, begin_, end_ - begin_);
    ahead_.add(task_.blend_low, n_, y / 2 + 3, low_x, low_count);
    ahead_.add(task_.image_low, n_, y / 2 + 3, low_x, low_count);
  }

  void convolve1(int64_t y) {
    const float* const rows[4] = {input(y - 1), input(y), input(y + 1), input(y + 2)};
    float* const to[2] = {hidden(y), hidden(y + 1)};
    weights_.convolve1(rows, to, step_, hidden_columns(), ahead_);
    clear_outside(y);
    clear_outside(y + 1);
  }

  // The second convolution is padded with zeros, which is not what the first one gives out there.
  void clear_outside(int64_t y) {
    float* row = hidden(y);
    if (y < 0 || y >= task_.image.height) {
      std::fill(row, row + 16 * step_, 0.0f);
      return;
    }
    const int64_t inside = task_.image.width - (x_ - 1);
    for (int64_t c = 0; c < 16; ++c) {
      if (x_ == 0) row[c * step_] = 0.0f;
      if (inside < hidden_columns()) std::fill(row + c * step_ + inside, row + c * step_ + hidden_columns(), 0.0f);
    }
  }

  void convolve2(int64_t y) {
    const float* const rows[4] = {hidden(y - 1), hidden(y), hidden(y + 1), hidden(y + 2)};
    float* const to[2] = {result(y), result(y + 1)};
    weights_.convolve2(rows, to, step_, pieces_.block_columns, ahead_);
  }

  // The residual, the blend and the mask of one row, and out with it.
  void finish(int64_t y) {
    const float* up = input(y) + 2;
    for (int64_t c = 0; c < 3; ++c) {
      float* channel = result(y) + c * step_;
      for (int64_t i = 0; i < columns_; i += lanes) store(channel + i, load(channel + i) + load(up + c * step_ + i));
    }
    if (task_.blending) blend(y, *task_.blending);
    if (task_.keeping) keep(y, *task_.keeping);
    store_rows(result(y), step_, task_.out, n_, y, x_, columns_);
  }

  void blend(int64_t y, const Blending& blending) {
    const float* image = input(y) + 6 * step_ + 2;
    const Polynomial j(blending.j), k(blending.k);
    const Vec strength = broadcast(blending.strength);
    for (int64_t c = 0; c < 3; ++c) {
      float* channel = result(y) + c * step_;
      for (int64_t i = 0; i < columns_; i += lanes)
        store(channel + i, blended(load(image + c * step_ + i), strength * load(channel + i), j, k));
    }
  }

  void keep(int64_t y, const Keeping& keeping) {
    const float* image = input(y) + 6 * step_ + 2;
    upsample_mask(y, keeping);
    const Vec threshold = broadcast(keeping.threshold);
    for (int64_t c = 0; c < 3; ++c) {
      float* channel = result(y) + c * step_;
      for (int64_t i = 0; i < columns_; i += lanes)
        store(channel + i, where_less(load(row_ + i), threshold, load(image + c * step_ + i), load(channel + i)));
    }
  }

  void upsample_mask(int64_t y, const Keeping& keeping) {
    const Picture& mask = keeping.mask;
    const Taps vertical = taps(y, mask.height, keeping.scale);
    const int64_t first = taps(x_, mask.width, keeping.scale).first;
    const int64_t count = taps(x_ + columns_ - 1, mask.width, keeping.scale).second - first + 1;
    float *above = row_ + step_, *below = row_ + 2 * step_;
    load_rows(mask, n_, vertical.first, first, count, above, 0);
    load_rows(mask, n_, vertical.second, first, count, below, 0);
    for (int64_t i = 0; i < columns_; ++i) {
      const Taps across = taps(x_ + i, mask.width, keeping.scale);
      const int64_t a = across.first - first, b = across.second - first;
      row_[i] = vertical.first_weight * (across.first_weight * above[a] + across.second_weight * above[b]) +
                vertical.second_weight * (across.first_weight * below[a] + across.second_weight * below[b]);
    }
  }

  const Refinement& task_;
  const Cut& pieces_;
  RefiningConvolutions weights_;
  int64_t step_;
  float *input_, *hidden_, *result_, *row_;
  LowRows blend_low_, image_low_;
  Prefetcher ahead_;
  int64_t n_ = 0, x_ = 0, columns_ = 0, begin_ = 0, end_ = 0;
};

inline void refine_units(const Refinement& task, const Cut& pieces, int64_t begin, int64_t end) {
  Scratch scratch(RefineBlock::floats(pieces));
  RefineBlock walker(task, pieces, scratch);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit % pieces.blocks, strip = unit / pieces.blocks % pieces.strips;
    walker.run(unit / pieces.blocks / pieces.strips, block, strip);
  }
}

#endif
