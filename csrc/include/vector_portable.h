constexpr int lanes = 4;
// Output channels and vectors per register tile of the first and of the second convolution (16 registers).
constexpr int channels1 = 4, vectors1 = 1, vectors2 = 1;

struct Vec {
  typedef float Lanes __attribute__((vector_size(16)));
  Lanes v;
};

inline Vec load(const float* from) {
  Vec a;
  std::memcpy(&a.v, from, sizeof a.v);
  return a;
}
inline Vec in_register(Vec a) { return a; }
inline void store(float* to, Vec a) { std::memcpy(to, &a.v, sizeof a.v); }
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

// to[0] = even[0], to[1] = odd[0], to[2] = even[1], ...
inline void store_alternating(float* to, Vec even, Vec odd) {
  store(to, {__builtin_shufflevector(even.v, odd.v, 0, 4, 1, 5)});
  store(to + 4, {__builtin_shufflevector(even.v, odd.v, 2, 6, 3, 7)});
}

constexpr int halves = 1;
inline void load_halves(const uint16_t* from, float* to) { *to = c10::detail::fp16_ieee_to_fp32_value(*from); }
inline void store_halves(const float* from, uint16_t* to) { *to = c10::detail::fp16_ieee_from_fp32_value(*from); }
