// Eq. 5 and Eq. 3 in one pass: columns of the image are walked downwards with the last four rows of the six input
// channels and of the sixteen hidden channels in cache, two rows at a time.
#ifndef ABPN_ISA

#include "refine.h"

#include <limits>

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

// The hidden layer of a block is whole register tiles wide, of every instruction set, and reaches one column further than
// the block on each side. Narrower with a mask: all columns between the outermost that it reaches are computed.
constexpr int64_t hidden_columns_step = 48, widest_hidden = 768, widest_masked = 288;
// The pages of a strip's rows stay in the TLB from one block to the next.
constexpr int64_t tallest_strip = 128, shortest_strip = 16;

Cut cut(const Picture& image, bool masked) {
  const int64_t widest = masked ? widest_masked : widest_hidden;
  const auto parts = [](int64_t whole, int64_t part) { return (whole + part - 1) / part; };
  Cut cut;
  cut.blocks = parts(image.width, widest - 2);
  const int64_t hidden = parts(image.width, cut.blocks) + 2;
  // Even, so that every block begins where a low pixel begins.
  cut.block_columns = parts(hidden, hidden_columns_step) * hidden_columns_step - 2;
  cut.blocks = parts(image.width, cut.block_columns);
  // Of as few strips as there may be and some more, the number with which the slowest thread has the least to do. Two hidden
  // rows of each strip are computed twice.
  const int64_t threads = torch::stable::get_num_threads(), blocks = std::max<int64_t>(1, image.count * cut.blocks);
  const int64_t fewest = std::max(parts(image.height, tallest_strip), threads == 1 ? 1 : parts(4 * threads, blocks));
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int64_t strips = fewest; strips < fewest + threads; ++strips) {
    const int64_t rows = std::max(parts(image.height, 2 * strips) * 2, shortest_strip);
    const int64_t slowest = parts(parts(image.height, rows) * blocks, threads) * (rows + 2);
    if (slowest < least) {
      least = slowest;
      cut.strip_rows = rows;
    }
  }
  cut.strips = parts(image.height, cut.strip_rows);
  return cut;
}

}  // namespace

void refine(const Refinement& refinement) {
  const Cut pieces = cut(refinement.image, refinement.keeping.has_value());
  const int64_t units = refinement.image.count * pieces.blocks * pieces.strips;
  const auto refine_units = ABPN_FOR_ISA(refine_units);
  if (units > 0)
    torch::stable::parallel_for(
        0, units, 1, [&](int64_t begin, int64_t end) { refine_units(refinement, pieces, begin, end); });
}

}  // namespace abpn

#else

#include "polynomial.h"

#include "repeat.h"

#include "lanes.h"

#include "upsampling.h"

#include "refining_convolutions.h"

// What one thread keeps while it walks down a block. Channels of an input row: up(B), H, I.
template <class Lanes>
class RefineBlock {
  using Convolutions = RefiningConvolutions<Lanes>;

 public:
  static int64_t step(const Cut& pieces) { return (pieces.block_columns + 2 + 64) / 16 * 16; }
  static int64_t floats(const Cut& pieces) {
    return (4 * (9 + 16) + 2 * 3 + 3 + 2) * step(pieces) + 4 * (6 + 16) / pack * window_step +
           LevelRows::floats(low_columns(pieces));
  }

  RefineBlock(const Refinement& task, const Cut& pieces, Scratch& scratch)
      : task_(task),
        pieces_(pieces),
        convolutions_(task.weights),
        step_(step(pieces)),
        input_(scratch.take(4 * 9 * step_)),
        transformed_input_(four(scratch.take(4 * 6 / pack * window_step), 6 / pack * window_step)),
        hidden_(four(scratch.take(4 * 16 * step_), 16 * step_)),
        transformed_hidden_(four(scratch.take(4 * 16 / pack * window_step), 16 / pack * window_step)),
        result_(scratch.take(2 * 3 * step_)),
        row_(scratch.take(3 * step_)),
        mask_rows_(scratch.take(2 * step_)),
        level_(task.image, task.blend_low, task.image_low, scratch, low_columns(pieces)) {}

