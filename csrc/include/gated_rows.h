// What the kernels of gated_conv have in common: rows of a part in, results of a part out, sums of a tile in registers.
// Inside an instruction set's namespace.

inline int64_t whole_vectors(int64_t count) { return (count + 15) / 16 * 16; }

// Room for so many floats and a vector more, in an odd number of cache lines: planes a multiple of 4 KB apart would displace
// each other.
inline int64_t plane_of(int64_t count) { return (count + lanes) / 32 * 32 + 48; }

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

// Pixel x of row y at first[y * step + x].
struct Channel {
  const float* first;
  int64_t step;
};

// Some rows and columns of a picture in float32: where they lie if they are that already, else as a copy.
class FloatRows {
 public:
  static int64_t step(int64_t columns) { return whole_vectors(columns + 2); }
  static int64_t floats(const Picture& picture, int64_t rows, int64_t columns) {
    return in_place(picture) ? 0 : picture.channels * rows * step(columns);
  }

  FloatRows(const Picture& picture, int64_t rows, int64_t columns, Scratch& scratch)
      : picture_(picture), rows_(rows), step_(step(columns)), copy_(scratch.take(floats(picture, rows, columns))) {}

  // Rows from `row` on, of which those the picture has.
  void read(int64_t n, int64_t row, const Columns& columns) {
    n_ = n;
    row_ = row;
    column_ = columns.begin;
    if (in_place(picture_)) return;
    for (int64_t y = std::max<int64_t>(row, 0); y < std::min(row + rows_, picture_.height); ++y)
      load_rows(picture_, n, y, columns.begin, columns.end - columns.begin, copy_ + (y - row) * step_, rows_ * step_);
  }
  Channel channel(int64_t c) const {
    if (in_place(picture_)) return {reinterpret_cast<const float*>(picture_.address(n_, c, 0, 0)), picture_.stride[2]};
    return {copy_ + (c * rows_ - row_) * step_ - column_, step_};
  }

 private:
  static bool in_place(const Picture& picture) { return picture.kind == Kind::f32 && picture.stride[3] == 1; }

  const Picture& picture_;
  const int64_t rows_, step_;
  float* const copy_;
  int64_t n_ = 0, row_ = 0, column_ = 0;
};

// The same of the mask, resized to the size of the result.
class MaskRows {
 public:
  static int64_t floats(const Picture& mask, int64_t rows, int64_t columns) {
    return (rows + 3) * FloatRows::step(columns) + 2 * whole_vectors(mask.width);
  }

  MaskRows(const Picture& mask, const Picture& fine, int64_t rows, int64_t columns, Scratch& scratch)
      : mask_(mask),
        fine_(fine),
        count_(rows),
        step_(FloatRows::step(columns)),
        rows_(scratch.take(rows * step_)),
        right_(scratch.take(step_)),
        first_(reinterpret_cast<int32_t*>(scratch.take(step_))),
        second_(reinterpret_cast<int32_t*>(scratch.take(step_))),
        above_(scratch.take(whole_vectors(mask.width))),
        below_(scratch.take(whole_vectors(mask.width))) {}

  void read(int64_t n, int64_t row, const Columns& columns) {
    row_ = row;
    column_ = columns.begin;
    const float scale = gated::scale_of(mask_.width, fine_.width);
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const gated::Between between = gated::between(x, mask_.width, scale);
      first_[x - columns.begin] = between.first;
      second_[x - columns.begin] = between.second;
      right_[x - columns.begin] = between.weight;
    }
    for (int64_t y = std::max<int64_t>(row, 0); y < std::min(row + count_, fine_.height); ++y)
      resize(n, y, columns.end - columns.begin);
  }
  Channel channel() const { return {rows_ - row_ * step_ - column_, step_}; }

 private:
  void resize(int64_t n, int64_t y, int64_t columns) const {
    const gated::Between between = gated::between(y, mask_.height, gated::scale_of(mask_.height, fine_.height));
    const int64_t first = first_[0], some = second_[columns - 1] + 1 - first;
    load_rows(mask_, n, between.first, first, some, above_ + first, 0);
    load_rows(mask_, n, between.second, first, some, below_ + first, 0);
    const float bottom = between.weight, top = 1.0f - bottom;
    for (int64_t x = first; x < first + some; ++x) above_[x] = top * above_[x] + bottom * below_[x];
    float* to = rows_ + (y - row_) * step_;
    for (int64_t x = 0; x < columns; ++x)
      to[x] = (1.0f - right_[x]) * above_[first_[x]] + right_[x] * above_[second_[x]];
  }

  const Picture &mask_, &fine_;
  const int64_t count_, step_;
  float *const rows_, *const right_;
  int32_t *const first_, *const second_;
  float *const above_, *const below_;
  int64_t row_ = 0, column_ = 0;
};

// Where a part begins: an image, a coarse row and column.
struct GatedPlace {
  int64_t n, row, column;
};

// A part's channels and what surrounds them by one coarse row and one pixel, 0 outside the picture, as planes in which a
// tap is a place for every pixel, and neighbours stay neighbours from row to row, so that vectors need not end with one.
class GatedRows {
 public:
  // Of the features columns j - 1, j and j + 1; of what is as fine as the result, for coarse column j, columns 2 j - 1, 2 j,
  // 2 j + 1 and 2 j + 2 of the even rows, and of the odd ones.
  static constexpr int features_planes = 3, fine_planes = 8;

