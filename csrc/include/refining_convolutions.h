// phi_1 with its leaky ReLU and phi_2, two rows at a time, by Winograd's F(2, 3) down the columns: four products instead
// of six for two outputs (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016). From four rows d:
//   m0 = (d0 - d2) g0, m1 = (d1 + d2) (g0 + g1 + g2) / 2, m2 = (d2 - d1) (g0 - g1 + g2) / 2, m3 = (d1 - d3) g2,
//   y0 = m0 + m1 + m2, y1 = m1 - m2 - m3.
// Infinities, NaN and huge values would spread from d1 and d2 where they do not belong: those rows go the direct way.

// Four rows of `step` floats a channel, or what F(2, 3) makes of them.
struct FourRows {
  float* row[4];
};

template <class Lanes>
class RefiningConvolutions {
 public:
  // Beyond this magnitude a row goes the direct way.
  static constexpr float most = 1024.0f;

  explicit RefiningConvolutions(const RefiningWeights& weights) : plain_(weights) {
    for (int o = 0; o < 16; ++o)
      for (int i = 0; i < 6; ++i)
        for (int dx = 0; dx < 3; ++dx)
          products(weights.weight1[o][i], dx, [&](int half, int product, float g) {
            Lanes::put(weight1_[o / channels1][half][i / pack][dx][product][o % channels1], i % pack, g);
          });
    for (int o = 0; o < 3; ++o)
      for (int i = 0; i < 16; ++i)
        for (int dx = 0; dx < 3; ++dx)
          products(weights.weight2[o][i], dx, [&](int half, int product, float g) {
            Lanes::put(weight2_[half][i / pack][dx][product][o], i % pack, g);
          });
    ordinary_ = bounded(weights);
  }

  // Whether rows of ordinary values give ordinary hidden rows and sums.
  bool ordinary() const { return ordinary_; }

  // Columns at a time: what the second convolution takes of them stays in L1. A window of it begins `before` columns
  // early, the last two of which it needs.
  static constexpr int64_t window = 48, before = 16, window_step = before + window;

  // A window of two hidden rows: `hidden` holds the two above them, `step` floats a channel, and takes them in their place;
  // `transformed` takes what the second convolution needs of all four. A row outside the image is nothing.
  void convolve1(const FourRows& input, float* const hidden[2], const bool inside[2], int64_t step,
                 const FourRows& transformed, Prefetcher& ahead) const {
    for (int64_t x = 0; x < window; x += lanes * vectors1) {
      for (int group = 0; group < groups; ++group) {
        const int64_t first = group * channels1, from = first * step + x;
        const int64_t to = first / pack * window_step + before + x;
        hidden_tile(input, x, group, hidden[0] + from, hidden[1] + from, inside, step, transformed, to);
        ahead.some();
      }
    }
  }

  // Two rows of the three results, for columns two before those of the window: `finish(row, column, step, sums)` gets
  // `window` columns of each.
  template <class Finish>
  void convolve2(const FourRows& transformed, Prefetcher& ahead, Finish&& finish) const {
    alignas(64) float y0[3 * columns], y1[3 * columns];
    for (int64_t x = 0; x < window; x += columns) {
      result_tile(transformed, before - 2 + x, y0, y1);
      for (int c = 0; c < 3; ++c) {
        finish(0, c, x - 2, columns, y0 + c * columns);
        finish(1, c, x - 2, columns, y1 + c * columns);
      }
      ahead.some();
    }
  }

  // The same, the direct way, from the rows themselves.
  void convolve1_directly(const FourRows& input, float* const hidden[2], const bool inside[2], int64_t step,
                          int64_t columns) const {
    for (int64_t x = 0; x < columns; x += lanes)
      for (int o = 0; o < 16; ++o)
        for (int row = 0; row < 2; ++row) {
          const Vec sum = sum_directly<6>(input, row, plain_.weight1[o], plain_.bias1[o], step, x);
          store(hidden[row] + o * step + x, inside[row] ? leaky(sum) : broadcast(0.0f));
        }
  }