  // One strip of one block. What the mask keeps left, right, above and below of the rest is copied, and costs nothing more.
  void run(int64_t n, int64_t block, int64_t strip) {
    n_ = n;
    const int64_t left = block * pieces_.block_columns;
    const Columns all{left, std::min(left + pieces_.block_columns, task_.image.width)};
    const int64_t end = std::min((strip + 1) * pieces_.strip_rows, task_.image.height);
    for (int64_t y = strip * pieces_.strip_rows; y < end;) {
      Columns wanted = retouched(all, y, end);
      int64_t same = std::min(y + rows_kept_or_not, end);
      while (same < end) {
        const Columns next = retouched(all, same, end);
        if (next.empty() != wanted.empty()) break;
        wanted = {std::min(wanted.begin, next.begin), std::max(wanted.end, next.end)};
        same = std::min(same + rows_kept_or_not, end);
      }
      if (wanted.empty()) {
        copy(all, y, same);
      } else {
        start_columns(wanted);
        retouch(y, same);
        copy({all.begin, wanted.begin}, y, same);
        copy({wanted.end, all.end}, y, same);
      }
      y = same;
    }
  }

 private:
  struct Columns {
    int64_t begin, end;
    bool empty() const { return begin >= end; }
  };

  // The mask is looked at for this many rows of a block at a time; even, since rows are computed in pairs.
  static constexpr int64_t rows_kept_or_not = 16;
  static constexpr int64_t window = Convolutions::window, window_step = Convolutions::window_step;
  static constexpr int64_t pack = Lanes::channels;

  static int64_t low_columns(const Cut& pieces) { return pieces.block_columns / 2 + 2; }
  float* input(int64_t y) const { return input_ + (y & 3) * 9 * step_; }
  // With room for the two columns before the first.
  float* result(int64_t y) const { return result_ + (y & 1) * 3 * step_ + 16; }
  static FourRows four(float* rows, int64_t step) { return {{rows, rows + step, rows + 2 * step, rows + 3 * step}}; }
  FourRows inputs(int64_t y, int64_t x) const {
    return {{input(y) + x, input(y + 1) + x, input(y + 2) + x, input(y + 3) + x}};
  }

  void retouch(int64_t begin, int64_t end) {
    for (int64_t y = begin - 2; y < begin + 2; ++y) load_input(y);
    ordinary_ = false;
    convolve(begin - 2, false);
    for (int64_t y = begin; y < end; y += 2) {
      load_input(y + 2);
      load_input(y + 3);
      plan_prefetches(y);
      convolve(y, true);
      for (int64_t row = y; row < std::min(y + 2, end); ++row) finish(row);
    }
  }

  void copy(Columns columns, int64_t begin, int64_t end) {
    if (columns.empty()) return;
    for (int64_t y = begin; y < end; ++y)
      copy_pixels(task_.image, task_.out, n_, y, columns.begin, columns.end - columns.begin, row_);
  }

  // Columns, from an even one on, outside of which the upsampled mask is below the threshold for all of the next rows. It is
  // a mean of the cells around a pixel, up to rounding: a cell reaches half a cell beyond itself.
  Columns retouched(Columns all, int64_t y, int64_t end) const {
    if (!task_.keeping) return all;
    const auto& [mask, scale, threshold] = *task_.keeping;
    const int64_t first = taps(all.begin, mask.width, scale).first;
    const int64_t count = taps(all.end - 1, mask.width, scale).second - first + 1;
    const int64_t last_row = taps(std::min(y + rows_kept_or_not, end) - 1, mask.height, scale).second;
    Columns cells{count, 0};
    for (int64_t row = taps(y, mask.height, scale).first; row <= last_row; ++row) {
      load_rows(mask, n_, row, first, count, row_, 0);
      for (int64_t i = 0; i < count; ++i)
        if (!(row_[i] + 1e-6f * std::fabs(row_[i]) < threshold))
          cells = {std::min(cells.begin, i), std::max(cells.end, i + 1)};
    }
    if (cells.empty()) return {all.end, all.begin};
    const int64_t begin = ((2 * (first + cells.begin) - 1) * scale >> 1) & ~1, past = (2 * (first + cells.end) + 1) * scale;
    const bool outermost = first + cells.end == mask.width;
    return {std::max(begin, all.begin), outermost ? all.end : std::min((past + 1) >> 1, all.end)};
  }

