constexpr int lanes = 4, registers = 16;
// Output channels and vectors of two rows in a register tile, of the first convolution, and vectors of the second.
constexpr int channels1 = 2, vectors1 = 3, vectors2 = 2;

struct Vec {
  typedef float Lanes __attribute__((vector_size(16)));
  Lanes v;
};

inline Vec load(const float* from) {
  Vec a;
  std::memcpy(&a.v, from, sizeof a.v);
  return a;
}
// Lanes [begin, end) of the vector at `from`, the others 0 and not read.
inline Vec load_some(const float* from, int64_t begin, int64_t end) {
  Vec a{};
  for (int64_t lane = std::max<int64_t>(begin, 0); lane < std::min<int64_t>(end, lanes); ++lane) a.v[lane] = from[lane];
  return a;
}
inline Vec in_register(Vec a) { return a; }
// sum += a * b.
inline void add_product(Vec& sum, Vec a, Vec b) { sum.v = a.v * b.v + sum.v; }
inline void store(float* to, Vec a) { std::memcpy(to, &a.v, sizeof a.v); }
inline void stream(float* to, Vec a) { store(to, a); }
inline void streamed() {}
inline Vec broadcast(float a) { return {Vec::Lanes{a, a, a, a}}; }
inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline Vec maximum(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec where_less(Vec a, Vec b, Vec then, Vec otherwise) { return {a.v < b.v ? then.v : otherwise.v}; }
inline Vec where_equal(Vec a, Vec b, Vec then, Vec otherwise) { return {a.v == b.v ? then.v : otherwise.v}; }
inline float multiply_add(float a, float b, float c) { return a * b + c; }

// `exponent` holds an integer n in the low bits of its own, as after adding 1.5 * 2^23; n from -126 to 127.
inline Vec times_power_of_two(Vec a, Vec exponent) {
  typedef uint32_t Bits __attribute__((vector_size(16)));
  Bits bits;
  std::memcpy(&bits, &exponent.v, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  Vec power;
  std::memcpy(&power.v, &bits, sizeof bits);
  return a * power;
}

inline Vec with_first(Vec a, float first) {
  a.v[0] = first;
  return a;
}

// The bits of a float without its sign, as an integer: the larger the magnitude the larger, NaN the largest.
struct Magnitude {
  typedef int32_t Lanes __attribute__((vector_size(16)));
  Lanes bits = {0, 0, 0, 0};

  void add(Vec a) {
    const Lanes without_sign = reinterpret_cast<Lanes>(a.v) & 0x7fffffff;
    bits = bits > without_sign ? bits : without_sign;
  }
  bool within(float most) const {
    int32_t limit;
    std::memcpy(&limit, &most, sizeof limit);
    return bits[0] <= limit && bits[1] <= limit && bits[2] <= limit && bits[3] <= limit;
  }
};

// first[0] = even[0], first[1] = odd[0], first[2] = even[1], ...
struct Pair {
  Vec first, second;
};
inline Pair alternating(Vec even, Vec odd) {
  return {{__builtin_shufflevector(even.v, odd.v, 0, 4, 1, 5)}, {__builtin_shufflevector(even.v, odd.v, 2, 6, 3, 7)}};
}
inline void store_alternating(float* to, Vec even, Vec odd) {
  const Pair pair = alternating(even, odd);
  store(to, pair.first);
  store(to + lanes, pair.second);
}
// first = a[0], a[2], ..., b[0], b[2], ...; second = a[1], a[3], ...
inline Pair separated(Vec a, Vec b) {
  return {{__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6)}, {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7)}};
}
// The last lane of `before`, then all of `here` but its last; all of `here` but its first, then the first of `after`.
inline Vec last_then(Vec before, Vec here) { return {__builtin_shufflevector(before.v, here.v, 3, 4, 5, 6)}; }
inline Vec then_first(Vec here, Vec after) { return {__builtin_shufflevector(here.v, after.v, 1, 2, 3, 4)}; }

// Without dot products bf16 numbers are multiplied as floats.
struct Floats;
using Bfloats = Floats;

constexpr int halves = 1;
inline void load_halves(const uint16_t* from, float* to) { *to = c10::detail::fp16_ieee_to_fp32_value(*from); }
inline void store_halves(const float* from, uint16_t* to) { *to = c10::detail::fp16_ieee_from_fp32_value(*from); }

// value / 255.
inline Vec byte_to_unit(Vec value) { return value / broadcast(255.0f); }

// from[2 i] * first + from[2 i + 1] * second.
inline Vec sums_of_pairs(const int16_t* from, int16_t first, int16_t second) {
  Vec sums;
  for (int i = 0; i < lanes; ++i) sums.v[i] = static_cast<float>(from[2 * i] * first + from[2 * i + 1] * second);
  return sums;
}

// None at a time.
constexpr int bytes = 1 << 30;
inline void load_bytes(const uint8_t*, float*) {}
inline void store_bytes(const float*, uint8_t*) {}
