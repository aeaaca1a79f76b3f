// sum_i c_i I^i, i = 0, 1, 2, by Horner's rule.
struct Polynomial {
  Vec c0, c1, c2;

  explicit Polynomial(const float* c) : c0(broadcast(c[0])), c1(broadcast(c[1])), c2(broadcast(c[2])) {}
  Vec operator()(Vec image) const { return multiply_add(image, multiply_add(image, c2, c1), c0); }
};

// Eq. 3 with the blend layer already scaled.
inline Vec blended(Vec image, Vec blend, const Polynomial& j, const Polynomial& k) {
  return multiply_add(j(image), blend, k(image));
}
