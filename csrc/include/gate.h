// What a gate does to its pixels; inside an instruction set's namespace.

// e^x for |x| <= 88, within two ulp: 2^n times a polynomial in what is left, at most half of log(2).
inline Vec exponential(Vec x) {
  // Adding 1.5 * 2^23 leaves no bits for a fraction, so the addition itself rounds.
  const Vec rounder = broadcast(12582912.0f);
  const Vec rounded = multiply_add(x, broadcast(1.44269504f), rounder), n = rounded - rounder;
  // log(2) in two parts, the first with so few bits that its product with n is exact.
  Vec r = multiply_add(n, broadcast(-0.693359375f), x);
  r = multiply_add(n, broadcast(2.12194440e-4f), r);
  Vec p = multiply_add(broadcast(1.9875691500e-4f), r, broadcast(1.3981999507e-3f));
  p = multiply_add(p, r, broadcast(8.3334519073e-3f));
  p = multiply_add(p, r, broadcast(4.1665795894e-2f));
  p = multiply_add(p, r, broadcast(1.6666665459e-1f));
  p = multiply_add(p, r, broadcast(0.5f));
  p = multiply_add(p * r, r, r) + broadcast(1.0f);
  return times_power_of_two(p, rounded);
}

// 0 where 1 / (1 + e^-x) is 0 in float, and NaN for NaN: both decide what becomes of an infinite feature.
inline Vec sigmoid(Vec x) {
  const Vec lowest = broadcast(-88.0f), highest = broadcast(88.0f), one = broadcast(1.0f);
  const Vec below = where_less(x, lowest, lowest, x), inside = where_less(highest, x, highest, below);
  const Vec value = one / (one + exponential(broadcast(0.0f) - inside));
  return where_less(x, broadcast(-88.72284f), broadcast(0.0f), value);
}

inline Vec leaky_relu(Vec x, Vec negative_slope) { return where_less(broadcast(0.0f), x, x, negative_slope * x); }

// F * G + S * (1 - G).
inline Vec gated(Vec feature, Vec gate, Vec kept, Vec slope) {
  const Vec g = sigmoid(gate);
  return leaky_relu(feature, slope) * g + leaky_relu(kept, slope) * (broadcast(1.0f) - g);
}

// F * G.
inline Vec gated(Vec feature, Vec gate, Vec slope) { return leaky_relu(feature, slope) * sigmoid(gate); }