  template <class Finish>
  void convolve2_directly(const FourRows& hidden, int64_t step, int64_t columns, Finish&& finish) const {
    alignas(64) float sums[lanes];
    for (int64_t x = 0; x < columns; x += lanes)
      for (int o = 0; o < 3; ++o)
        for (int row = 0; row < 2; ++row) {
          store(sums, sum_directly<16>(hidden, row, plain_.weight2[o], plain_.bias2[o], step, x));
          finish(row, o, x, lanes, sums);
        }
  }

 private:
  static constexpr int groups = 16 / channels1, pack = Lanes::channels;
  static constexpr int64_t columns = lanes * vectors2;

  static Vec leaky(Vec x) { return maximum(x, broadcast(0.2f) * x); }

  // For m1 and m2, then for m0 and, since y1 adds it to the rest, for -m3.
  template <class Take>
  static void products(const float (&filter)[3][3], int dx, Take&& take) {
    const double g0 = filter[0][dx], g1 = filter[1][dx], g2 = filter[2][dx];
    take(0, 0, static_cast<float>((g0 + g1 + g2) / 2));
    take(0, 1, static_cast<float>((g0 - g1 + g2) / 2));
    take(1, 0, static_cast<float>(g0));
    take(1, 1, static_cast<float>(-g2));
  }

  // Written so that NaN fails.
  static bool bounded(const RefiningWeights& weights) {
    constexpr double finite = 1e30;
    double hidden = 0;
    for (int o = 0; o < 16; ++o) {
      const double sum = reach(&weights.weight1[o][0][0][0], 54, weights.bias1[o], most);
      if (!(sum < finite)) return false;
      hidden = std::max(hidden, sum);
    }
    for (int o = 0; o < 3; ++o)
      if (!(reach(&weights.weight2[o][0][0][0], 144, weights.bias2[o], hidden) < finite)) return false;
    return true;
  }

  static double reach(const float* filter, int count, double bias, double largest) {
    double sum = std::fabs(bias);
    for (int i = 0; i < count; ++i) sum += largest * std::fabs(static_cast<double>(filter[i]));
    return sum;
  }

  // Sums of two rows, from so many lanes of inputs, in registers: every index is a constant, or the compiler keeps arrays
  // in memory.
  template <int inputs, int outputs, int vectors>
  struct Tile {
    Vec y0[outputs][vectors], y1[outputs][vectors];

    // `body(channel, vector, y0, y1)` for each.
    template <class Body>
    ABPN_INLINE void each(const Body& body) {
      repeat<outputs>([&](auto o) ABPN_INLINED {
        repeat<vectors>([&](auto v) ABPN_INLINED { body(o, v, y0[o][v], y1[o][v]); });
      });
    }

    // All four products: m1 and m2 first, of which both rows are made, then m0 and m3, which have one row each.
    ABPN_INLINE void sum(const FourRows& rows, int64_t x, const float* bias, const float* weights) {
      each([&](auto o, auto, Vec& m1, Vec& m2) ABPN_INLINED { m1 = broadcast(bias[o]), m2 = broadcast(0.0f); });
      add(rows.row[1] + x, rows.row[2] + x, weights);
      each([&](auto, auto, Vec& m1, Vec& m2) ABPN_INLINED {
        const Vec sum = m1 + m2;
        m2 = m1 - m2;
        m1 = sum;
      });
      add(rows.row[0] + x, rows.row[3] + x, weights + inputs * 3 * 2 * outputs);
    }

   private:
    ABPN_INLINE void add(const float* from0, const float* from1, const float* weights) {
#pragma GCC unroll 6
      for (int i = 0; i < inputs; ++i, from0 += window_step, from1 += window_step, weights += 3 * 2 * outputs) {
        repeat<3>([&](auto dx) ABPN_INLINED {
          add(y0, from0 + dx, weights + 2 * dx * outputs);
          add(y1, from1 + dx, weights + (2 * dx + 1) * outputs);
        });
      }
    }

