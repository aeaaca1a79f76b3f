// Loops whose every index is a constant: over registers, or the compiler keeps arrays in memory. Inside an instruction
// set's namespace.

#define ABPN_INLINED __attribute__((always_inline))
#define ABPN_INLINE ABPN_INLINED inline

template <class Body, int... index>
ABPN_INLINE void repeat(const Body& body, std::integer_sequence<int, index...>) {
  (body(std::integral_constant<int, index>{}), ...);
}

// body(0), body(1), ..., body(count - 1), each a constant of its own.
template <int count, class Body>
ABPN_INLINE void repeat(const Body& body) {
  repeat(body, std::make_integer_sequence<int, count>{});
}
