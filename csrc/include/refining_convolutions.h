// phi_1 with its leaky ReLU and phi_2, two rows at a time, by Winograd's F(2, 3) down the columns: four products instead
// of six for two outputs (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016). From four rows d:
//   m0 = (d0 - d2) g0, m1 = (d1 + d2) (g0 + g1 + g2) / 2, m2 = (d2 - d1) (g0 - g1 + g2) / 2, m3 = (d1 - d3) g2,
//   y0 = m0 + m1 + m2, y1 = m1 - m2 - m3.
// Infinities, NaN and huge values would spread from d1 and d2 where they do not belong: those rows go the direct way.

// Four rows of `step` floats a channel, or what F(2, 3) makes of them.
struct FourRows {
  float* row[4];
};

class RefiningConvolutions {
 public:
  // Beyond this magnitude a row goes the direct way.
  static constexpr float most = 1024.0f;

  explicit RefiningConvolutions(const RefiningWeights& weights) : plain_(weights) {
    for (int group = 0; group < groups; ++group)
      for (int i = 0; i < 6; ++i)
        for (int dx = 0; dx < 3; ++dx)
          for (int o = 0; o < channels1; ++o) {
            const auto& filter = weights.weight1[group * channels1 + o][i];
            float g[4];
            products(filter[0][dx], filter[1][dx], filter[2][dx], g);
            for (int r = 0; r < 4; ++r) weight1_[group][r][i][dx][o] = g[r];
          }
    for (int i = 0; i < 16; ++i)
      for (int dx = 0; dx < 3; ++dx)
        for (int o = 0; o < 3; ++o) {
          const auto& filter = weights.weight2[o][i];
          float g[4];
          products(filter[0][dx], filter[1][dx], filter[2][dx], g);
          for (int r = 0; r < 4; ++r) weight2_[r][i][dx][o] = g[r];
        }
    ordinary_ = bounded(weights);
  }

  // Whether rows of ordinary values give ordinary hidden rows and sums.
  bool ordinary() const { return ordinary_; }

  // Columns at a time: what the second convolution takes of them stays in L1. A window of it begins `before` columns
  // early, the last two of which it needs.
  static constexpr int64_t window = 96, before = 16, window_step = before + window;

  // A window of two hidden rows: `hidden` holds the two above them, `step` floats a channel, and takes them in their place;
  // `transformed` takes what the second convolution needs of all four. A row outside the image is nothing: `inside` is 0.
  void convolve1(const FourRows& input, float* const hidden[2], const float inside[2], int64_t step,
                 const FourRows& transformed, Prefetcher& ahead) const {
    constexpr int64_t columns = lanes * vectors1;
    alignas(64) float y0[channels1 * columns], y1[channels1 * columns];
    for (int64_t x = 0; x < window; x += columns) {
      for (int group = 0; group < groups; ++group) {
        const int64_t first = group * channels1, from = first * step + x, to = first * window_step + before + x;
        const auto accumulate = [&](int product, auto begin, auto end) {
          sum<6, channels1, vectors1>(input.row[product] + x, &weight1_[group][product][0][0][0], begin, end);
        };
        accumulate(1, Bias{plain_.bias1 + first}, Kept<columns>{y0});
        accumulate(2, Zero{}, BothSums<columns>{y0, y1});
        accumulate(0, Kept<columns>{y0},
                   HiddenRow0{hidden[0] + from, hidden[1] + from, step, transformed.row[0] + to, transformed.row[1] + to,
                              transformed.row[2] + to, inside[0]});
        accumulate(3, Kept<columns>{y1}, HiddenRow1{hidden[1] + from, step, transformed.row[3] + to, inside[1]});
        ahead.some();
      }
    }
  }

  // Two rows of the three results, for columns two before those of the window: `finish(row, column, step, sums)` gets
  // `window` columns of each.
  template <class Finish>
  void convolve2(const FourRows& transformed, Prefetcher& ahead, Finish&& finish) const {
    constexpr int64_t columns = lanes * vectors2;
    alignas(64) float y0[3 * columns], y1[3 * columns];
    for (int64_t x = 0; x < window; x += columns) {
      const auto accumulate = [&](int product, auto begin, auto end) {
        sum<16, 3, vectors2>(transformed.row[product] + before - 2 + x, &weight2_[product][0][0][0], begin, end);
      };
      accumulate(1, Bias{plain_.bias2}, Kept<columns>{y0});
      accumulate(2, Zero{}, BothSums<columns>{y0, y1});
      accumulate(0, Kept<columns>{y0}, Kept<columns>{y0});
      accumulate(3, Kept<columns>{y1}, Kept<columns>{y1});
      for (int c = 0; c < 3; ++c) {
        finish(0, c, x - 2, columns, y0 + c * columns);
        finish(1, c, x - 2, columns, y1 + c * columns);
      }
      ahead.some();
    }
  }

