// gated_conv at even sizes with half the multiplications: products of transformed pixels and filters, of which the sums
// give all four phases of a coarse pixel.
// - Over the skip and the mask by Winograd's F(2 x 2, 3 x 3), 16 products for 36 (Lavin and Gray, Fast Algorithms for
//   Convolutional Neural Networks, 2016): down and across, of four neighbours d
//     m0 = (d0 - d2) w0, m1 = (d1 + d2) (w0 + w1 + w2) / 2, m2 = (d2 - d1) (w0 - w1 + w2) / 2, m3 = (d1 - d3) w2,
//     y0 = m0 + m1 + m2, y1 = m1 - m2 - m3.
// - Over upsampled features 9 for 36: of three coarse neighbours a, b, c
//     y0 = w0 (a - b) + (w0 + w1 + w2) b, y1 = (w0 + w1 + w2) b + w2 (c - b).
// Nothing is written between load and store but what stays in cache.
#ifndef ABPN_ISA

#include <atomic>

#include <torch/csrc/stable/ops.h>

#include "gated_conv.h"
#include "gated_plan.h"
#include "operators.h"

#define ABPN_SOURCE "../cpu/gated_conv.cpp"
#include "each_isa.h"

namespace abpn {

bool gated_conv(std::optional<Tensor> features, Tensor skip, std::optional<Tensor> mask,
                std::optional<Tensor> features_weight, Tensor skip_weight, Tensor bias, int64_t groups,
                double negative_slope, bool bf16, Tensor out) {
  GatedConv task = gated_conv_task(features, skip, mask, bias, groups, negative_slope, out);
  task.bf16 = bf16;
  if (bf16 && isa() != Isa::avx512_bf16) throw std::runtime_error("filters in pairs are for instruction set avx512_bf16");
  if (!task.even() || task.halved() || features.has_value() != features_weight.has_value())
    throw std::runtime_error("gated_conv takes even sizes, a stride of 1, and filters where there are features");
  const int64_t channels = task.channel_blocks() * task.packed_channels();
  const auto in_lanes = [&](int64_t inputs) { return bf16 ? (inputs + 1) / 2 : inputs; };
  const int64_t fine = in_lanes(task.skip.channels + (mask ? 1 : 0)), coarse = in_lanes(task.features_channels());
  task.skip_weight = packed_filters(skip_weight, 16 * fine * groups * channels, bf16);
  if (features)
    task.features_weight = packed_filters(*features_weight, 9 * coarse * std::min<int64_t>(groups, 2) * channels, bf16);
  const GatedCut pieces = cut(task, 9 * coarse + 16 * fine, 0);
  const int64_t units = task.out.count * pieces.parts() * task.channel_sets(pieces);
  const auto gate_units = ABPN_FOR_ISA(gate_units);
  std::atomic<bool> ordinary{true};
  if (units > 0)
    torch::stable::parallel_for(
        0, units, 1, [&](int64_t begin, int64_t end) { gate_units(task, pieces, begin, end, ordinary); });
  return ordinary;
}

}  // namespace abpn

#else

#include "gate.h"

#include "repeat.h"

#include "lanes.h"

#include "gated_rows.h"

// What the products take of a part: of every lane of channels a plane for each product, a coarse pixel after the other.
template <class Lanes>
class TransformedPart {
 public:
  static int64_t floats(const GatedConv& task, const GatedCut& pieces) {
    return plane(pieces) * (9 * packed(task.features_channels()) + 16 * packed(fine_channels(task))) +
           pack * GatedRows::fine_planes * GatedRows::plane(pieces) + GatedRows::floats(task, pieces);
  }

  TransformedPart(const GatedConv& task, const GatedCut& pieces, Scratch& scratch)
      : task_(task),
        pieces_(pieces),
        plane_(plane(pieces)),
        spread_plane_(GatedRows::plane(pieces)),
        features_(scratch.take(9 * packed(task.features_channels()) * plane_)),
        skip_(scratch.take(16 * packed(fine_channels(task)) * plane_)),
        spread_(scratch.take(pack * GatedRows::fine_planes * spread_plane_)),
        rows_(task, pieces, scratch) {}

