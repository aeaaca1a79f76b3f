// What the kernels of gated_conv have in common: rows of a part in, results of a part out, sums of a tile in registers.
// Inside an instruction set's namespace.

inline int64_t whole_vectors(int64_t count) { return (count + 15) / 16 * 16; }

// The columns of a row that are there; any other is 0.
struct Columns {
  int64_t begin = 0, end = 0;

  // Those of [first, last) that a picture has.
  static Columns within(int64_t first, int64_t last, int64_t width) {
    return {std::max<int64_t>(first, 0), std::min(last, width)};
  }
  Vec at(const float* row, int64_t x) const {
    return x >= begin && x + lanes <= end ? load(row + x) : load_some(row + x, begin - x, end - x);
  }
};

// Of coarse column j the columns 2 j - 1, 2 j, 2 j + 1 and 2 j + 2.
struct FourColumns {
  Vec before, even, odd, after;
};

// A picture's rows of some columns in float32: where they lie if they are that already, else copies of the last few.
class FloatRows {
 public:
  static int64_t step(int64_t columns) { return whole_vectors(columns + 2); }
  static int64_t floats(const Picture& picture, int64_t columns, int64_t kept) {
    return in_place(picture) ? 0 : kept * picture.channels * step(columns);
  }

  FloatRows(const Picture& picture, int64_t columns, int64_t kept, Scratch& scratch)
      : picture_(picture), step_(step(columns)), kept_(kept), copies_(scratch.take(floats(picture, columns, kept))) {}

  void start(int64_t n, const Columns& columns) {
    n_ = n;
    columns_ = columns;
  }
  bool has(int64_t y) const { return y >= 0 && y < picture_.height; }
  // Before `row` for that y.
  void read(int64_t y) const {
    if (!in_place(picture_) && has(y))
      load_rows(picture_, n_, y, columns_.begin, columns_.end - columns_.begin, copy(0, y), step_);
  }
  // Pixel x at [x].
  const float* row(int64_t c, int64_t y) const {
    if (in_place(picture_)) return reinterpret_cast<const float*>(picture_.address(n_, c, y, 0));
    return copy(c, y) - columns_.begin;
  }

 private:
  static bool in_place(const Picture& picture) { return picture.kind == Kind::f32 && picture.stride[3] == 1; }
  float* copy(int64_t c, int64_t y) const { return copies_ + (y % kept_ * picture_.channels + c) * step_; }

  const Picture& picture_;
  const int64_t step_, kept_;
  float* const copies_;
  int64_t n_ = 0;
  Columns columns_;
};

// The same of the mask, resized to the size of the result.
class MaskRows {
 public:
  static int64_t floats(const Picture& mask, int64_t columns, int64_t kept) {
    return (kept + 3) * FloatRows::step(columns) + 2 * whole_vectors(mask.width);
  }

  MaskRows(const Picture& mask, const Picture& fine, int64_t columns, int64_t kept, Scratch& scratch)
      : mask_(mask),
        fine_(fine),
        step_(FloatRows::step(columns)),
        kept_(kept),
        rows_(scratch.take(kept * step_)),
        right_(scratch.take(step_)),
        first_(reinterpret_cast<int32_t*>(scratch.take(step_))),
        second_(reinterpret_cast<int32_t*>(scratch.take(step_))),
        above_(scratch.take(whole_vectors(mask.width))),
        below_(scratch.take(whole_vectors(mask.width))) {}

  void start(int64_t n, const Columns& columns) {
    n_ = n;
    columns_ = columns;
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const gated::Between between = gated::between(x, mask_.width, fine_.width);
      first_[x - columns.begin] = between.first;
      second_[x - columns.begin] = between.second;
      right_[x - columns.begin] = between.weight;
    }
  }
  void read(int64_t y) const {
    if (y < 0 || y >= fine_.height) return;
    const gated::Between between = gated::between(y, mask_.height, fine_.height);
    const int64_t count = columns_.end - columns_.begin, first = first_[0], some = second_[count - 1] + 1 - first;
    load_rows(mask_, n_, between.first, first, some, above_ + first, 0);
    load_rows(mask_, n_, between.second, first, some, below_ + first, 0);
    const float bottom = between.weight, top = 1.0f - bottom;
    for (int64_t x = first; x < first + some; ++x) above_[x] = top * above_[x] + bottom * below_[x];
    float* to = rows_ + y % kept_ * step_;
    for (int64_t x = 0; x < count; ++x)
      to[x] = (1.0f - right_[x]) * above_[first_[x]] + right_[x] * above_[second_[x]];
  }
  const float* row(int64_t y) const { return rows_ + y % kept_ * step_ - columns_.begin; }

 private:
  const Picture &mask_, &fine_;
  const int64_t step_, kept_;
  float *const rows_, *const right_;
  int32_t *const first_, *const second_;
  float *const above_, *const below_;
  int64_t n_ = 0;
  Columns columns_;
};