  // Column 0 of an input row is x - 2, of a hidden row x - 1, of a result x.
  void start_columns(Columns columns) {
    x_ = columns.begin;
    columns_ = columns.end - columns.begin;
    hidden_columns_ = (columns_ + 2 + lanes * vectors1 - 1) / (lanes * vectors1) * (lanes * vectors1);
    begin_ = std::max<int64_t>(x_ - 2, 0);
    end_ = std::min(x_ - 2 + hidden_columns_ + 2, task_.image.width);
    level_.start(n_, begin_, end_);
    mask_row_held_[0] = mask_row_held_[1] = -1;
  }

  void load_input(int64_t y) {
    float* row = input(y);
    ordinary_row_[y & 3] = true;
    if (y < 0 || y >= task_.image.height) {
      std::fill(row, row + 9 * step_, 0.0f);
      return;
    }
    const int64_t before = begin_ - (x_ - 2), count = end_ - begin_;
    level_.load_row(y, row + before, row + 3 * step_ + before, row + 6 * step_ + before, step_);
    for (int64_t c = 0; c < 9; ++c) {
      float* channel = row + c * step_;
      std::fill(channel, channel + before, 0.0f);
      std::fill(channel + before + count, channel + hidden_columns_ + 2 + lanes, 0.0f);
    }
    Magnitude magnitude;
    for (int64_t c = 0; c < 6; ++c)
      for (int64_t i = 0; i < hidden_columns_ + 2; i += lanes) magnitude.add(load(row + c * step_ + i));
    ordinary_row_[y & 3] = magnitude.within(Convolutions::most);
  }

  // What the next step reads and what this one writes.
  void plan_prefetches(int64_t y) {
    ahead_.clear();
    const int64_t low_x = begin_ / 2, low_count = (end_ + 1) / 2 - low_x;
    if (!task_.out.stored_past_caches())
      for (int64_t row = y; row < y + 2; ++row) ahead_.add(task_.out, n_, row, x_, columns_);
    for (int64_t row = y + 4; row < y + 6; ++row) ahead_.add(task_.image, n_, row, begin_, end_ - begin_);
    ahead_.add(task_.blend_low, n_, y / 2 + 3, low_x, low_count);
    ahead_.add(task_.image_low, n_, y / 2 + 3, low_x, low_count);
  }

  // Hidden rows y + 1 and y + 2, and rows y and y + 1 of the result where they are wanted.
  void convolve(int64_t y, bool wanted) {
    const bool before = ordinary_;
    ordinary_ = convolutions_.ordinary() && ordinary_row_[0] && ordinary_row_[1] && ordinary_row_[2] && ordinary_row_[3];
    const bool at_once = before && ordinary_;
    if (task_.blending)
      convolve(y, at_once, wanted, [&](int row, auto... part) { blend(y + row, part...); });
    else
      convolve(y, at_once, wanted, [&](int row, auto... part) { add_residual(y + row, part...); });
  }

