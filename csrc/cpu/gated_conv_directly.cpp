// Convolutions of every size and stride, and of any values, tap by tap: pixels are in the vectors, all sums of some channels
// in registers.
#ifndef ABPN_ISA

#include <atomic>
#include <limits>

#include <torch/csrc/stable/ops.h>

#include "gated_conv.h"
#include "gated_plan.h"
#include "operators.h"

#define ABPN_SOURCE "../cpu/gated_conv_directly.cpp"
#include "each_isa.h"

namespace abpn {

bool gated_conv_directly(std::optional<Tensor> features, Tensor skip, std::optional<Tensor> mask,
                         std::optional<Tensor> features_weight, std::optional<Tensor> mask_weight, Tensor skip_weight,
                         Tensor bias, int64_t groups, double negative_slope, Tensor out) {
  GatedConv task = gated_conv_task(features, skip, mask, bias, groups, negative_slope, out);
  if (features.has_value() != features_weight.has_value() || mask.has_value() != mask_weight.has_value())
    throw std::runtime_error("there must be filters for features and mask where these are");
  const int64_t channels = task.channel_blocks() * task.packed_channels(), gated = std::min<int64_t>(groups, 2) * channels;
  task.skip_weight = packed_filters(skip_weight, 9 * task.skip.channels * groups * channels);
  if (mask) task.mask_weight = packed_filters(*mask_weight, 9 * gated);
  if (features) {
    const int64_t taps = 9 * task.features_channels() * gated;
    task.phased = task.even() && features_weight->numel() != taps;
    task.features_weight = packed_filters(*features_weight, task.phased ? taps / 9 * 16 : taps);
  }
  const GatedCut pieces = cut(task, (task.phased ? 3 : 8) * task.features_channels() + 8 * (task.skip.channels + 1), 2);
  const int64_t units = task.out.count * pieces.parts() * task.channel_blocks();
  const auto gate_units_directly = ABPN_FOR_ISA(gate_units_directly);
  std::atomic<bool> ordinary{true};
  if (units > 0)
    torch::stable::parallel_for(
        0, units, 1, [&](int64_t begin, int64_t end) { gate_units_directly(task, pieces, begin, end, ordinary); });
  return ordinary;
}

}  // namespace abpn

#else

#include "gate.h"

#include "repeat.h"

#include "lanes.h"

#include "gated_rows.h"

// The planes of all channels of a part.
class ShiftedPart {
 public:
  static int64_t floats(const GatedConv& task, const GatedCut& pieces) {
    const int64_t fine = GatedRows::fine_planes * (task.skip.channels + 1);
    return GatedRows::plane(pieces) * (features_planes(task) * task.features_channels() + fine) +
           GatedRows::floats(task, pieces);
  }

  ShiftedPart(const GatedConv& task, const GatedCut& pieces, Scratch& scratch)
      : task_(task),
        pieces_(pieces),
        plane_(GatedRows::plane(pieces)),
        features_(scratch.take(plane_ * features_planes(task) * task.features_channels())),
        skip_(scratch.take(plane_ * GatedRows::fine_planes * task.skip.channels)),
        mask_(scratch.take(plane_ * GatedRows::fine_planes)),
        rows_(task, pieces, scratch) {}

  int64_t plane() const { return plane_; }
  // From the first row of the part on.
  const float* features() const { return features_ + pieces_.columns; }
  const float* skip() const { return skip_ + pieces_.columns; }
  const float* mask() const { return mask_ + pieces_.columns; }

  // Whether the features may meet filters that are sums of taps.
  bool read(const GatedPlace& place) {
    Magnitude magnitude, ignored;
    rows_.read(place);
    for (int64_t c = 0; c < task_.features_channels(); ++c) {
      float* planes = features_ + c * features_planes(task_) * plane_;
      if (task_.phased)
        rows_.spread_features(c, planes, magnitude);
      else
        rows_.spread_upsampled(c, planes, ignored);
    }
    for (int64_t c = 0; c < task_.skip.channels; ++c)
      rows_.spread_fine(c, skip_ + c * GatedRows::fine_planes * plane_, ignored);
    if (task_.mask) rows_.spread_fine(task_.skip.channels, mask_, ignored);
    return magnitude.within(std::numeric_limits<float>::max());
  }

 private:
  static int64_t features_planes(const GatedConv& task) {
    return task.phased ? GatedRows::features_planes : GatedRows::fine_planes;
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  const int64_t plane_;
  float *const features_, *const skip_, *const mask_;
  GatedRows rows_;
};

// One kind of input of a tile: where its planes are, and its filters for the channels at hand.
struct ShiftedSource {
  const float* planes;
  int64_t step, channels;
  int taps;
  int64_t offsets[9];
  const float* weights;
};

struct ShiftedSources {
  ShiftedSource features, mask, skip;
  const float* bias;
};

// Adds some taps of a source, for some pixels from q on. A function of its own, or the compiler moves sums from register to
// register.
template <int groups, int outs, int vectors>
[[gnu::noinline]] void add_taps(const ShiftedSource& source, int first, int end, int64_t q, float* to) {
  const float* weights = source.weights + first * source.channels * groups * packed_channels<groups>;
  GatedSums<groups, outs, vectors> sums;
  sums.each([&](auto, auto, auto, Vec& sum) ABPN_INLINED { sum = broadcast(0.0f); });
  for (int tap = first; tap < end; ++tap, weights += source.channels * groups * packed_channels<groups>)
    sums.add(source.planes + source.offsets[tap] + q, source.step, source.channels, weights);
  sums.each([&](auto g, auto o, auto v, Vec& sum) ABPN_INLINED {
    float* at = to + ((g * outs + o) * vectors + v) * lanes;
    store(at, load(at) + sum);
  });
}

template <int groups, int outs>
class DirectUnit {
 public:
  DirectUnit(const GatedConv& task, const GatedCut& pieces)
      : task_(task),
        pieces_(pieces),
        scratch_(ShiftedPart::floats(task, pieces) + GatedResults::floats(pieces, outs), false),
        part_(task, pieces, scratch_),
        results_(task, pieces, scratch_, outs) {}

