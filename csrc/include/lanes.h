// Inside an instruction set's namespace; vector_*.h has `Bfloats` alike, two bf16 channels in a lane.

// What a lane of transformed pixels is: `channels` of a pixel.
struct Floats {
  static constexpr int channels = 1;

  static void put(float& lane, int, float value) { lane = value; }
  static Vec packed(const Vec (&a)[channels]) { return a[0]; }
  static void add(Vec& sum, Vec a, Vec b) { add_product(sum, a, b); }
};