    ABPN_INLINE static void add(Vec (&sums)[outputs][vectors], const float* from, const float* weights) {
      Vec source[vectors];
      repeat<vectors>([&](auto v) ABPN_INLINED { source[v] = in_register(load(from + v * lanes)); });
      repeat<outputs>([&](auto o) ABPN_INLINED {
        const Vec weight = in_register(broadcast(weights[o]));
        repeat<vectors>([&](auto v) ABPN_INLINED { Lanes::add(sums[o][v], weight, source[v]); });
      });
    }
  };

  // Functions of their own, or the compiler moves sums from register to register.
  [[gnu::noinline]] void hidden_tile(const FourRows& input, int64_t x, int group, float* d0, float* d1,
                                     const bool inside[2], int64_t step, const FourRows& transformed, int64_t to) const {
    Tile<6 / pack, channels1, vectors1> tile;
    tile.sum(input, x, plain_.bias1 + group * channels1, &weight1_[group][0][0][0][0][0]);
    const Vec zero = broadcast(0.0f);
    if (!inside[0]) tile.each([&](auto, auto, Vec& y0, Vec&) ABPN_INLINED { y0 = zero; });
    if (!inside[1]) tile.each([&](auto, auto, Vec&, Vec& y1) ABPN_INLINED { y1 = zero; });
    float *t0 = transformed.row[0] + to, *t1 = transformed.row[1] + to;
    float *t2 = transformed.row[2] + to, *t3 = transformed.row[3] + to;
    repeat<channels1 / pack>([&](auto lane) ABPN_INLINED {
      repeat<vectors1>([&](auto v) ABPN_INLINED {
        Vec m0[pack], m1[pack], m2[pack], m3[pack];
        repeat<pack>([&](auto c) ABPN_INLINED {
          constexpr int o = lane * pack + c;
          const int64_t from = o * step + v * lanes;
          const Vec above = load(d0 + from), between = load(d1 + from);
          const Vec d2 = leaky(tile.y0[o][v]), d3 = leaky(tile.y1[o][v]);
          store(d0 + from, d2);
          store(d1 + from, d3);
          m0[c] = above - d2, m1[c] = between + d2, m2[c] = d2 - between, m3[c] = between - d3;
        });
        const int64_t at = lane * window_step + v * lanes;
        store(t0 + at, Lanes::packed(m0));
        store(t1 + at, Lanes::packed(m1));
        store(t2 + at, Lanes::packed(m2));
        store(t3 + at, Lanes::packed(m3));
      });
    });
  }

  [[gnu::noinline]] void result_tile(const FourRows& transformed, int64_t x, float* to0, float* to1) const {
    Tile<16 / pack, 3, vectors2> tile;
    tile.sum(transformed, x, plain_.bias2, &weight2_[0][0][0][0][0]);
    tile.each([&](auto o, auto v, Vec& y0, Vec& y1) ABPN_INLINED {
      store(to0 + o * columns + v * lanes, y0);
      store(to1 + o * columns + v * lanes, y1);
    });
  }

  template <int inputs>
  static Vec sum_directly(const FourRows& from, int row, const float (&filter)[inputs][3][3], float bias, int64_t step,
                          int64_t x) {
    Vec sum = broadcast(bias);
    for (int i = 0; i < inputs; ++i)
      for (int dy = 0; dy < 3; ++dy)
        for (int dx = 0; dx < 3; ++dx)
          sum = multiply_add(broadcast(filter[i][dy][dx]), load(from.row[row + dy] + i * step + x + dx), sum);
    return sum;
  }

  const RefiningWeights& plain_;
  // [group][half][lane of inputs][dx][product][output]
  float weight1_[groups][2][6 / pack][3][2][channels1], weight2_[2][16 / pack][3][2][3];
  bool ordinary_;
};
