// Rows of the bilinear upsampling: half-pixel centres, edges replicated.

// Sample y of an axis upsampled by `scale` is first_weight * first + second_weight * second.
struct Taps {
  int64_t first, second;
  float first_weight, second_weight;
};

inline Taps taps(int64_t y, int64_t size, int64_t scale) {
  const double position = std::max((y + 0.5) / scale - 0.5, 0.0);
  const int64_t first = std::min(static_cast<int64_t>(position), size - 1);
  const float second_weight = static_cast<float>(position - first);
  // A mask of the image's size is copied: no neighbour, not even with weight 0.
  return {first, std::min(first + (scale > 1), size - 1), 1.0f - second_weight, second_weight};
}

// The rows of a picture of three channels that x2 upsampling reads for one range of columns, each loaded once.
class LowRows {
 public:
  // For up to `count` samples of the low picture.
  static int64_t step(int64_t count) { return (count + 2 + 2 * 16 + 15) / 16 * 16; }
  static int64_t floats(int64_t count) { return (2 * 3 + 1) * step(count); }

  LowRows(const Picture& low, Scratch& scratch, int64_t count)
      : low_(low), step_(step(count)), rows_(scratch.take(2 * 3 * step_)), between_(scratch.take(step_)) {}

  // Upsampled columns [2 * first, 2 * (first + count)) from now on.
  void start(int64_t n, int64_t first, int64_t count) {
    n_ = n;
    first_ = first;
    count_ = count;
    held_[0] = held_[1] = -1;
  }

  // Channel c of upsampled row y: `take(i, even, odd)` gets two vectors, of columns i, i + 2, ... and i + 1, i + 3, ...
  // for i = 0, 2 * lanes, ... from the first column on, whole vectors past the end.
  template <class Take>
  void upsample(int64_t y, int64_t c, Take&& take) {
    const Taps vertical = taps(y, low_.height, 2);
    const float* above = row(vertical.first) + c * step_;
    const float* below = row(vertical.second) + c * step_;
    const Vec first_weight = broadcast(vertical.first_weight), second_weight = broadcast(vertical.second_weight);
    for (int64_t i = 0; i < count_ + 2; i += lanes)
      store(between_ + i, multiply_add(second_weight, load(below + i), first_weight * load(above + i)));
    // As vertically: the outermost sample is the first with weight 1 and its neighbour with weight 0, not a mean.
    const float outermost = between_[1] + 0.0f * between_[low_.width > 1 ? 2 : 1];
    const Vec near = broadcast(0.75f), far = broadcast(0.25f);
    for (int64_t i = 0; i < count_; i += lanes) {
      const Vec here = near * load(between_ + i + 1);
      const Vec even = multiply_add(far, load(between_ + i), here);
      take(2 * i, first_ == 0 && i == 0 ? with_first(even, outermost) : even,
           multiply_add(far, load(between_ + i + 2), here));
    }
  }

 private:
  const float* row(int64_t y) {
    float* slot = rows_ + (y & 1) * 3 * step_;
    if (held_[y & 1] != y) {
      load_padded_rows(low_, n_, y, first_, count_, slot, step_);
      held_[y & 1] = y;
    }
    return slot;
  }

  Picture low_;
  int64_t step_;
  float *rows_, *between_;
  int64_t n_ = 0, first_ = 0, count_ = 0, held_[2] = {-1, -1};
};

// What the refining module sees of one level: up(B_{i+1}), H_i = I_i - up(I_{i+1}) and I_i, row by row of a range of columns.
class LevelRows {
 public:
  static int64_t floats(int64_t low_columns) { return 2 * LowRows::floats(low_columns); }

  LevelRows(const Picture& image, const Picture& blend_low, const Picture& image_low, Scratch& scratch, int64_t low_columns)
      : image_(image), blend_low_(blend_low, scratch, low_columns), image_low_(image_low, scratch, low_columns) {}

  // Columns [begin, end) from now on, from an even one.
  void start(int64_t n, int64_t begin, int64_t end) {
    n_ = n;
    begin_ = begin;
    count_ = end - begin;
    const int64_t low = begin / 2, low_count = (end + 1) / 2 - low;
    blend_low_.start(n, low, low_count);
    image_low_.start(n, low, low_count);
  }

  // Row y of the image, three channels a `step` apart each; whole vectors past the end.
  void load_row(int64_t y, float* up, float* high, float* image, int64_t step) {
    load_rows(image_, n_, y, begin_, count_, image, step);
    for (int64_t c = 0; c < 3; ++c, up += step, high += step, image += step) {
      blend_low_.upsample(y, c, [&](int64_t i, Vec even, Vec odd) { store_alternating(up + i, even, odd); });
      image_low_.upsample(y, c, [&](int64_t i, Vec even, Vec odd) {
        const Pair up_image = alternating(even, odd);
        store(high + i, load(image + i) - up_image.first);
        store(high + i + lanes, load(image + i + lanes) - up_image.second);
      });
    }
  }

 private:
  Picture image_;
  LowRows blend_low_, image_low_;
  int64_t n_ = 0, begin_ = 0, count_ = 0;
};