  // Lanes of so many channels.
  static int64_t packed(int64_t channels) { return (channels + pack - 1) / pack; }
  static int64_t fine_channels(const GatedConv& task) { return task.skip.channels + (task.mask ? 1 : 0); }

  int64_t plane() const { return plane_; }
  const float* features(int product) const { return features_ + product * packed(task_.features_channels()) * plane_; }
  const float* skip(int product) const { return skip_ + product * packed(fine_channels(task_)) * plane_; }

  // Whether all values of the part are ordinary: an infinity, NaN or a huge one would spread to all four phases.
  bool read(const GatedPlace& place) {
    Magnitude magnitude;
    rows_.read(place);
    if (task_.features)
      transform<9>(task_.features->channels, features_,
                   [&](int64_t c, float* planes) { rows_.spread_features(c, planes, magnitude); },
                   [&](const float* planes, auto take) ABPN_INLINED { transform_features(planes, take); });
    transform<16>(fine_channels(task_), skip_,
                  [&](int64_t c, float* planes) { rows_.spread_fine(c, planes, magnitude); },
                  [&](const float* planes, auto take) ABPN_INLINED { transform_skip(planes, take); });
    return magnitude.within(most);
  }

 private:
  static constexpr int pack = Lanes::channels;
  static constexpr float most = 1024.0f;

  static int64_t plane(const GatedCut& pieces) { return plane_of(pieces.rows * pieces.columns); }

  // `take(product, vector)` gets the products of a vector of pixels, in the row above which `planes` begin.
  template <class Take>
  ABPN_INLINE void transform_features(const float* planes, const Take& take) const {
    Vec across[3][3];
    repeat<3>([&](auto r) ABPN_INLINED {
      const float* at = planes + r * pieces_.columns;
      const Vec b = load(at + spread_plane_);
      across[r][0] = load(at) - b;
      across[r][1] = b;
      across[r][2] = load(at + 2 * spread_plane_) - b;
    });
    repeat<3>([&](auto a) ABPN_INLINED {
      take(a, across[0][a] - across[1][a]);
      take(3 + a, across[1][a]);
      take(6 + a, across[2][a] - across[1][a]);
    });
  }

  template <class Take>
  ABPN_INLINE void transform_skip(const float* planes, const Take& take) const {
    Vec across[4][4];
    repeat<4>([&](auto r) ABPN_INLINED {
      // Rows 2 i - 1 to 2 i + 2, of which the odd ones lie in the second four planes.
      const float* at = planes + (r % 2 == 0 ? 4 : 0) * spread_plane_ + (r + 1) / 2 * pieces_.columns;
      const Vec before = load(at), even = load(at + spread_plane_), odd = load(at + 2 * spread_plane_);
      across[r][0] = before - odd;
      across[r][1] = even + odd;
      across[r][2] = odd - even;
      across[r][3] = even - load(at + 3 * spread_plane_);
    });
    repeat<4>([&](auto a) ABPN_INLINED {
      take(a, across[0][a] - across[2][a]);
      take(4 + a, across[1][a] + across[2][a]);
      take(8 + a, across[2][a] - across[1][a]);
      take(12 + a, across[1][a] - across[3][a]);
    });
  }