  // The same, the direct way, from the rows themselves.
  void convolve1_directly(const FourRows& input, float* const hidden[2], const float inside[2], int64_t step,
                          int64_t columns) const {
    for (int64_t x = 0; x < columns; x += lanes)
      for (int o = 0; o < 16; ++o)
        for (int row = 0; row < 2; ++row) {
          const Vec sum = sum_directly<6>(input, row, plain_.weight1[o], plain_.bias1[o], step, x);
          store(hidden[row] + o * step + x, inside[row] == 0 ? broadcast(0.0f) : leaky(sum));
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
  static constexpr int groups = 16 / channels1;

  static Vec leaky(Vec x) { return maximum(x, broadcast(0.2f) * x); }
  static Vec leaky(Vec x, float inside) { return maximum(broadcast(inside) * x, broadcast(0.2f * inside) * x); }

  // For m0, m1, m2 and, since y1 adds it to the rest, for -m3.
  static void products(double g0, double g1, double g2, float* g) {
    g[0] = static_cast<float>(g0);
    g[1] = static_cast<float>((g0 + g1 + g2) / 2);
    g[2] = static_cast<float>((g0 - g1 + g2) / 2);
    g[3] = static_cast<float>(-g2);
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

  // Where the sums of channel o, columns from i on, come from and go to.
  struct Zero {
    Vec operator()(int64_t, int64_t) const { return broadcast(0.0f); }
  };
  struct Bias {
    const float* bias;
    Vec operator()(int64_t o, int64_t) const { return broadcast(bias[o]); }
  };
  template <int64_t columns>
  struct Kept {
    float* sums;
    Vec operator()(int64_t o, int64_t i) const { return load(sums + o * columns + i); }
    void operator()(int64_t o, int64_t i, Vec sum) const { store(sums + o * columns + i, sum); }
  };
  // From m1, which y0 holds, and m2.
  template <int64_t columns>
  struct BothSums {
    float *y0, *y1;
    void operator()(int64_t o, int64_t i, Vec m2) const {
      const Vec m1 = load(y0 + o * columns + i);
      store(y0 + o * columns + i, m1 + m2);
      store(y1 + o * columns + i, m1 - m2);
    }
  };
  struct HiddenRow0 {
    float *d0, *d1;
    int64_t step;
    float *t0, *t1, *t2;
    float inside;
    void operator()(int64_t o, int64_t i, Vec sum) const {
      const Vec above = load(d0 + o * step + i), between = load(d1 + o * step + i), d2 = leaky(sum, inside);
      store(d0 + o * step + i, d2);
      store(t0 + o * window_step + i, above - d2);
      store(t1 + o * window_step + i, between + d2);
      store(t2 + o * window_step + i, d2 - between);
    }
  };
  struct HiddenRow1 {
    float* d1;
    int64_t step;
    float* t3;
    float inside;
    void operator()(int64_t o, int64_t i, Vec sum) const {
      const Vec between = load(d1 + o * step + i), d3 = leaky(sum, inside);
      store(d1 + o * step + i, d3);
      store(t3 + o * window_step + i, between - d3);
    }
  };

  // One of the four products: `vectors` vectors of `outputs` channels in registers. A function of its own, or the compiler
  // finds too few of them.
  template <int inputs, int outputs, int vectors, class Begin, class End>
  [[gnu::noinline]] static void sum(const float* from, const float* weights, Begin begin, End end) {
    Vec sums[outputs][vectors];
#pragma GCC unroll 8
    for (int o = 0; o < outputs; ++o)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sums[o][v] = begin(o, v * lanes);
    for (int i = 0; i < inputs; ++i, from += window_step) {
#pragma GCC unroll 3
      for (int dx = 0; dx < 3; ++dx) {
        Vec source[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) source[v] = in_register(load(from + dx + v * lanes));
#pragma GCC unroll 8
        for (int o = 0; o < outputs; ++o) {
          const Vec weight = in_register(broadcast(weights[o]));
#pragma GCC unroll 8
          for (int v = 0; v < vectors; ++v) add_product(sums[o][v], weight, source[v]);
        }
        weights += outputs;
      }
    }
#pragma GCC unroll 8
    for (int o = 0; o < outputs; ++o)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) end(o, v * lanes, sums[o][v]);
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
  float weight1_[groups][4][6][3][channels1], weight2_[4][16][3][3];
  bool ordinary_;
};
