constexpr int lanes = 4, registers = 32;
// Output channels and vectors of two rows in a register tile, of the first convolution, and vectors of the second.
constexpr int channels1 = 4, vectors1 = 3, vectors2 = 3;

struct Vec {
  float32x4_t v;
};

inline Vec load(const float* from) { return {vld1q_f32(from)}; }
// Lanes [begin, end) of the vector at `from`, the others 0 and not read.
inline Vec load_some(const float* from, int64_t begin, int64_t end) {
  float some[lanes] = {};
  for (int64_t lane = std::max<int64_t>(begin, 0); lane < std::min<int64_t>(end, lanes); ++lane) some[lane] = from[lane];
  return load(some);
}
inline Vec in_register(Vec a) { return a; }
// sum += a * b, in place.
inline void add_product(Vec& sum, Vec a, Vec b) { sum.v = vfmaq_f32(sum.v, a.v, b.v); }
inline void store(float* to, Vec a) { vst1q_f32(to, a.v); }
inline void stream(float* to, Vec a) { store(to, a); }
inline void streamed() {}
inline Vec broadcast(float a) { return {vdupq_n_f32(a)}; }
inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vec maximum(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
inline Vec where_less(Vec a, Vec b, Vec then, Vec otherwise) {
  return {vbslq_f32(vcltq_f32(a.v, b.v), then.v, otherwise.v)};
}
inline Vec where_equal(Vec a, Vec b, Vec then, Vec otherwise) {
  return {vbslq_f32(vceqq_f32(a.v, b.v), then.v, otherwise.v)};
}

#include "fused.h"

// `exponent` holds an integer n in the low bits of its own, as after adding 1.5 * 2^23; n from -126 to 127.
inline Vec times_power_of_two(Vec a, Vec exponent) {
  const int32x4_t power = vshlq_n_s32(vreinterpretq_s32_f32(exponent.v), 23);
  return {vmulq_f32(a.v, vreinterpretq_f32_s32(vaddq_s32(power, vdupq_n_s32(0x3f800000))))};
}

inline Vec with_first(Vec a, float first) { return {vsetq_lane_f32(first, a.v, 0)}; }

// The bits of a float without its sign, as an integer: the larger the magnitude the larger, NaN the largest.
struct Magnitude {
  int32x4_t bits;

  Magnitude() : bits(vdupq_n_s32(0)) {}

  void add(Vec a) { bits = vmaxq_s32(bits, vandq_s32(vreinterpretq_s32_f32(a.v), vdupq_n_s32(0x7fffffff))); }
  bool within(float most) const {
    int32_t limit;
    std::memcpy(&limit, &most, sizeof limit);
    return vmaxvq_s32(bits) <= limit;
  }
};

// first[0] = even[0], first[1] = odd[0], first[2] = even[1], ...
struct Pair {
  Vec first, second;
};
inline Pair alternating(Vec even, Vec odd) { return {{vzip1q_f32(even.v, odd.v)}, {vzip2q_f32(even.v, odd.v)}}; }
inline void store_alternating(float* to, Vec even, Vec odd) { vst2q_f32(to, (float32x4x2_t{{even.v, odd.v}})); }
// first = a[0], a[2], ..., b[0], b[2], ...; second = a[1], a[3], ...
inline Pair separated(Vec a, Vec b) { return {{vuzp1q_f32(a.v, b.v)}, {vuzp2q_f32(a.v, b.v)}}; }
// The last lane of `before`, then all of `here` but its last; all of `here` but its first, then the first of `after`.
inline Vec last_then(Vec before, Vec here) { return {vextq_f32(before.v, here.v, 3)}; }
inline Vec then_first(Vec here, Vec after) { return {vextq_f32(here.v, after.v, 1)}; }

// Without dot products bf16 numbers are multiplied as floats.
struct Floats;
using Bfloats = Floats;

constexpr int halves = 4;
inline void load_halves(const uint16_t* from, float* to) {
  vst1q_f32(to, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
}
inline void store_halves(const float* from, uint16_t* to) {
  vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(from))));
}

// from[2 i] * first + from[2 i + 1] * second.
inline Vec sums_of_pairs(const int16_t* from, int16_t first, int16_t second) {
  const int16x4x2_t pairs = vld2_s16(from);
  return {vcvtq_f32_s32(vmlal_n_s16(vmull_n_s16(pairs.val[0], first), pairs.val[1], second))};
}

constexpr int bytes = 16;
inline void load_bytes(const uint8_t* from, float* to) {
  const uint8x16_t narrow = vld1q_u8(from);
  const uint16x8_t half[2] = {vmovl_u8(vget_low_u8(narrow)), vmovl_high_u8(narrow)};
  for (int i = 0; i < 2; ++i, to += 2 * lanes) {
    store(to, byte_to_unit({vcvtq_f32_u32(vmovl_u16(vget_low_u16(half[i])))}));
    store(to + lanes, byte_to_unit({vcvtq_f32_u32(vmovl_high_u16(half[i]))}));
  }
}
// Rounds half to even; NaN becomes 0.
inline void store_bytes(const float* from, uint8_t* to) {
  uint32x4_t wide[4];
  for (int i = 0; i < 4; ++i) {
    const float32x4_t positive = vmaxq_f32(vld1q_f32(from + i * lanes), vdupq_n_f32(0.0f));
    wide[i] = vcvtnq_u32_f32(vmulq_n_f32(vminq_f32(positive, vdupq_n_f32(1.0f)), 255.0f));
  }
  const uint16x8_t low = vmovn_high_u32(vmovn_u32(wide[0]), wide[1]), high = vmovn_high_u32(vmovn_u32(wide[2]), wide[3]);
  vst1q_u8(to, vmovn_high_u16(vmovn_u16(low), high));
}
