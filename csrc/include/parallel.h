// Work cut into units and handed to PyTorch's threads. No unit's result depends on the cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/csrc/stable/ops.h>

#include "picture.h"

namespace abpn {

// Runs body(c, pictures...), whose channels are independent of each other: once, or where no picture is interleaved for
// each channel c. Of a few rows at a time the hardware foresees what is read next, of nine it does not.
template <class Body, class... Pictures>
void by_channels(const Body& body, const Pictures&... pictures) {
  if ((pictures.interleaved() || ...)) return body(int64_t{0}, pictures...);
  for (int64_t c = 0; c < 3; ++c) body(c, pictures.channel(c)...);
}

constexpr int64_t pixels_worth_a_thread = 32768;

// Runs body(begin, end) over the rows of all images of a picture; small ones stay on one thread.
template <class Body>
void over_rows(const Picture& picture, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, pixels_worth_a_thread / std::max<int64_t>(1, picture.width));
  const int64_t rows = picture.count * picture.height;
  if (rows > 0) torch::stable::parallel_for(0, rows, grain, body);
}

}  // namespace abpn
