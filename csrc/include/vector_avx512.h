constexpr int lanes = 16;
// Output channels and vectors per register tile of the first and of the second convolution (32 registers).
constexpr int channels1 = 8, vectors1 = 1, vectors2 = 2;

// The plain forms of some intrinsics take an uninitialised operand in GCC 12, which warns of it.
constexpr __mmask16 all = 0xffff;

struct Vec {
  __m512 v;
};

inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
// GCC otherwise turns one load with three uses into three memory operands, and unaligned loads are what a tile has least of.
inline Vec in_register(Vec a) {
  asm("" : "+v"(a.v));
  return a;
}
inline void store(float* to, Vec a) { _mm512_storeu_ps(to, a.v); }
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
inline float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// to[0] = even[0], to[1] = odd[0], to[2] = even[1], ...
inline void store_alternating(float* to, Vec even, Vec odd) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_ps(to, _mm512_permutex2var_ps(even.v, low, odd.v));
  _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(even.v, high, odd.v));
}

constexpr int halves = 16;
inline void load_halves(const uint16_t* from, float* to) {
  _mm512_storeu_ps(to, _mm512_maskz_cvtph_ps(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
inline void store_halves(const float* from, uint16_t* to) {
  const __m256i packed = _mm512_maskz_cvtps_ph(all, _mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
}
