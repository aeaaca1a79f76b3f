// One REDUCE step of the image pyramid.
#ifndef ABPN_ISA

#include "operators.h"
#include "parallel.h"
#include "pyramid.h"

#define ABPN_SOURCE "../cpu/pyramid_down.cpp"
#include "each_isa.h"

namespace abpn {

void reduce_rows(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end) {
  ABPN_FOR_ISA(reduce_rows)(image, box, out, begin, end);
}

void pyramid_down(Tensor image, bool box, Tensor out) {
  const auto run = [&](int64_t, const Picture& image, const Picture& out) {
    over_rows(out, [&](int64_t begin, int64_t end) { reduce_rows(image, box, out, begin, end); });
  };
  by_channels(run, input(image), output(out));
}

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

// Of four rows, columns `there` of them.
struct HalvedRows {
  const float* const (&from)[4];
  const bool box;
  const int64_t there;

  float column(int64_t x) const { return halved(from[0][x], from[1][x], from[2][x], from[3][x], box, 0.5f, 0.125f); }

  // Columns x, x + 2, ... and x + 1, x + 3, ..., the last repeated.
  Pair columns(int64_t x) const {
    if (x + 2 * lanes <= there) {
      const auto part = [&](int64_t x) {
        return halved(load(from[0] + x), load(from[1] + x), load(from[2] + x), load(from[3] + x), box);
      };
      return separated(part(x), part(x + lanes));
    }
    return last_columns(x);
  }

 private:
  // Not inlined: once per row is nothing.
  [[gnu::noinline]] Pair last_columns(int64_t x) const {
    float some[2 * lanes];
    const int64_t left = std::max<int64_t>(there - x, 0);
    for (int64_t i = 0; i < 2 * lanes; i += lanes) {
      const auto row = [&](int r) { return load_some(from[r] + x + i, 0, left - i); };
      store(some + i, halved(row(0), row(1), row(2), row(3), box));
    }
    std::fill(some + left, some + 2 * lanes, column(there - 1));
    return separated(load(some), load(some + lanes));
  }
};

// Of the rows, then of four columns, 2 i - 1 to 2 i + 2 from `first` on for result i.
inline void halve(const HalvedRows& rows, int64_t first, int64_t count, const Row& to) {
  Vec odd_before = broadcast(rows.column(0));
  Pair here = rows.columns(first);
  for (int64_t i = 0; i < count; i += lanes) {
    const Pair after = rows.columns(first + 2 * (i + lanes));
    const Vec before = last_then(odd_before, here.second), next = then_first(here.first, after.first);
    to.put(i, count, halved(before, here.first, here.second, next, rows.box));
    odd_before = here.second;
    here = after;
  }
}

// The same of bytes, whose sums over rows and columns are integers up to 64 * 255: the rows, then the columns.
inline void halve_rows(const uint8_t* const from[4], bool box, int64_t count, int16_t* to) {
  const uint8_t *before = from[0], *left = from[1], *right = from[2], *after = from[3];
  if (box)
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(left[i] + right[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int16_t>(before[i] + 3 * (left[i] + right[i]) + after[i]);
}

inline void halve_columns(const int16_t* from, bool box, int64_t count, const Row& to) {
  const int16_t outer = box ? 0 : 1, inner = box ? 1 : 3;
  const Vec mean = broadcast(box ? 1.0f / 4.0f : 1.0f / 64.0f);
  for (int64_t i = 0; i < count; i += lanes) {
    const Vec sum = sums_of_pairs(from + 2 * i, outer, inner) + sums_of_pairs(from + 2 * i + 2, inner, outer);
    to.put(i, count, byte_to_unit(sum * mean));
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

  // Channel c to `to[c]`.
  void reduce(int64_t n, int64_t y, const Row* to) {
    int64_t rows[4];
    for (int64_t i = 0; i < 4; ++i) rows[i] = std::clamp<int64_t>(2 * y - 1 + i, 0, image_.height - 1);
    if (image_.kind == Kind::u8 && image_.interleaved()) return reduce_interleaved(n, rows, to);
    for (int64_t c = 0; c < image_.channels; ++c) {
      if (image_.kind == Kind::u8 && image_.stride[3] == 1)
        reduce_bytes(in_place<uint8_t>(n, c, rows), to[c]);
      else if (of_floats(image_))
        reduce_floats(in_place<float>(n, c, rows), to[c]);
      else
        reduce_floats(copied(n, c, rows), to[c]);
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

  void reduce_floats(const Four<float>& from, const Row& to) const {
    halve({from.rows, box_, columns_.there}, 1 - columns_.before, columns_.count, to);
  }
  void reduce_bytes(const Four<uint8_t>& from, const Row& to) {
    halve_rows(from.rows, box_, columns_.there, sums_ + columns_.before);
    reduce_sums(to);
  }
  void reduce_interleaved(int64_t n, const int64_t (&rows)[4], const Row* to) {
    int16_t together[3 * step];
    halve_rows(in_place<uint8_t>(n, 0, rows).rows, box_, 3 * columns_.there, together);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t i = 0; i < columns_.there; ++i) sums_[columns_.before + i] = together[3 * i + c];
      reduce_sums(to[c]);
    }
  }

  // The outermost columns repeated, then halved.
  void reduce_sums(const Row& to) {
    const int64_t first = columns_.before, last = first + columns_.there - 1;
    std::fill(sums_, sums_ + first, sums_[first]);
    std::fill(sums_ + last + 1, sums_ + 2 * columns_.count + 2, sums_[last]);
    halve_columns(sums_, box_, columns_.count, to);
  }

  const Picture& image_;
  const bool box_;
  const ColumnsToReduce columns_;
  int64_t held_[4] = {-1, -1, -1, -1};
  float copies_[4][3 * step];
  int16_t sums_[step];
};

inline void reduce_columns(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end, int64_t x,
                           int64_t count) {
  RowReducer reducer(image, box, x, count);
  float reduced[3 * reduced_chunk];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / out.height, y = row % out.height;
    Row rows[3];
    for (int64_t c = 0; c < out.channels; ++c) rows[c] = row_or_buffer(out, n, c, y, x, reduced + c * reduced_chunk);
    reducer.reduce(n, y, rows);
    if (!of_floats(out)) store_rows(reduced, reduced_chunk, out, n, y, x, count);
  }
}

inline void reduce_rows(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end) {
  for (int64_t x = 0; x < out.width; x += reduced_chunk)
    reduce_columns(image, box, out, begin, end, x, std::min(reduced_chunk, out.width - x));
  streamed();
}

#endif
