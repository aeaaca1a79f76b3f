#include "picture.h"

#include <cstring>
#include <stdexcept>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace abpn {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Kind kind_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Byte: return Kind::u8;
    case ScalarType::Half: return Kind::f16;
    case ScalarType::BFloat16: return Kind::bf16;
    case ScalarType::Float: return Kind::f32;
    default: throw std::runtime_error("the cpu backend reads uint8, float16, bfloat16 and float32 pictures");
  }
}

Picture view(const Tensor& tensor, void* data) {
  if (tensor.dim() != 4 || !tensor.is_cpu()) throw std::runtime_error("a picture must be a (N, C, H, W) tensor on the CPU");
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  const Kind kind = kind_of(tensor);
  const int64_t bytes = kind == Kind::u8 ? 1 : kind == Kind::f32 ? 4 : 2;
  return {static_cast<char*>(data), kind, bytes, sizes[0], sizes[1], sizes[2], sizes[3],
          {strides[0], strides[1], strides[2], strides[3]}};
}

float read_float(const char* data, ScalarType type, int64_t index) {
  switch (type) {
    case ScalarType::Half: return reinterpret_cast<const c10::Half*>(data)[index];
    case ScalarType::BFloat16: return reinterpret_cast<const c10::BFloat16*>(data)[index];
    case ScalarType::Float: return reinterpret_cast<const float*>(data)[index];
    case ScalarType::Double: return static_cast<float>(reinterpret_cast<const double*>(data)[index]);
    default: throw std::runtime_error("coefficients and weights must be floating");
  }
}

}  // namespace

Picture input(const Tensor& tensor) { return view(tensor, const_cast<void*>(tensor.const_data_ptr())); }

Picture output(const Tensor& tensor) { return view(tensor, tensor.mutable_data_ptr()); }

void read_floats(const Tensor& tensor, float* to) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  int64_t size[4] = {1, 1, 1, 1}, stride[4] = {};
  for (int64_t i = 0, skipped = 4 - tensor.dim(); i < tensor.dim(); ++i) {
    size[skipped + i] = sizes[i];
    stride[skipped + i] = strides[i];
  }
  const char* data = static_cast<const char*>(tensor.const_data_ptr());
  const ScalarType type = tensor.scalar_type();
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c)
        for (int64_t d = 0; d < size[3]; ++d)
          *to++ = read_float(data, type, a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]);
}

}  // namespace abpn
