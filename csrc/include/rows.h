// Rows of pixels between memory, in any dtype and layout, and float buffers, one per channel.

// Pixels at a time through the small buffers below.
constexpr int64_t chunk = 512;

inline void to_floats(const uint8_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + bytes <= count; i += bytes) load_bytes(from + i, to + i);
  for (; i < count; ++i) to[i] = from[i] / 255.0f;
}

// A 16-bit number / 65535, correctly rounded: the first product is exact (all 65 536 are tested).
inline void to_floats(const uint16_t* from, float* to, int64_t count) {
  constexpr float high = 1.0f / 65536.0f, low = static_cast<float>(1.0 / 65535.0 - 1.0 / 65536.0);
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(from[i]);
    to[i] = multiply_add(value, low, value * high);
  }
}

inline void to_floats(const float* from, float* to, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

inline void halves_to_floats(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + halves <= count; i += halves) load_halves(from + i, to + i);
  for (; i < count; ++i) to[i] = c10::detail::fp16_ieee_to_fp32_value(from[i]);
}

inline void bfloats_to_floats(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

// Not inlined: once per row and channel is nothing, and each caller would carry four loops.
[[gnu::noinline]] inline void decode(Kind kind, const void* from, float* to, int64_t count) {
  switch (kind) {
    case Kind::u8: return to_floats(static_cast<const uint8_t*>(from), to, count);
    case Kind::u16: return to_floats(static_cast<const uint16_t*>(from), to, count);
    case Kind::f16: return halves_to_floats(static_cast<const uint16_t*>(from), to, count);
    case Kind::bf16: return bfloats_to_floats(static_cast<const uint16_t*>(from), to, count);
    case Kind::f32: return to_floats(static_cast<const float*>(from), to, count);
  }
}

// Adding 1.5 * 2^23 leaves no bits for a fraction, so the addition itself rounds, half to even.
inline uint32_t to_integer(float from, float white) {
  const float positive = from > 0.0f ? from : 0.0f;
  const float rounded = (positive < 1.0f ? positive : 1.0f) * white + 12582912.0f;
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

inline void from_floats(const float* from, uint8_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + bytes <= count; i += bytes) store_bytes(from + i, to + i);
  for (; i < count; ++i) to[i] = static_cast<uint8_t>(to_integer(from[i], 255.0f));
}

inline void from_floats(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint16_t>(to_integer(from[i], 65535.0f));
}

inline void from_floats(const float* from, float* to, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

inline void floats_to_halves(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + halves <= count; i += halves) store_halves(from + i, to + i);
  for (; i < count; ++i) to[i] = c10::detail::fp16_ieee_from_fp32_value(from[i]);
}

inline void floats_to_bfloats(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof bits);
    const uint32_t even = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | 0x400000;
    to[i] = static_cast<uint16_t>(((bits & 0x7fffffff) > 0x7f800000 ? quiet : even) >> 16);
  }
}

[[gnu::noinline]] inline void encode(Kind kind, const float* from, void* to, int64_t count) {
  switch (kind) {
    case Kind::u8: return from_floats(from, static_cast<uint8_t*>(to), count);
    case Kind::u16: return from_floats(from, static_cast<uint16_t*>(to), count);
    case Kind::f16: return floats_to_halves(from, static_cast<uint16_t*>(to), count);
    case Kind::bf16: return floats_to_bfloats(from, static_cast<uint16_t*>(to), count);
    case Kind::f32: return from_floats(from, static_cast<float*>(to), count);
  }
}

template <class T>
void gather(const T* from, int64_t stride, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
}

template <class T>
void scatter(const T* from, T* to, int64_t stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] = from[i];
}

template <class T>
void split(const T* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = from[3 * i];
    to[chunk + i] = from[3 * i + 1];
    to[2 * chunk + i] = from[3 * i + 2];
  }
}

template <class T>
void join(const T* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[3 * i] = from[i];
    to[3 * i + 1] = from[chunk + i];
    to[3 * i + 2] = from[2 * chunk + i];
  }
}

// T stands for any element of its size.
template <class T>
void load_split(const Picture& picture, const char* from, int64_t count, float* to, int64_t step) {
  T raw[3 * chunk];
  for (int64_t x = 0; x < count; x += chunk) {
    const int64_t some = std::min(chunk, count - x);
    split(reinterpret_cast<const T*>(from) + 3 * x, raw, some);
    for (int64_t c = 0; c < 3; ++c) decode(picture.kind, raw + c * chunk, to + c * step + x, some);
  }
}

template <class T>
void store_joined(const Picture& picture, const float* from, int64_t step, int64_t count, char* to) {
  T raw[3 * chunk];
  for (int64_t x = 0; x < count; x += chunk) {
    const int64_t some = std::min(chunk, count - x);
    for (int64_t c = 0; c < 3; ++c) encode(picture.kind, from + c * step + x, raw + c * chunk, some);
    join(raw, reinterpret_cast<T*>(to) + 3 * x, some);
  }
}

template <class T>
void load_strided(Kind kind, const char* from, int64_t stride, int64_t count, float* to) {
  T raw[chunk];
  for (int64_t x = 0; x < count; x += chunk) {
    const int64_t some = std::min(chunk, count - x);
    gather(reinterpret_cast<const T*>(from) + x * stride, stride, raw, some);
    decode(kind, raw, to + x, some);
  }
}

template <class T>
void store_strided(Kind kind, const float* from, int64_t stride, int64_t count, char* to) {
  T raw[chunk];
  for (int64_t x = 0; x < count; x += chunk) {
    const int64_t some = std::min(chunk, count - x);
    encode(kind, from + x, raw, some);
    scatter(raw, reinterpret_cast<T*>(to) + x * stride, stride, some);
  }
}

