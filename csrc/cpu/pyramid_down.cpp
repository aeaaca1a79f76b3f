// One REDUCE step of the image pyramid.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "pyramid.h"

#define ABPN_SOURCE "../cpu/pyramid_down.cpp"
#include "each_isa.h"

namespace abpn {

void reduce(const Picture& image, bool box, const Picture& out) {
  const auto reduce_rows = ABPN_FOR_ISA(reduce_rows);
  over_rows(out, [&](int64_t begin, int64_t end) { reduce_rows(image, box, out, begin, end); });
}

void pyramid_down(Tensor image, bool box, Tensor out) { reduce(input(image), box, output(out)); }

}  // namespace abpn

#else

// Long runs of each row: a jump from row to row is one from page to page.
constexpr int64_t reduced_chunk = 2048;

// [1 3 3 1] / 8, or the mean of the middle two, of four samples, floats or vectors of them. Of four equal ones every sum is
// exact.
template <class T>
T halved(T before, T left, T right, T after, bool box, T half, T eighth) {
  const T inner = left + right;
  return box ? inner * half : ((inner + inner) + (inner + (before + after))) * eighth;
}
inline Vec halved(Vec before, Vec left, Vec right, Vec after, bool box) {
  return halved(before, left, right, after, box, broadcast(0.5f), broadcast(0.125f));
}

// Of four rows; not past the end.
inline void halve_rows(const float* const from[4], bool box, int64_t count, float* to) {
  const float *before = from[0], *left = from[1], *right = from[2], *after = from[3];
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    store(to + i, halved(load(before + i), load(left + i), load(right + i), load(after + i), box));
  for (; i < count; ++i)
    to[i] = halved(before[i], left[i], right[i], after[i], box, 0.5f, 0.125f);
}

// Of four columns, 2 i to 2 i + 3 for result i; whole vectors, past the end.
inline void halve_columns(const float* from, bool box, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += lanes) {
    const Pair first = separated(load(from + 2 * i), load(from + 2 * i + lanes));
    const Pair second = separated(load(from + 2 * i + 2), load(from + 2 * i + 2 + lanes));
    store(to + i, halved(first.first, first.second, second.first, second.second, box));
  }
}

// The same of bytes, whose sums over rows and columns are integers up to 64 * 255.
inline void halve_rows(const uint8_t* const from[4], bool box, int64_t count, int16_t* to) {
  const uint8_t *before = from[0], *left = from[1], *right = from[2], *after = from[3];
  if (box)
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(left[i] + right[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(before[i] + 3 * (left[i] + right[i]) + after[i]);
}

inline void halve_columns(const int16_t* from, bool box, int64_t count, float* to) {
  const int16_t outer = box ? 0 : 1, inner = box ? 1 : 3;
  const Vec mean = broadcast(box ? 1.0f / 4.0f : 1.0f / 64.0f);
  for (int64_t i = 0; i < count; i += lanes) {
    const Vec sum = sums_of_pairs(from + 2 * i, outer, inner) + sums_of_pairs(from + 2 * i + 2, inner, outer);
    store(to + i, byte_to_unit(sum * mean));
  }
}

// The columns that results x to x + count read: from `begin` on as many as are `there`, the outermost repeated on both sides.
struct ColumnsToReduce {
  int64_t begin, before, there, count;

  ColumnsToReduce(int64_t x, int64_t results, int64_t width)
      : begin(std::max<int64_t>(2 * x - 1, 0)),
        before(begin - (2 * x - 1)),
        there(std::min(2 * (x + results) + 1, width) - begin),
        count(results) {}
};

// One row of the result, from rows of the image.
class RowReducer {
 public:
  RowReducer(const Picture& image, bool box, int64_t x, int64_t count)
      : image_(image), box_(box), columns_(x, count, image.width) {}

  // Channel c to `to + c * reduced_chunk`.
  void reduce(int64_t n, int64_t y, float* to) {
    int64_t rows[4];
    for (int64_t i = 0; i < 4; ++i) rows[i] = std::clamp<int64_t>(2 * y - 1 + i, 0, image_.height - 1);
    if (image_.kind == Kind::u8 && image_.interleaved()) return reduce_interleaved(n, rows, to);
    for (int64_t c = 0; c < 3; ++c, to += reduced_chunk) {
      if (image_.kind == Kind::u8 && image_.stride[3] == 1)
        reduce_channel(in_place<uint8_t>(n, c, rows), sums_, to);
      else if (image_.kind == Kind::f32 && image_.stride[3] == 1)
        reduce_channel(in_place<float>(n, c, rows), means_, to);
      else
        reduce_channel(copied(n, c, rows), means_, to);
    }
  }

 private:
  static constexpr int64_t step = 2 * reduced_chunk + 4 * 16;

  template <class T>
  struct Four {
    const T* rows[4];
  };

  template <class T>
  Four<T> in_place(int64_t n, int64_t c, const int64_t (&rows)[4]) const {
    Four<T> from;
    for (int i = 0; i < 4; ++i) from.rows[i] = reinterpret_cast<const T*>(image_.address(n, c, rows[i], columns_.begin));
    return from;
  }

  // Two of the rows serve the next result too.
  Four<float> copied(int64_t n, int64_t c, const int64_t (&rows)[4]) {
    Four<float> from;
    for (int i = 0; i < 4; ++i) {
      const int64_t slot = rows[i] & 3, row = n * image_.height + rows[i];
      if (held_[slot] != row) load_rows(image_, n, rows[i], columns_.begin, columns_.there, copies_[slot], step);
      held_[slot] = row;
      from.rows[i] = copies_[slot] + c * step;
    }
    return from;
  }

  // Through a row of means, or of sums where the rows are bytes.
  template <class T, class Sum>
  void reduce_channel(const Four<T>& from, Sum* row, float* to) {
    halve_rows(from.rows, box_, columns_.there, row + columns_.before);
    reduce_halved(row, to);
  }
  void reduce_interleaved(int64_t n, const int64_t (&rows)[4], float* to) {
    int16_t together[3 * step];
    halve_rows(in_place<uint8_t>(n, 0, rows).rows, box_, 3 * columns_.there, together);
    for (int64_t c = 0; c < 3; ++c, to += reduced_chunk) {
      for (int64_t i = 0; i < columns_.there; ++i) sums_[columns_.before + i] = together[3 * i + c];
      reduce_halved(sums_, to);
    }
  }

  // The outermost columns repeated, then halved.
  template <class T>
  void reduce_halved(T* row, float* to) const {
    const int64_t first = columns_.before, last = first + columns_.there - 1;
    std::fill(row, row + first, row[first]);
    std::fill(row + last + 1, row + 2 * columns_.count + 2, row[last]);
    halve_columns(row, box_, columns_.count, to);
  }

  const Picture& image_;
  const bool box_;
  const ColumnsToReduce columns_;
  int64_t held_[4] = {-1, -1, -1, -1};
  float copies_[4][3 * step], means_[step];
  int16_t sums_[step];
};

inline void reduce_columns(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end, int64_t x,
                           int64_t count) {
  RowReducer reducer(image, box, x, count);
  float reduced[3 * reduced_chunk];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / out.height, y = row % out.height;
    reducer.reduce(n, y, reduced);
    store_rows(reduced, reduced_chunk, out, n, y, x, count);
  }
}

inline void reduce_rows(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end) {
  for (int64_t x = 0; x < out.width; x += reduced_chunk)
    reduce_columns(image, box, out, begin, end, x, std::min(reduced_chunk, out.width - x));
  streamed();
}

#endif
