// phi_1 with its leaky ReLU and phi_2, two rows at a time, with weights in the order the register tiles read them.
class RefiningConvolutions {
 public:
  explicit RefiningConvolutions(const RefiningWeights& weights) {
    std::memcpy(bias1_, weights.bias1, sizeof bias1_);
    std::memcpy(bias2_, weights.bias2, sizeof bias2_);
    for (int o = 0; o < 16; ++o)
      for (int i = 0; i < 6; ++i)
        for (int dy = 0; dy < 3; ++dy)
          for (int dx = 0; dx < 3; ++dx)
            weight1_[o / channels1][i][dx][dy][o % channels1] = weights.weight1[o][i][dy][dx];
    for (int o = 0; o < 3; ++o)
      for (int i = 0; i < 16; ++i)
        for (int dy = 0; dy < 3; ++dy)
          for (int dx = 0; dx < 3; ++dx) weight2_[i][dx][dy][o] = weights.weight2[o][i][dy][dx];
  }

  // Two hidden rows from four input rows; their column i comes from columns i .. i + 2.
  void convolve1(const float* const rows[4], float* const to[2], int64_t step, int64_t columns,
                 Prefetcher& ahead) const {
    for (int group = 0; group < 16 / channels1; ++group) {
      float* const group_to[2] = {to[0] + group * channels1 * step, to[1] + group * channels1 * step};
      const float* weights = &weight1_[group][0][0][0][0];
      for (int64_t x = 0; x < columns; x += lanes * vectors1) {
        tile<6, channels1, vectors1, true>(rows, weights, bias1_ + group * channels1, group_to, step, x);
        ahead.some();
      }
    }
  }

  // Two rows of the three results from four hidden rows, likewise.
  void convolve2(const float* const rows[4], float* const to[2], int64_t step, int64_t columns,
                 Prefetcher& ahead) const {
    for (int64_t x = 0; x < columns; x += lanes * vectors2) {
      tile<16, 3, vectors2, false>(rows, &weight2_[0][0][0][0], bias2_, to, step, x);
      ahead.some();
    }
  }

 private:
  // 2 rows of `vectors` vectors of `outputs` channels in registers.
  template <int inputs, int outputs, int vectors, bool leaky>
  static void tile(const float* const rows[4], const float* weights, const float* bias, float* const to[2],
                   int64_t step, int64_t x) {
    Vec sums[2][outputs][vectors];
    for (int o = 0; o < outputs; ++o)
      for (int v = 0; v < vectors; ++v) sums[0][o][v] = sums[1][o][v] = broadcast(bias[o]);
    for (int i = 0; i < inputs; ++i) {
      for (int dx = 0; dx < 3; ++dx) {
        Vec source[4][vectors];
        for (int r = 0; r < 4; ++r)
          for (int v = 0; v < vectors; ++v) source[r][v] = in_register(load(rows[r] + i * step + x + dx + v * lanes));
#pragma GCC unroll 3
        for (int dy = 0; dy < 3; ++dy) {
          // Innermost, so that the sums of one chain lie as far apart as the tile allows.
#pragma GCC unroll 8
          for (int o = 0; o < outputs; ++o) {
            const Vec weight = broadcast(*weights++);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) {
              sums[0][o][v] = multiply_add(weight, source[dy][v], sums[0][o][v]);
              sums[1][o][v] = multiply_add(weight, source[dy + 1][v], sums[1][o][v]);
            }
          }
        }
      }
    }
    for (int r = 0; r < 2; ++r)
      for (int o = 0; o < outputs; ++o)
        for (int v = 0; v < vectors; ++v) {
          const Vec sum = sums[r][o][v];
          store(to[r] + o * step + x + v * lanes, leaky ? maximum(sum, broadcast(0.2f) * sum) : sum);
        }
  }

  float weight1_[16 / channels1][6][3][3][channels1], bias1_[16];
  float weight2_[16][3][3][3], bias2_[3];
};