  static int64_t floats(const GatedConv& task, const GatedCut& pieces) {
    const int64_t rows = fine_rows(pieces), columns = 2 * pieces.columns;
    return (task.features ? FloatRows::floats(*task.features, pieces.rows + 2, pieces.columns) : 0) +
           FloatRows::floats(task.skip, rows, columns) + (task.mask ? MaskRows::floats(*task.mask, rows, columns) : 0) +
           2 * FloatRows::step(columns);
  }
  // Of a plane, from the row above the part on.
  static int64_t plane(const GatedCut& pieces) { return plane_of((pieces.rows + 2) * pieces.columns); }

  GatedRows(const GatedConv& task, const GatedCut& pieces, Scratch& scratch)
      : task_(task),
        pieces_(pieces),
        plane_(plane(pieces)),
        skip_(task.skip, fine_rows(pieces), 2 * pieces.columns, scratch) {
    const int64_t columns = 2 * pieces.columns;
    if (task.features) features_.emplace(*task.features, pieces.rows + 2, pieces.columns, scratch);
    if (task.mask) mask_.emplace(*task.mask, task.skip, fine_rows(pieces), columns, scratch);
    zeros_ = scratch.take(FloatRows::step(columns));
    upsampled_ = scratch.take(FloatRows::step(columns));
    std::fill(zeros_, upsampled_, 0.0f);
  }

  void read(const GatedPlace& place) {
    place_ = place;
    const auto [n, row, column] = place;
    coarse_ = Columns::within(column - 1, column + pieces_.columns + 1, task_.coarse_width());
    fine_ = Columns::within(2 * column - 1, 2 * (column + pieces_.columns) + 1, task_.skip.width);
    skip_.read(n, 2 * row - 1, fine_);
    if (features_) features_->read(n, row - 1, coarse_);
    if (mask_) mask_->read(n, 2 * row - 1, fine_);
  }

  // The planes of a channel of the features.
  void spread_features(int64_t c, float* planes, Magnitude& magnitude) const {
    const Channel channel = features_->channel(c);
    for (int64_t r = 0; r < pieces_.rows + 2; ++r) {
      const int64_t y = place_.row - 1 + r;
      const float* row = y >= 0 && y < task_.coarse_height() ? channel.first + y * channel.step : zeros_ - coarse_.begin;
      float* to = planes + r * pieces_.columns;
      for (int64_t x = 0; x < pieces_.columns; x += lanes) {
        const int64_t j = place_.column + x;
        const Vec here = coarse_.at(row, j);
        magnitude.add(here);
        store(to + x, coarse_.at(row, j - 1));
        store(to + plane_ + x, here);
        store(to + 2 * plane_ + x, coarse_.at(row, j + 1));
      }
    }
  }
  // The planes of a channel of the skip or, after those, of the mask.
  void spread_fine(int64_t c, float* planes, Magnitude& magnitude) const {
    const Channel channel = c < task_.skip.channels ? skip_.channel(c) : mask_->channel();
    spread(planes, magnitude, [&](int64_t y) { return channel.first + y * channel.step; });
  }
  // The planes of a channel of the upsampled features: at odd sizes the last row or column is there once, not twice.
  void spread_upsampled(int64_t c, float* planes, Magnitude& magnitude) const {
    const Channel channel = features_->channel(c);
    spread(planes, magnitude, [&](int64_t y) {
      const float* from = channel.first + (y >> 1) * channel.step;
      for (int64_t x = fine_.begin; x < fine_.end; ++x) upsampled_[x - fine_.begin] = from[x >> 1];
      return upsampled_ - fine_.begin;
    });
  }

 private:
  static int64_t fine_rows(const GatedCut& pieces) { return 2 * pieces.rows + 2; }

  // Of the rows neither the even one above the part nor the odd one below it: no tap meets them. In whole vectors: what
  // they write past the end of a row is overwritten by the next.
  template <class Row>
  ABPN_INLINE void spread(float* planes, Magnitude& magnitude, const Row& row) const {
    for (int64_t r = 1; r < 2 * pieces_.rows + 3; ++r) {
      const int64_t y = 2 * place_.row - 2 + r;
      const float* from = y >= 0 && y < task_.skip.height ? row(y) : zeros_ - fine_.begin;
      float* to = planes + (r & 1) * 4 * plane_ + r / 2 * pieces_.columns;
      for (int64_t x = 0; x < pieces_.columns; x += lanes) {
        const int64_t i = 2 * (place_.column + x) - 1;
        const Pair before = separated(fine_.at(from, i), fine_.at(from, i + lanes));
        const Pair after = separated(fine_.at(from, i + 2), fine_.at(from, i + 2 + lanes));
        magnitude.add(before.second);
        magnitude.add(after.first);
        store(to + x, before.first);
        store(to + plane_ + x, before.second);
        store(to + 2 * plane_ + x, after.first);
        store(to + 3 * plane_ + x, after.second);
      }
    }
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  const int64_t plane_;
  FloatRows skip_;
  std::optional<FloatRows> features_;
  std::optional<MaskRows> mask_;
  float *zeros_, *upsampled_;
  GatedPlace place_{};
  Columns coarse_, fine_;
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
  static constexpr int64_t overrun = lanes;

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
constexpr int most_outs = registers == 32 ? packed_channels<groups> : packed_channels<groups> / 2;
template <int groups, int outs>
constexpr int most_vectors = (registers == 32 ? 27 : 12) / (groups * outs);
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