// Bytes past the caches.
inline void stream(const char* from, char* to, int64_t count) {
  constexpr int64_t line = 64, vector = lanes * sizeof(float);
  const int64_t head = std::min<int64_t>(count, -reinterpret_cast<uintptr_t>(to) % line);
  std::memcpy(to, from, head);
  int64_t i = head;
  for (; i + line <= count; i += line)
    for (int64_t part = i; part < i + line; part += vector)
      stream(reinterpret_cast<float*>(to + part), load(reinterpret_cast<const float*>(from + part)));
  std::memcpy(to + i, from + i, count - i);
}

// Whose rows need no conversion.
inline bool of_floats(const Picture& picture) { return picture.kind == Kind::f32 && picture.stride[3] == 1; }

// Floats to write to, past the caches or not.
struct Row {
  float* to;
  bool past_caches;

  // Lanes i, i + 1, ... before `count`.
  void put(int64_t i, int64_t count, Vec a) const {
    if (i + lanes > count) {
      float some[lanes];
      store(some, a);
      std::memcpy(to + i, some, sizeof(float) * std::max<int64_t>(count - i, 0));
    } else if (past_caches) {
      stream(to + i, a);
    } else {
      store(to + i, a);
    }
  }
};

// The row itself where it is of floats, else `buffer`.
inline Row row_or_buffer(const Picture& picture, int64_t n, int64_t c, int64_t y, int64_t x, float* buffer) {
  if (!of_floats(picture)) return {buffer, false};
  float* const to = reinterpret_cast<float*>(picture.address(n, c, y, x));
  return {to, picture.passing && reinterpret_cast<uintptr_t>(to) % (lanes * sizeof(float)) == 0};
}

// `count` pixels of every channel of row y from column x on, channel c to `to + c * step`.
inline void load_rows(const Picture& picture, int64_t n, int64_t y, int64_t x, int64_t count, float* to, int64_t step) {
  if (picture.interleaved()) {
    const char* from = picture.address(n, 0, y, x);
    if (picture.element_size == 1) return load_split<uint8_t>(picture, from, count, to, step);
    if (picture.element_size == 2) return load_split<uint16_t>(picture, from, count, to, step);
    return load_split<float>(picture, from, count, to, step);
  }
  const int64_t stride = picture.stride[3];
  for (int64_t c = 0; c < picture.channels; ++c) {
    const char* from = picture.address(n, c, y, x);
    float* channel = to + c * step;
    if (stride == 1 || count == 1) {
      decode(picture.kind, from, channel, count);
    } else if (picture.element_size == 1) {
      load_strided<uint8_t>(picture.kind, from, stride, count, channel);
    } else if (picture.element_size == 2) {
      load_strided<uint16_t>(picture.kind, from, stride, count, channel);
    } else {
      load_strided<float>(picture.kind, from, stride, count, channel);
    }
  }
}

// The way back.
inline void store_rows(const float* from, int64_t step, const Picture& picture, int64_t n, int64_t y, int64_t x,
                       int64_t count) {
  if (picture.interleaved()) {
    char* to = picture.address(n, 0, y, x);
    if (picture.element_size == 1) return store_joined<uint8_t>(picture, from, step, count, to);
    if (picture.element_size == 2) return store_joined<uint16_t>(picture, from, step, count, to);
    return store_joined<float>(picture, from, step, count, to);
  }
  const int64_t stride = picture.stride[3];
  for (int64_t c = 0; c < picture.channels; ++c) {
    char* to = picture.address(n, c, y, x);
    const float* channel = from + c * step;
    if (picture.stored_past_caches()) {
      stream(reinterpret_cast<const char*>(channel), to, count * sizeof(float));
    } else if (stride == 1 || count == 1) {
      encode(picture.kind, channel, to, count);
    } else if (picture.element_size == 1) {
      store_strided<uint8_t>(picture.kind, channel, stride, count, to);
    } else if (picture.element_size == 2) {
      store_strided<uint16_t>(picture.kind, channel, stride, count, to);
    } else {
      store_strided<float>(picture.kind, channel, stride, count, to);
    }
  }
}

// Pixels [first - 1, first + count + 1) of row y, the outermost replicated, channel c to `to + c * step`.
inline void load_padded_rows(const Picture& picture, int64_t n, int64_t y, int64_t first, int64_t count, float* to,
                             int64_t step) {
  const int64_t begin = std::max<int64_t>(first - 1, 0), end = std::min(first + count + 1, picture.width);
  const int64_t before = begin - (first - 1), loaded = end - begin;
  load_rows(picture, n, y, begin, loaded, to + before, step);
  for (int64_t c = 0; c < picture.channels; ++c) {
    float* row = to + c * step;
    std::fill(row, row + before, row[before]);
    std::fill(row + before + loaded, row + count + 2, row[before + loaded - 1]);
  }
}

// The same pixels of one picture into another, bit for bit; `buffer` holds `count` floats of every channel.
inline void copy_pixels(const Picture& from, const Picture& to, int64_t n, int64_t y, int64_t x, int64_t count,
                        float* buffer) {
  const bool plain = from.kind == to.kind;
  if (plain && from.interleaved() && to.interleaved()) {
    std::memcpy(to.address(n, 0, y, x), from.address(n, 0, y, x), 3 * count * from.element_size);
  } else if (plain && from.stride[3] == 1 && to.stride[3] == 1) {
    for (int64_t c = 0; c < from.channels; ++c) {
      const char* source = from.address(n, c, y, x);
      char* target = to.address(n, c, y, x);
      if (to.passing)
        stream(source, target, count * from.element_size);
      else
        std::memcpy(target, source, count * from.element_size);
    }
  } else {
    load_rows(from, n, y, x, count, buffer, count);
    store_rows(buffer, count, to, n, y, x, count);
  }
}
