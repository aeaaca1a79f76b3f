// Work cut into units and handed to PyTorch's threads. No unit's result depends on the cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/csrc/stable/ops.h>

namespace abpn {

// Runs body(begin, end) over the rows of `count` images; small images stay on one thread.
template <class Body>
void over_rows(int64_t count, int64_t height, int64_t width, const Body& body) {
  constexpr int64_t pixels_worth_a_thread = 32768;
  const int64_t grain = std::max<int64_t>(1, pixels_worth_a_thread / std::max<int64_t>(1, width));
  if (count * height > 0) torch::stable::parallel_for(0, count * height, grain, body);
}

}  // namespace abpn