// Rows of a part and one pixel on each side of them, 0 outside the picture.
class GatedRows {
 public:
  // Of the last `kept` rows of each picture.
  static int64_t floats(const GatedConv& task, const GatedCut& pieces, int64_t kept) {
    const int64_t fine = 2 * pieces.columns;
    return (task.features ? FloatRows::floats(*task.features, pieces.columns, kept) : 0) +
           FloatRows::floats(task.skip, fine, kept) + (task.mask ? MaskRows::floats(*task.mask, fine, kept) : 0) +
           2 * FloatRows::step(fine);
  }

  GatedRows(const GatedConv& task, const GatedCut& pieces, int64_t kept, Scratch& scratch)
      : task_(task), width_(pieces.columns), skip_(task.skip, 2 * width_, kept, scratch) {
    if (task.features) features_.emplace(*task.features, width_, kept, scratch);
    if (task.mask) mask_.emplace(*task.mask, task.skip, 2 * width_, kept, scratch);
    zeros_ = scratch.take(FloatRows::step(2 * width_));
    upsampled_ = scratch.take(FloatRows::step(2 * width_));
    std::fill(zeros_, upsampled_, 0.0f);
  }

  // Coarse columns from `column` on, from now on.
  void start(int64_t n, int64_t column) {
    coarse_ = Columns::within(column - 1, column + width_ + 1, task_.coarse_width());
    fine_ = Columns::within(2 * column - 1, 2 * (column + width_) + 1, task_.skip.width);
    skip_.start(n, fine_);
    if (features_) features_->start(n, coarse_);
    if (mask_) mask_->start(n, fine_);
  }

  // Before the functions below for that y.
  void read_coarse(int64_t y) const { features_->read(y); }
  void read_fine(int64_t y) const {
    skip_.read(y);
    if (mask_) mask_->read(y);
  }

  // Row y of a channel of the features.
  const float* coarse(int64_t c, int64_t y) const {
    return features_->has(y) ? features_->row(c, y) : zeros_ - coarse_.begin;
  }
  // Row y of a channel of the skip or, after those, of the mask.
  const float* fine(int64_t c, int64_t y) const {
    if (!skip_.has(y)) return zeros_ - fine_.begin;
    return c < task_.skip.channels ? skip_.row(c, y) : mask_->row(y);
  }
  // Row y of a channel of the upsampled features: at odd sizes the last row or column is there once, not twice.
  const float* upsampled(int64_t c, int64_t y) const {
    if (!skip_.has(y)) return zeros_ - fine_.begin;
    const float* from = features_->row(c, y >> 1);
    for (int64_t x = fine_.begin; x < fine_.end; ++x) upsampled_[x - fine_.begin] = from[x >> 1];
    return upsampled_ - fine_.begin;
  }

  Vec coarse_at(const float* row, int64_t x) const { return coarse_.at(row, x); }
  FourColumns fine_around(const float* row, int64_t x) const {
    const Pair first = separated(fine_.at(row, 2 * x - 1), fine_.at(row, 2 * x - 1 + lanes));
    const Pair second = separated(fine_.at(row, 2 * x + 1), fine_.at(row, 2 * x + 1 + lanes));
    return {first.first, first.second, second.first, second.second};
  }

 private:
  const GatedConv& task_;
  const int64_t width_;
  FloatRows skip_;
  std::optional<FloatRows> features_;
  std::optional<MaskRows> mask_;
  float *zeros_, *upsampled_;
  Columns coarse_, fine_;
};

// Where a part begins: an image, a coarse row and column.
struct GatedPlace {
  int64_t n, row, column;
};

// `work(place, set)` for units [begin, end), which are sets of channels of one part after the other; each part is read once.
// Ends early where a part, of this thread or another, has values that the kernel is not for.
template <class Part, class Work>
void each_unit(const GatedCut& pieces, int64_t sets, int64_t begin, int64_t end, Part& part, std::atomic<bool>& ordinary,
               const Work& work) {
  GatedPlace place{0, 0, 0};
  int64_t held = -1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t at = unit / sets;
    if (at != held) {
      place = {at / pieces.parts(), at % pieces.parts() / pieces.blocks * pieces.rows, at % pieces.blocks * pieces.columns};
      if (!part.read(place)) ordinary = false;
      held = at;
    }
    if (!ordinary) return;
    work(place, unit % sets);
  }
}

// The results of a part, of some channels: pixels row by row, for every phase.
class GatedResults {
 public:
  // As far as a tile may reach beyond the last pixel.
  static constexpr int64_t overrun = 4 * lanes;

  static int64_t floats(const GatedCut& pieces, int64_t outs) {
    return (4 * step(pieces) + rows_step(pieces)) * outs;
  }

  GatedResults(const GatedConv& task, const GatedCut& pieces, Scratch& scratch, int64_t outs)
      : task_(task),
        pieces_(pieces),
        outs_(outs),
        step_(step(pieces)),
        rows_step_(rows_step(pieces)),
        results_(scratch.take(4 * outs * step_)),
        rows_(scratch.take(outs * rows_step_)) {}

