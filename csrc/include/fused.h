// What instruction sets with fused multiply-adds have alike; inside their vector_*.h.

inline float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// value / 255, correctly rounded: one correction of the product does it (all 256 are tested).
inline Vec byte_to_unit(Vec value) {
  const Vec inverse = broadcast(1.0f / 255.0f), quotient = value * inverse;
  return multiply_add(multiply_add(broadcast(0.0f) - quotient, broadcast(255.0f), value), inverse, quotient);
}
