#include "picture.h"

#include <cstring>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace abpn {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Kind kind_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Byte: return Kind::u8;
    case ScalarType::UInt16: return Kind::u16;
    case ScalarType::Half: return Kind::f16;
    case ScalarType::BFloat16: return Kind::bf16;
    case ScalarType::Float: return Kind::f32;
    default: throw std::runtime_error("the cpu backend reads uint8, uint16, float16, bfloat16 and float32 pictures");
  }
}

Picture view(const Tensor& tensor, void* data) {
  if (tensor.dim() != 4 || !tensor.is_cpu()) throw std::runtime_error("a picture must be a (N, C, H, W) tensor on the CPU");
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  const Kind kind = kind_of(tensor);
  const int64_t bytes = kind == Kind::u8 ? 1 : kind == Kind::f32 ? 4 : 2;
  return {static_cast<char*>(data), kind, bytes, sizes[0], sizes[1], sizes[2], sizes[3],
          {strides[0], strides[1], strides[2], strides[3]}, false};
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

// Memory that nobody has written yet comes page by page; in pages of 4 KB that takes as long as the arithmetic. It is a
// wish: where it cannot be granted nothing happens.
void ask_for_huge_pages([[maybe_unused]] const Picture& picture) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 2 << 20, worth_it = 8 << 20;
  if (picture.count * picture.channels * picture.height * picture.width == 0) return;
  const char* last = picture.address(picture.count - 1, picture.channels - 1, picture.height - 1, picture.width - 1);
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(picture.data) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(last) / page * page;
  if (end > begin + worth_it) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

Picture input(const Tensor& tensor) { return view(tensor, const_cast<void*>(tensor.const_data_ptr())); }

Picture output(const Tensor& tensor) {
  constexpr int64_t most_cached = 32 << 20;
  Picture picture = view(tensor, tensor.mutable_data_ptr());
  const int64_t elements = picture.count * picture.channels * picture.height * picture.width;
  picture.passing = picture.stride[3] == 1 && elements * picture.element_size > most_cached;
  ask_for_huge_pages(picture);
  return picture;
}

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
