constexpr int lanes = 16, registers = 32;
// Output channels and vectors of two rows in a register tile, of the first convolution, and vectors of the second.
constexpr int channels1 = 4, vectors1 = 3, vectors2 = 3;

// The plain forms of some intrinsics take an uninitialised operand in GCC 12, which warns of it.
constexpr __mmask16 all = 0xffff;

struct Vec {
  __m512 v;
};

inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
// Lanes [begin, end) of the vector at `from`, the others 0 and not read.
inline Vec load_some(const float* from, int64_t begin, int64_t end) {
  const auto below = [](int64_t lane) { return (1u << std::clamp<int64_t>(lane, 0, lanes)) - 1; };
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(below(end) & ~below(begin)), from)};
}
// GCC otherwise turns one load with three uses into three memory operands, and unaligned loads are what a tile has least of.
inline Vec in_register(Vec a) {
  asm("" : "+v"(a.v));
  return a;
}
// sum += a * b, in place: left to itself GCC moves sums between registers, which costs as much as an addition.
inline void add_product(Vec& sum, Vec a, Vec b) { asm("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v)); }
inline void store(float* to, Vec a) { _mm512_storeu_ps(to, a.v); }
// Past the caches; `to` is aligned. `streamed` makes it seen by other threads.
inline void stream(float* to, Vec a) { _mm512_stream_ps(to, a.v); }
inline void streamed() { _mm_sfence(); }
inline Vec broadcast(float a) { return {_mm512_set1_ps(a)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec maximum(Vec a, Vec b) { return {_mm512_maskz_max_ps(all, a.v, b.v)}; }
inline Vec where_less(Vec a, Vec b, Vec then, Vec otherwise) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), otherwise.v, then.v)};
}
inline Vec where_equal(Vec a, Vec b, Vec then, Vec otherwise) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ), otherwise.v, then.v)};
}

#include "fused.h"

// `exponent` holds an integer n in the low bits of its own, as after adding 1.5 * 2^23; n from -126 to 127.
inline Vec times_power_of_two(Vec a, Vec exponent) {
  const __m512i power = _mm512_maskz_slli_epi32(all, _mm512_castps_si512(exponent.v), 23);
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_set1_epi32(0x3f800000))))};
}

inline Vec with_first(Vec a, float first) { return {_mm512_mask_broadcastss_ps(a.v, 1, _mm_set_ss(first))}; }

// The bits of a float without its sign, as an integer: the larger the magnitude the larger, NaN the largest.
struct Magnitude {
  __m512i bits;

  Magnitude() : bits(_mm512_setzero_si512()) {}

  void add(Vec a) {
    const __m512i without_sign = _mm512_maskz_and_epi32(all, _mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff));
    bits = _mm512_maskz_max_epi32(all, bits, without_sign);
  }
  bool within(float most) const {
    return _mm512_cmpgt_epi32_mask(bits, _mm512_castps_si512(_mm512_set1_ps(most))) == 0;
  }
};

// first[0] = even[0], first[1] = odd[0], first[2] = even[1], ...
struct Pair {
  Vec first, second;
};
inline Pair alternating(Vec even, Vec odd) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return {{_mm512_permutex2var_ps(even.v, low, odd.v)}, {_mm512_permutex2var_ps(even.v, high, odd.v)}};
}
inline void store_alternating(float* to, Vec even, Vec odd) {
  const Pair pair = alternating(even, odd);
  store(to, pair.first);
  store(to + lanes, pair.second);
}
// first = a[0], a[2], ..., b[0], b[2], ...; second = a[1], a[3], ...
inline Pair separated(Vec a, Vec b) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {{_mm512_permutex2var_ps(a.v, even, b.v)}, {_mm512_permutex2var_ps(a.v, odd, b.v)}};
}
// The last lane of `before`, then all of `here` but its last; all of `here` but its first, then the first of `after`.
inline Vec last_then(Vec before, Vec here) {
  const __m512i a = _mm512_castps_si512(before.v), b = _mm512_castps_si512(here.v);
  return {_mm512_castsi512_ps(_mm512_maskz_alignr_epi32(all, b, a, 15))};
}
inline Vec then_first(Vec here, Vec after) {
  const __m512i a = _mm512_castps_si512(here.v), b = _mm512_castps_si512(after.v);
  return {_mm512_castsi512_ps(_mm512_maskz_alignr_epi32(all, b, a, 1))};
}

// A lane is two channels in bf16, the first in its low half. Only for set avx512_bf16, hence in asm: the target here is
// that of avx512.
struct Bfloats {
  static constexpr int channels = 2;

  static void put(float& lane, int channel, float value) {
    const uint16_t bits = c10::detail::round_to_nearest_even(value);
    std::memcpy(reinterpret_cast<char*>(&lane) + channel * sizeof bits, &bits, sizeof bits);
  }
  static Vec packed(const Vec (&a)[channels]) {
    __m512i halves;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(halves) : "v"(a[0].v), "v"(a[1].v));
    // 0, 16, 1, 17, ...
    const __m512i order =
        _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
                          0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    return {_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(~0u, order, halves))};
  }
  static void add(Vec& sum, Vec a, Vec b) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v)); }
};

constexpr int halves = 16;
inline void load_halves(const uint16_t* from, float* to) {
  _mm512_storeu_ps(to, _mm512_maskz_cvtph_ps(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
inline void store_halves(const float* from, uint16_t* to) {
  const __m256i packed = _mm512_maskz_cvtps_ph(all, _mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
}

// from[2 i] * first + from[2 i + 1] * second.
inline Vec sums_of_pairs(const int16_t* from, int16_t first, int16_t second) {
  const __m512i weights = _mm512_set1_epi32(second * 65536 + first);
  return {_mm512_maskz_cvtepi32_ps(all, _mm512_madd_epi16(_mm512_loadu_si512(from), weights))};
}

constexpr int bytes = 16;
inline void load_bytes(const uint8_t* from, float* to) {
  const __m512i wide = _mm512_maskz_cvtepu8_epi32(all, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  store(to, byte_to_unit({_mm512_maskz_cvtepi32_ps(all, wide)}));
}
// Rounds half to even.
inline void store_bytes(const float* from, uint8_t* to) {
  const Vec positive = maximum(load(from), broadcast(0.0f));
  const Vec scaled = {_mm512_maskz_min_ps(all, positive.v, broadcast(1.0f).v)};
  const __m512i wide = _mm512_maskz_cvtps_epi32(all, (scaled * broadcast(255.0f)).v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi32_epi8(all, wide));
}