  template <class Finish>
  void convolve(int64_t y, bool at_once, bool wanted, Finish&& finish) {
    const auto inside = [&](int64_t row) { return row >= 0 && row < task_.image.height; };
    const bool rows_inside[2] = {inside(y + 1), inside(y + 2)};
    if (!at_once) std::memcpy(hidden_.row[2], hidden_.row[0], sizeof(float) * 2 * 16 * step_);
    for (int64_t x = 0; x < hidden_columns_; x += window) {
      float* const hidden[2] = {hidden_.row[0] + x, hidden_.row[1] + x};
      if (ordinary_) {
        transform(inputs(y, x));
        convolutions_.convolve1(transformed_input_, hidden, rows_inside, step_, transformed_hidden_, ahead_);
      } else {
        convolutions_.convolve1_directly(inputs(y, x), hidden, rows_inside, step_, window);
      }
      clear_outside(x);
      if (!at_once) continue;
      if (wanted)
        convolutions_.convolve2(
            transformed_hidden_, ahead_,
            [&](int row, int c, int64_t i, auto... sums) { finish(row, c, x + i, sums...); });
      keep_last_columns();
    }
    const FourRows all{{hidden_.row[2], hidden_.row[3], hidden_.row[0], hidden_.row[1]}};
    if (wanted && !at_once) convolutions_.convolve2_directly(all, step_, columns_, finish);
  }

  // A window of four input rows to what the products take of it.
  void transform(const FourRows& rows) const {
    for (int64_t lane = 0; lane < 6 / pack; ++lane) {
      const int64_t from = lane * pack * step_, to = lane * window_step;
      const float *d0 = rows.row[0] + from, *d1 = rows.row[1] + from;
      const float *d2 = rows.row[2] + from, *d3 = rows.row[3] + from;
      float *t0 = transformed_input_.row[0] + to, *t1 = transformed_input_.row[1] + to;
      float *t2 = transformed_input_.row[2] + to, *t3 = transformed_input_.row[3] + to;
      for (int64_t i = 0; i < window_step; i += lanes) {
        Vec m0[pack], m1[pack], m2[pack], m3[pack];
        repeat<pack>([&](auto channel) ABPN_INLINED {
          const int64_t at = channel * step_ + i;
          const Vec a = load(d0 + at), b = load(d1 + at), c = load(d2 + at), d = load(d3 + at);
          m0[channel] = a - c, m1[channel] = b + c, m2[channel] = c - b, m3[channel] = b - d;
        });
        store(t0 + i, Lanes::packed(m0));
        store(t1 + i, Lanes::packed(m1));
        store(t2 + i, Lanes::packed(m2));
        store(t3 + i, Lanes::packed(m3));
      }
    }
  }

  // Of this window of the transformed hidden rows, for the next.
  void keep_last_columns() const {
    for (int r = 0; r < 4; ++r)
      for (int64_t c = 0; c < 16 / pack * window_step; c += window_step)
        for (int64_t i = 0; i < Convolutions::before; i += lanes)
          store(transformed_hidden_.row[r] + c + i, load(transformed_hidden_.row[r] + c + window + i));
  }

  // The second convolution is padded with zeros, which is not what the first one gives beyond the sides.
  void clear_outside(int64_t x) const {
    const int64_t inside = std::max<int64_t>(task_.image.width - (x_ - 1) - x, 0);
    const bool left = x_ == 0 && x == 0;
    if (!left && inside >= window) return;
    const auto clear = [&](float* row) {
      if (left) row[0] = 0.0f;
      if (inside < window) std::fill(row + inside, row + window, 0.0f);
    };
    for (int r = 0; r < 2; ++r)
      for (int64_t c = 0; c < 16; ++c) clear(hidden_.row[r] + c * step_ + x);
    for (int r = 0; r < 4; ++r)
      for (int64_t lane = 0; lane < 16 / pack; ++lane)
        clear(transformed_hidden_.row[r] + lane * window_step + Convolutions::before);
  }

  void add_residual(int64_t y, int64_t c, int64_t x, int64_t count, const float* sums) const {
    const float* up = input(y) + c * step_ + 2 + x;
    float* to = result(y) + c * step_ + x;
    for (int64_t i = 0; i < count; i += lanes) store(to + i, load(sums + i) + load(up + i));
  }