  // `spread(c, planes)` gives the planes of a channel, `products(planes, take)` their products.
  template <int count, class Spread, class Products>
  ABPN_INLINE void transform(int64_t channels, float* to, const Spread& spread, const Products& products) const {
    const int64_t product = packed(channels) * plane_, planes = GatedRows::fine_planes * spread_plane_;
    for (int64_t c = 0; c < channels; c += pack, to += plane_) {
      for (int64_t k = 0; k < std::min<int64_t>(pack, channels - c); ++k) spread(c + k, spread_ + k * planes);
      for (int64_t q = 0; q < pieces_.rows * pieces_.columns; q += lanes) {
        Vec values[count][pack];
        repeat<pack>([&](auto k) ABPN_INLINED {
          const bool there = c + k < channels;
          products(spread_ + k * planes + q,
                   [&](int p, Vec value) ABPN_INLINED { values[p][k] = k == 0 || there ? value : broadcast(0.0f); });
        });
        repeat<count>([&](auto p) ABPN_INLINED { store(to + p * product + q, Lanes::packed(values[p])); });
      }
    }
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  const int64_t plane_, spread_plane_;
  float *const features_, *const skip_, *const spread_;
  GatedRows rows_;
};

// One product of some pixels, for all lanes of channels that are read, plus the bias. A function of its own, or the compiler
// moves sums from register to register.
template <class Lanes, int groups, int outs, int vectors>
[[gnu::noinline]] void multiply(const float* pixels, int64_t step, int64_t channels, const float* weights,
                                const float* bias, float* to) {
  GatedSums<groups, outs, vectors, Lanes> sums;
  sums.each([&](auto g, auto o, auto, Vec& sum) ABPN_INLINED {
    sum = broadcast(bias == nullptr ? 0.0f : bias[g * packed_channels<groups> + o]);
  });
  sums.add(pixels, step, channels, weights);
  sums.each([&](auto g, auto o, auto v, Vec& sum) ABPN_INLINED {
    store(to + ((g * outs + o) * vectors + v) * lanes, sum);
  });
}

struct FourPhases {
  Vec y[4];
};

// From 16 products, `step` floats apart.
inline FourPhases phases_of_skip(const float* m, int64_t step) {
  Vec above[4], below[4];
  for (int across = 0; across < 4; ++across, m += step) {
    const Vec m0 = load(m), m1 = load(m + 4 * step), m2 = load(m + 8 * step), m3 = load(m + 12 * step);
    above[across] = m0 + m1 + m2;
    below[across] = m1 - m2 - m3;
  }
  return {above[0] + above[1] + above[2], above[1] - above[2] - above[3], below[0] + below[1] + below[2],
          below[1] - below[2] - below[3]};
}

// From 9 products.
inline void add_phases_of_features(FourPhases& sums, const float* m, int64_t step) {
  Vec left[3], right[3];
  for (int down = 0; down < 3; ++down, m += 3 * step) {
    const Vec here = load(m + step);
    left[down] = load(m) + here;
    right[down] = here + load(m + 2 * step);
  }
  sums = {sums.y[0] + (left[0] + left[1]), sums.y[1] + (right[0] + right[1]), sums.y[2] + (left[1] + left[2]),
          sums.y[3] + (right[1] + right[2])};
}

template <int groups, class Lanes>
class GatedUnit {
  using Part = TransformedPart<Lanes>;

 public:
  GatedUnit(const GatedConv& task, const GatedCut& pieces)
      : task_(task),
        pieces_(pieces),
        pixels_(pieces.rows * pieces.columns),
        // Of one channel block, the products of a tile are in L1 when they are summed.
        chunk_(pieces.channel_blocks == 1 ? vectors * lanes : pixels_),
        block_products_((chunk_ + GatedResults::overrun) * products * outs),
        scratch_(Part::floats(task, pieces) + GatedResults::floats(pieces, outs) +
                     pieces.channel_blocks * block_products_,
                 false),
        part_(task, pieces, scratch_),
        results_(task, pieces, scratch_, outs),
        products_(scratch_.take(pieces.channel_blocks * block_products_)) {}

  void run(int64_t begin, int64_t end, std::atomic<bool>& ordinary) {
    each_unit(pieces_, task_.channel_sets(pieces_), begin, end, part_, ordinary,
              [&](const GatedPlace& place, int64_t set) {
                const int64_t first = set * pieces_.channel_blocks;
                compute(place, first, std::min(first + pieces_.channel_blocks, task_.channel_blocks()));
              });
  }

 private:
  static constexpr int packed = packed_channels<groups>, gates = with_gates<groups>;
  static constexpr int outs = most_outs<groups>, vectors = most_vectors<groups, outs>;
  // Of a pixel and channel.
  static constexpr int64_t products = 16 * groups + 9 * gates;

  // The products of a tile from pixel q of the chunk on.
  float* tile(int64_t block, int64_t q) const { return products_ + block * block_products_ + q * products * outs; }

