constexpr int lanes = 8, registers = 16;
// Output channels and vectors of two rows in a register tile, of the first convolution, and vectors of the second.
constexpr int channels1 = 2, vectors1 = 3, vectors2 = 2;

struct Vec {
  __m256 v;
};

inline Vec load(const float* from) { return {_mm256_loadu_ps(from)}; }
// Lanes [begin, end) of the vector at `from`, the others 0 and not read.
inline Vec load_some(const float* from, int64_t begin, int64_t end) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i first = _mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(begin, 0, lanes)));
  const __m256i last = _mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(end, 0, lanes)));
  return {_mm256_maskload_ps(from, _mm256_andnot_si256(_mm256_cmpgt_epi32(first, index), _mm256_cmpgt_epi32(last, index)))};
}
inline Vec in_register(Vec a) { return a; }
// sum += a * b, in place: left to itself GCC moves sums between registers, which costs as much as an addition.
inline void add_product(Vec& sum, Vec a, Vec b) { asm("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v)); }
inline void store(float* to, Vec a) { _mm256_storeu_ps(to, a.v); }
// Past the caches; `to` is aligned. `streamed` makes it seen by other threads.
inline void stream(float* to, Vec a) { _mm256_stream_ps(to, a.v); }
inline void streamed() { _mm_sfence(); }
inline Vec broadcast(float a) { return {_mm256_set1_ps(a)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec maximum(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec where_less(Vec a, Vec b, Vec then, Vec otherwise) {
  return {_mm256_blendv_ps(otherwise.v, then.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
inline Vec where_equal(Vec a, Vec b, Vec then, Vec otherwise) {
  return {_mm256_blendv_ps(otherwise.v, then.v, _mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ))};
}

#include "fused.h"

// `exponent` holds an integer n in the low bits of its own, as after adding 1.5 * 2^23; n from -126 to 127.
inline Vec times_power_of_two(Vec a, Vec exponent) {
  const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(exponent.v), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(0x3f800000))))};
}

inline Vec with_first(Vec a, float first) { return {_mm256_blend_ps(a.v, _mm256_set1_ps(first), 1)}; }

// The bits of a float without its sign, as an integer: the larger the magnitude the larger, NaN the largest.
struct Magnitude {
  __m256i bits;

  Magnitude() : bits(_mm256_setzero_si256()) {}

  void add(Vec a) {
    bits = _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x7fffffff)));
  }
  bool within(float most) const {
    return _mm256_testz_si256(_mm256_cmpgt_epi32(bits, _mm256_castps_si256(_mm256_set1_ps(most))), _mm256_set1_epi32(-1));
  }
};

// first[0] = even[0], first[1] = odd[0], first[2] = even[1], ...
struct Pair {
  Vec first, second;
};
inline Pair alternating(Vec even, Vec odd) {
  const __m256 low = _mm256_unpacklo_ps(even.v, odd.v), high = _mm256_unpackhi_ps(even.v, odd.v);
  return {{_mm256_permute2f128_ps(low, high, 0x20)}, {_mm256_permute2f128_ps(low, high, 0x31)}};
}
inline void store_alternating(float* to, Vec even, Vec odd) {
  const Pair pair = alternating(even, odd);
  store(to, pair.first);
  store(to + lanes, pair.second);
}
// first = a[0], a[2], ..., b[0], b[2], ...; second = a[1], a[3], ...
inline Pair separated(Vec a, Vec b) {
  const auto in_order = [](__m256 x) {
    return Vec{_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8))};
  };
  return {in_order(_mm256_shuffle_ps(a.v, b.v, 0x88)), in_order(_mm256_shuffle_ps(a.v, b.v, 0xdd))};
}
// The last lane of `before`, then all of `here` but its last; all of `here` but its first, then the first of `after`.
inline Vec last_then(Vec before, Vec here) {
  const __m256i a = _mm256_castps_si256(before.v), b = _mm256_castps_si256(here.v);
  return {_mm256_castsi256_ps(_mm256_alignr_epi8(b, _mm256_permute2x128_si256(a, b, 0x21), 12))};
}
inline Vec then_first(Vec here, Vec after) {
  const __m256i a = _mm256_castps_si256(here.v), b = _mm256_castps_si256(after.v);
  return {_mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_permute2x128_si256(a, b, 0x21), a, 4))};
}

// Without dot products bf16 numbers are multiplied as floats.
struct Floats;
using Bfloats = Floats;

constexpr int halves = 8;
inline void load_halves(const uint16_t* from, float* to) {
  _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
inline void store_halves(const float* from, uint16_t* to) {
  const __m128i packed = _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
}

// from[2 i] * first + from[2 i + 1] * second.
inline Vec sums_of_pairs(const int16_t* from, int16_t first, int16_t second) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return {_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi32(second * 65536 + first)))};
}

constexpr int bytes = 8;
inline void load_bytes(const uint8_t* from, float* to) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  store(to, byte_to_unit({_mm256_cvtepi32_ps(wide)}));
}
// Rounds half to even.
inline void store_bytes(const float* from, uint8_t* to) {
  const Vec positive = maximum(load(from), broadcast(0.0f));
  const Vec scaled = {_mm256_min_ps(positive.v, _mm256_set1_ps(1.0f))};
  const __m256i wide = _mm256_cvtps_epi32((scaled * broadcast(255.0f)).v);
  const __m128i shorts = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(shorts, shorts));
}
