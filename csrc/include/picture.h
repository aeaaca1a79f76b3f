// A (N, C, H, W) tensor as the kernels see it: an address, strides and what one element is.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/tensor.h>

namespace abpn {

enum class Kind { u8, u16, f16, bf16, f32 };

struct Picture {
  char* data;
  Kind kind;
  int64_t element_size;
  int64_t count, channels, height, width;
  // In elements.
  int64_t stride[4];
  // Of rows without gaps, and too large for its first rows to be in a cache when its last are written: stored past the
  // caches, a line need not be read before it is overwritten.
  bool passing = false;

  char* address(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return data + element_size * (n * stride[0] + c * stride[1] + y * stride[2] + x * stride[3]);
  }
  // In smaller dtypes than float32 too few whole lines come together for it to pay.
  bool stored_past_caches() const { return passing && kind == Kind::f32; }
  bool interleaved() const { return channels == 3 && stride[1] == 1 && stride[3] == 3; }
  Picture channel(int64_t c) const {
    Picture one = *this;
    one.data = address(0, c, 0, 0);
    one.channels = 1;
    return one;
  }
};

Picture input(const torch::stable::Tensor& tensor);
Picture output(const torch::stable::Tensor& tensor);

// Every element of a floating tensor of up to four dimensions, in the order of its indices.
void read_floats(const torch::stable::Tensor& tensor, float* to);

}  // namespace abpn