  void run(int64_t begin, int64_t end, std::atomic<bool>& ordinary) {
    each_unit(pieces_, task_.channel_blocks(), begin, end, part_, ordinary,
              [&](const GatedPlace& place, int64_t block) {
                const int64_t left = task_.out.channels - block * packed;
                for (int first = 0; first < std::min<int64_t>(packed, left); first += outs) {
                  for (int phase = 0; phase < (task_.halved() ? 1 : 4); ++phase) compute(block, first, phase);
                  results_.write(place, block * packed + first);
                }
              });
  }

 private:
  static constexpr int packed = packed_channels<groups>, gates = with_gates<groups>;

  ShiftedSources sources(int64_t block, int first, int phase) const {
    const int64_t row = pieces_.columns, plane = part_.plane(), below = phase / 2, right = phase % 2;
    const int64_t features = task_.features_channels(), fine = task_.skip.channels;
    ShiftedSources all{{part_.features(), 3 * plane, features, task_.features ? 4 : 0, {}, nullptr},
                       {part_.mask(), 8 * plane, 1, task_.mask ? 9 : 0, {}, nullptr},
                       {part_.skip(), 8 * plane, fine, 9, {}, nullptr},
                       task_.bias + block * groups * packed + first};
    for (int64_t tap = 0; tap < 4; ++tap)
      all.features.offsets[tap] = (right + tap % 2) * plane + (below + tap / 2 - 1) * row;
    for (int64_t tap = 0; tap < 9; ++tap) {
      const int64_t y = below + tap / 3 - 1;
      all.skip.offsets[tap] = all.mask.offsets[tap] = (4 * (y & 1) + right + tap % 3) * plane + (y >> 1) * row;
    }
    if (task_.features && !task_.phased) {
      all.features.step = 8 * plane;
      all.features.taps = 9;
      std::copy(all.skip.offsets, all.skip.offsets + 9, all.features.offsets);
    }
    const int64_t set = task_.phased ? phase * task_.channel_blocks() + block : block;
    if (task_.features)
      all.features.weights = task_.features_weight + set * all.features.taps * features * gates * packed + first;
    if (task_.mask) all.mask.weights = task_.mask_weight + block * 9 * gates * packed + first;
    all.skip.weights = task_.skip_weight + block * 9 * fine * groups * packed + first;
    return all;
  }

  void compute(int64_t block, int first, int phase) const {
    const ShiftedSources from = sources(block, first, phase);
    each_tile<most_vectors<groups, outs>>(pieces_.rows * pieces_.columns,
                                          [&](int64_t q, auto vectors) { compute<vectors>(from, q, phase); });
  }

  template <int vectors>
  void compute(const ShiftedSources& sources, int64_t q, int phase) const {
    constexpr int64_t group = outs * vectors * lanes;
    alignas(64) float sums[groups * group];
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t i = 0; i < group; i += lanes)
        store(sums + g * group + i, broadcast(sources.bias[g * packed + i / (vectors * lanes)]));
    add<gates, vectors>(sources.features, q, sums);
    add<gates, vectors>(sources.mask, q, sums);
    add<groups, vectors>(sources.skip, q, sums);
    const Vec slope = broadcast(task_.negative_slope);
    for (int64_t o = 0; o < outs; ++o)
      for (int64_t v = 0; v < vectors; ++v)
        store(results_.at(phase, o) + q + v * lanes, finished<groups>(sums + (o * vectors + v) * lanes, group, slope));
  }

  template <int used, int vectors>
  static void add(const ShiftedSource& source, int64_t q, float* sums) {
    // Sums of sums round less than one long one.
    constexpr int64_t longest = 192;
    const int taps = static_cast<int>(std::clamp<int64_t>(longest / std::max<int64_t>(source.channels, 1), 1, 9));
    for (int tap = 0; tap < source.taps; tap += taps)
      add_taps<used, outs, vectors>(source, tap, std::min(tap + taps, source.taps), q, sums);
  }

  const GatedConv& task_;
  const GatedCut& pieces_;
  Scratch scratch_;
  ShiftedPart part_;
  GatedResults results_;
};

inline void gate_units_directly(const GatedConv& task, const GatedCut& pieces, int64_t begin, int64_t end,
                                std::atomic<bool>& ordinary) {
  // The network's last has three channels.
  constexpr int three = registers == 32 ? 3 : 2;
  if (task.groups == 1) return DirectUnit<1, most_outs<1>>(task, pieces).run(begin, end, ordinary);
  if (task.groups == 2) return DirectUnit<2, most_outs<2>>(task, pieces).run(begin, end, ordinary);
  if (task.out.channels == 3) return DirectUnit<3, three>(task, pieces).run(begin, end, ordinary);
  return DirectUnit<3, most_outs<3>>(task, pieces).run(begin, end, ordinary);
}

#endif