  void blend(int64_t y, int64_t c, int64_t x, int64_t count, const float* sums) const {
    const float *up = input(y) + c * step_ + 2 + x, *image = up + 6 * step_;
    float* to = result(y) + c * step_ + x;
    const Polynomial j(task_.blending->j), k(task_.blending->k);
    const Vec strength = broadcast(task_.blending->strength);
    for (int64_t i = 0; i < count; i += lanes)
      store(to + i, blended(load(image + i), strength * (load(sums + i) + load(up + i)), j, k));
  }

  // The mask, and out with the row.
  void finish(int64_t y) {
    if (task_.keeping) keep(y, *task_.keeping);
    store_rows(result(y), step_, task_.out, n_, y, x_, columns_);
  }

  void keep(int64_t y, const Keeping& keeping) {
    const Taps vertical = taps(y, keeping.mask.height, keeping.scale);
    const float *above = mask_row(vertical.first), *below = mask_row(vertical.second);
    const Vec first_weight = broadcast(vertical.first_weight), second_weight = broadcast(vertical.second_weight);
    const Vec threshold = broadcast(keeping.threshold);
    const float* image = input(y) + 6 * step_ + 2;
    float* to = result(y);
    for (int64_t i = 0; i < columns_; i += lanes) {
      const Vec mask = first_weight * load(above + i) + second_weight * load(below + i);
      for (int64_t c = i; c < i + 3 * step_; c += step_)
        store(to + c, where_less(mask, threshold, load(image + c), load(to + c)));
    }
  }

  // Row y of the mask, upsampled across only; it serves many rows of the image.
  const float* mask_row(int64_t y) {
    float* to = mask_rows_ + (y & 1) * step_;
    if (mask_row_held_[y & 1] == y) return to;
    mask_row_held_[y & 1] = y;
    const auto& [mask, scale, threshold] = *task_.keeping;
    const int64_t first = taps(x_, mask.width, scale).first;
    const int64_t count = taps(x_ + columns_ - 1, mask.width, scale).second - first + 1;
    load_rows(mask, n_, y, first, count, row_, 0);
    for (int64_t i = 0; i < columns_; ++i) {
      const Taps across = taps(x_ + i, mask.width, scale);
      to[i] = across.first_weight * row_[across.first - first] + across.second_weight * row_[across.second - first];
    }
    return to;
  }

  const Refinement& task_;
  const Cut& pieces_;
  Convolutions convolutions_;
  int64_t step_;
  float* input_;
  FourRows transformed_input_;
  // The last two rows, and room for the two above them.
  FourRows hidden_, transformed_hidden_;
  float *result_, *row_, *mask_rows_;
  LevelRows level_;
  Prefetcher ahead_;
  int64_t n_ = 0, x_ = 0, columns_ = 0, hidden_columns_ = 0, begin_ = 0, end_ = 0;
  int64_t mask_row_held_[2] = {-1, -1};
  // Whether the rows in the ring, and the last pair of hidden rows, suit F(2, 3).
  bool ordinary_row_[4] = {false, false, false, false}, ordinary_ = false;
};

template <class Lanes>
void refine_units_in(const Refinement& task, const Cut& pieces, int64_t begin, int64_t end) {
  Scratch scratch(RefineBlock<Lanes>::floats(pieces));
  RefineBlock<Lanes> walker(task, pieces, scratch);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit % pieces.blocks, strip = unit / pieces.blocks % pieces.strips;
    walker.run(unit / pieces.blocks / pieces.strips, block, strip);
  }
  streamed();
}

inline void refine_units(const Refinement& task, const Cut& pieces, int64_t begin, int64_t end) {
  if (task.bf16 && isa() == Isa::avx512_bf16)
    refine_units_in<Bfloats>(task, pieces, begin, end);
  else
    refine_units_in<Floats>(task, pieces, begin, end);
}

#endif
