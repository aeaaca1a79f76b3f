// Cache lines to ask for ahead of their use, a few at a time: asked for all at once they would fill the line buffers and
// hold up the loads behind them. A walk down a block of columns jumps from page to page, which no hardware foresees.
#pragma once

#include <cstdint>

#include "picture.h"

namespace abpn {

class Prefetcher {
 public:
  // `count` pixels of every channel of row y from column x on; rows outside the picture are nothing to ask for.
  void add(const Picture& picture, int64_t n, int64_t y, int64_t x, int64_t count) {
    if (y >= picture.height) return;
    const int64_t streams = picture.interleaved() ? 1 : picture.channels;
    const int64_t bytes = (count - 1) * picture.stride[3] * picture.element_size + 1;
    for (int64_t c = 0; c < streams && spans_ < most_spans; ++c)
      span_[spans_++] = {picture.address(n, c, y, x), picture.address(n, c, y, x) + bytes};
  }

  // The next few lines.
  void some() {
    for (int i = 0; i < lines_at_once && next_ < spans_; ++i) {
      Span& span = span_[next_];
      __builtin_prefetch(span.begin);
      span.begin += line;
      if (span.begin >= span.end + line - 1) ++next_;
    }
  }

  void clear() { spans_ = next_ = 0; }

 private:
  static constexpr int line = 64, lines_at_once = 6, most_spans = 24;
  struct Span {
    const char *begin, *end;
  };
  Span span_[most_spans];
  int spans_ = 0, next_ = 0;
};

}  // namespace abpn
