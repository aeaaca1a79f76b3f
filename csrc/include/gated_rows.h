// What the kernels of gated_conv have in common: rows of a part in, results of a part out, sums of a tile in registers.
// Inside an instruction set's namespace.

// Zeros left and right of the rows that are read; no vector is longer.
constexpr int64_t gated_edge = 16;
inline int64_t whole_vectors(int64_t count) { return (count + 15) / 16 * 16; }

// Rows of a part and one pixel on each side of them, 0 outside the picture.
class GatedRows {
 public:
  static int64_t floats(const GatedConv& task, const GatedCut& pieces) {
    return coarse_step(pieces) * (task.features_channels() + 2) + fine_step(pieces) * fine_channels(task);
  }

  GatedRows(const GatedConv& task, const GatedCut& pieces, Scratch& scratch)
      : task_(task),
        columns_(pieces.columns),
        coarse_step_(coarse_step(pieces)),
        fine_step_(fine_step(pieces)),
        coarse_(cleared(scratch, coarse_step_ * task.features_channels())),
        even_(cleared(scratch, coarse_step_)),
        odd_(cleared(scratch, coarse_step_)),
        fine_(cleared(scratch, fine_step_ * fine_channels(task))) {}

  // Coarse columns from `column` on, from now on.
  void start(int64_t n, int64_t column) {
    n_ = n;
    column_ = column;
  }

  // Row y of the features: whether there is one.
  bool read_coarse(int64_t y) {
    if (y < 0 || y >= task_.features->height) return false;
    read(*task_.features, y, column_, columns_, coarse_, coarse_step_);
    return true;
  }
  const float* coarse(int64_t c) const { return coarse_ + c * coarse_step_; }

  // Row y of a picture as fine as the result.
  bool read_fine(const Picture& picture, int64_t y) {
    if (y < 0 || y >= picture.height) return false;
    read(picture, y, 2 * column_, 2 * columns_, fine_, fine_step_);
    return true;
  }
  // Row y of the upsampled features, from the coarse row that was read last.
  void upsample() {
    const int64_t end = task_.skip.width - 2 * column_;
    for (int64_t c = 0; c < task_.features->channels; ++c)
      for (int64_t x = -1; x <= 2 * columns_; ++x)
        fine_[c * fine_step_ + x] = x < end ? coarse(c)[x >> 1] : 0.0f;
  }

  // Even and odd columns of a channel of the fine row: of coarse column j there are 2 j and 2 j + 1, and for the columns
  // around it, `even()[columns]` and `odd()[-1]`.
  void split(int64_t c) {
    const float* from = fine_ + c * fine_step_;
    for (int64_t x = 0; x < columns_; x += lanes) {
      const Pair pair = separated(load(from + 2 * x), load(from + 2 * x + lanes));
      store(even_ + x, pair.first);
      store(odd_ + x, pair.second);
    }
    odd_[-1] = from[-1];
    even_[columns_] = from[2 * columns_];
  }
  const float* even() const { return even_; }
  const float* odd() const { return odd_; }

 private:
  static int64_t coarse_step(const GatedCut& pieces) { return whole_vectors(pieces.columns) + 2 * gated_edge; }
  static int64_t fine_step(const GatedCut& pieces) { return 2 * whole_vectors(pieces.columns) + 2 * gated_edge; }
  static int64_t fine_channels(const GatedConv& task) { return std::max(task.skip.channels, task.features_channels()) + 1; }

  // Zeros beyond the columns that are read, too: whole vectors are.
  static float* cleared(Scratch& scratch, int64_t floats) {
    float* rows = scratch.take(floats);
    std::fill(rows, rows + floats, 0.0f);
    return rows + gated_edge;
  }

  // `count` pixels of every channel from column x on, and one on each side.
  void read(const Picture& picture, int64_t y, int64_t x, int64_t count, float* to, int64_t step) const {
    const int64_t begin = std::max<int64_t>(x - 1, 0), end = std::min(x + count + 1, picture.width);
    load_rows(picture, n_, y, begin, end - begin, to + begin - x, step);
    for (int64_t c = 0; c < picture.channels; ++c, to += step) {
      std::fill(to - 1, to + begin - x, 0.0f);
      std::fill(to + end - x, to + count + 1, 0.0f);
    }
  }

  const GatedConv& task_;
  const int64_t columns_, coarse_step_, fine_step_;
  int64_t n_ = 0, column_ = 0;
  float *const coarse_, *const even_, *const odd_, *const fine_;
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
  static int64_t rows_step(const GatedCut& pieces) { return 2 * whole_vectors(pieces.columns) + 2 * gated_edge; }

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