  // Channel blocks [begin, end). The outer loop is over products: of one, the pixels of many channels are in cache.
  void compute(const GatedPlace& place, int64_t begin, int64_t end) {
    for (int first = 0; first < packed; first += outs) {
      for (int64_t q = 0; q < pixels_; q += chunk_) {
        const int64_t count = std::min(chunk_, pixels_ - q);
        for (int product = 0; product < 16; ++product)
          for (int64_t block = begin; block < end; ++block)
            each_tile<vectors>(count, [&](int64_t i, auto some) {
              multiply_skip<some>(product, block, first, q + i, tile(block - begin, i));
            });
        for (int product = 0; task_.features && product < 9; ++product)
          for (int64_t block = begin; block < end; ++block)
            each_tile<vectors>(count, [&](int64_t i, auto some) {
              multiply_features<some>(product, block, first, q + i, tile(block - begin, i));
            });
        for (int64_t block = begin; block < end; ++block) {
          each_tile<vectors>(count, [&](int64_t i, auto some) { finish<some>(tile(block - begin, i), q + i); });
          if (q + count == pixels_) results_.write(place, block * packed + first);
        }
      }
    }
  }

  template <int some>
  void multiply_skip(int product, int64_t block, int first, int64_t q, float* to) const {
    const int64_t channels = Part::packed(Part::fine_channels(task_));
    const float* weights = task_.skip_weight + (block * 16 + product) * channels * groups * packed + first;
    // The product that all four phases add.
    const float* bias = product == 5 ? task_.bias + block * groups * packed + first : nullptr;
    multiply<Lanes, groups, outs, some>(part_.skip(product) + q, part_.plane(), channels, weights, bias,
                                        to + product * groups * outs * some * lanes);
  }

  template <int some>
  void multiply_features(int product, int64_t block, int first, int64_t q, float* to) const {
    const int64_t channels = Part::packed(task_.features_channels());
    const float* weights = task_.features_weight + (block * 9 + product) * channels * gates * packed + first;
    multiply<Lanes, gates, outs, some>(part_.features(product) + q, part_.plane(), channels, weights, nullptr,
                                       to + (16 * groups + product * gates) * outs * some * lanes);
  }

  template <int some>
  void finish(const float* tile, int64_t q) const {
    constexpr int64_t group = outs * some * lanes;
    const Vec slope = broadcast(task_.negative_slope);
    alignas(64) float sums[4][groups * lanes];
    for (int64_t o = 0; o < outs; ++o)
      for (int64_t v = 0; v < some; ++v) {
        const float* from = tile + (o * some + v) * lanes;
        for (int64_t g = 0; g < groups; ++g) {
          FourPhases phases = phases_of_skip(from + g * group, groups * group);
          if (task_.features && g < gates)
            add_phases_of_features(phases, from + (16 * groups + g) * group, gates * group);
          for (int phase = 0; phase < 4; ++phase) store(sums[phase] + g * lanes, phases.y[phase]);
        }
        for (int phase = 0; phase < 4; ++phase)
          store(results_.at(phase, o) + q + v * lanes, finished<groups>(sums[phase], lanes, slope));
      }
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  const int64_t pixels_, chunk_, block_products_;
  Scratch scratch_;
  Part part_;
  GatedResults results_;
  float* const products_;
};

template <class Lanes>
void gate_units_in(const GatedConv& task, const GatedCut& pieces, int64_t begin, int64_t end,
                   std::atomic<bool>& ordinary) {
  if (task.groups == 1) return GatedUnit<1, Lanes>(task, pieces).run(begin, end, ordinary);
  if (task.groups == 2) return GatedUnit<2, Lanes>(task, pieces).run(begin, end, ordinary);
  return GatedUnit<3, Lanes>(task, pieces).run(begin, end, ordinary);
}

inline void gate_units(const GatedConv& task, const GatedCut& pieces, int64_t begin, int64_t end,
                       std::atomic<bool>& ordinary) {
  if (task.bf16)
    gate_units_in<Bfloats>(task, pieces, begin, end, ordinary);
  else
    gate_units_in<Floats>(task, pieces, begin, end, ordinary);
}

#endif