  int64_t step() const { return step_; }
  float* at(int phase, int64_t o) const { return results_ + (phase * outs_ + o) * step_; }

  // Channels from `first` on, those there are.
  void write(const GatedPlace& place, int64_t first) const {
    const auto [n, row, column] = place;
    const int64_t count = std::min(outs_, task_.out.channels - first);
    if (count <= 0) return;
    const bool halved = task_.halved();
    const int64_t scale = halved ? 1 : 2, x = scale * column;
    Picture out = task_.out;
    out.data = out.address(0, first, 0, 0);
    out.channels = count;
    const int64_t columns = std::min(scale * pieces_.columns, out.width - x);
    for (int64_t r = 0; r < scale * pieces_.rows && scale * row + r < out.height; ++r) {
      const int64_t from = r / scale * pieces_.columns, y = scale * row + r;
      if (halved)
        store_rows(at(0, 0) + from, step_, out, n, y, x, columns);
      else
        store_rows(alternating(r % 2, from, count, columns), rows_step_, out, n, y, x, columns);
    }
  }

 private:
  static int64_t step(const GatedCut& pieces) { return whole_vectors(pieces.rows * pieces.columns + overrun); }
  static int64_t rows_step(const GatedCut& pieces) { return 2 * whole_vectors(pieces.columns); }

  // The columns of two phases.
  const float* alternating(int below, int64_t place, int64_t count, int64_t columns) const {
    for (int64_t o = 0; o < count; ++o) {
      const float *even = at(2 * below, o) + place, *odd = at(2 * below + 1, o) + place;
      for (int64_t x = 0; x < columns; x += 2 * lanes)
        store_alternating(rows_ + o * rows_step_ + x, load(even + x / 2), load(odd + x / 2));
    }
    return rows_;
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  const int64_t outs_, step_, rows_step_;
  float *const results_, *const rows_;
};

// Filters of this many channels out lie side by side; of those, the sums of as many as there are registers for are made
// at once, for some vectors of pixels.
template <int groups>
constexpr int packed_channels = groups == 1 ? 8 : 4;
template <int groups>
constexpr int most_outs = lanes == 16 ? packed_channels<groups> : packed_channels<groups> / 2;
template <int groups, int outs>
constexpr int most_vectors = (lanes == 16 ? 27 : 12) / (groups * outs);
// Features, and gates where there are some: what is made of features and mask.
template <int groups>
constexpr int with_gates = groups < 2 ? groups : 2;

// The sums of a tile, all in registers.
template <int groups, int outs, int vectors, class Lanes = Floats>
class GatedSums {
 public:
  // One tap of all channels, or lanes of channels, of some pixels, `step` floats apart.
  ABPN_INLINE void add(const float* from, int64_t step, int64_t channels, const float* weights) {
    constexpr int packed = packed_channels<groups>;
    for (int64_t c = 0; c < channels; ++c, from += step, weights += groups * packed) {
      __builtin_prefetch(weights + 1024);
      Vec pixels[vectors];
      repeat<vectors>([&](auto v) ABPN_INLINED { pixels[v] = in_register(load(from + v * lanes)); });
      repeat<groups>([&](auto g) ABPN_INLINED {
        repeat<outs>([&](auto o) ABPN_INLINED {
          const Vec weight = in_register(broadcast(weights[g * packed + o]));
          repeat<vectors>([&](auto v) ABPN_INLINED { Lanes::add(sums_[g][o][v], weight, pixels[v]); });
        });
      });
    }
  }

  // `body(group, channel, vector, sum)` for each.
  template <class Body>
  ABPN_INLINE void each(const Body& body) {
    repeat<groups>([&](auto g) ABPN_INLINED {
      repeat<outs>([&](auto o) ABPN_INLINED {
        repeat<vectors>([&](auto v) ABPN_INLINED { body(g, o, v, sums_[g][o][v]); });
      });
    });
  }

 private:
  Vec sums_[groups][outs][vectors];
};

// `body(q, vectors)` for all tiles of `count` pixels: two and two vectors rather than three and one, for which there are
// too few sums to hide the latency of one.
template <int most, class Body>
void each_tile(int64_t count, const Body& body) {
  for (int64_t q = 0; q < count;) {
    const int64_t left = (count - q + lanes - 1) / lanes;
    if (left >= most && left != most + 1) {
      body(q, std::integral_constant<int, most>{});
      q += most * lanes;
    } else if (left >= 2) {
      body(q, std::integral_constant<int, 2>{});
      q += 2 * lanes;
    } else {
      body(q, std::integral_constant<int, 1>{});
      q += lanes;
    }
  }
}

// A vector of the result from those of the sums, `group` floats apart.
template <int groups>
inline Vec finished(const float* sums, int64_t group, Vec slope) {
  const Vec feature = load(sums);
  if constexpr (groups == 1)
    return leaky_relu(feature, slope);
  else if constexpr (groups == 2)
    return gated(feature, load(sums + group), slope);
  else
    return gated(feature, load(sums + group), load(sums + 2 * group), slope);
}
