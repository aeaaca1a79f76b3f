// The order in which a gated convolution's weights are read: a block of threads finds what one step needs side by side.
#pragma once

#include "gated_plan.h"

namespace abpn::gated {

// [source][class][step][filter][k]: classes for the features only, filters F, G and, for the skip, S.
struct Packed {
  int source, phase, step, filter, k;
};

ABPN_BOTH int64_t packed_size(const Plan& plan) {
  return packed_size(plan, features_source) + packed_size(plan, skip_source) + packed_size(plan, mask_source);
}

// The place of the weights of one step; those of filter f begin f * step_size further.
ABPN_BOTH int64_t packed_at(const Plan& plan, int source, int phase, int step) {
  const Segment& segment = plan.segment[source];
  const int64_t before = int64_t{source == features_source ? phase : 0} * segment.steps + step;
  return segment.packed + before * packed_rows(plan, source) * step_size;
}

ABPN_BOTH Packed unpack(const Plan& plan, int64_t index) {
  int source = 0;
  while (source < mask_source && index >= packed_size(plan, source)) index -= packed_size(plan, source++);
  const int k = static_cast<int>(index % step_size), rows = packed_rows(plan, source);
  const int64_t row = index / step_size, step = row / rows;
  const int steps = plan.segment[source].steps;
  return {source, static_cast<int>(step / steps), static_cast<int>(step % steps), static_cast<int>(row % rows), k};
}

// Packed element `index`; weight(filter, channel, tap) and skip_weight alike read the operator's arguments.
template <class Weight, class SkipWeight>
ABPN_BOTH float packed_weight(const Plan& plan, int64_t index, const Weight& weight, const SkipWeight& skip_weight) {
  const Packed at = unpack(plan, index);
  int channel, tap;
  if (!locate(plan.segment[at.source], at.step * step_size + at.k, channel, tap)) return 0.0f;
  if (at.filter >= 2 * plan.shape.out) return skip_weight(at.filter - 2 * plan.shape.out, channel, tap);
  if (at.source != features_source || !plan.phased) {
    const int before = at.source == features_source ? 0 : plan.shape.features;
    return weight(at.filter, before + (at.source == mask_source ? plan.shape.skip : 0) + channel, tap);
  }
  // The taps of the 3x3 filter that fall on the same low pixel.
  float sum = 0.0f;
  for (int i = 0; i < 9; ++i) {
    const int row = (at.phase / 2 + i / 3 + 1) / 2 - (at.phase / 2 + 1) / 2;
    const int column = (at.phase % 2 + i % 3 + 1) / 2 - (at.phase % 2 + 1) / 2;
    if (row == tap / 2 && column == tap % 2) sum += weight(at.filter, channel, i);
  }
  return sum;
}

}  // namespace abpn::gated
