// What torch.ops.abpn_fast_cuda offers.
#if __has_include(<Python.h>)
#include <Python.h>
#endif

#include <array>
#include <optional>
#include <string>

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "gated_gradient.h"
#include "gated_task.h"
#include "gated_weights.h"

namespace abpn {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using namespace gated;

void check(bool holds, const std::string& sentence) {
  if (!holds) throw std::runtime_error("gated_conv: " + sentence);
}

void check_launch(const char* error) {
  check(error == nullptr, std::string("the kernel could not be launched: ") + (error ? error : ""));
}

int small(int64_t size) {
  check(size < (int64_t{1} << 30), "every size must be below 2^30, got " + std::to_string(size));
  return static_cast<int>(size);
}

Type type_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half: return Type::half;
    case ScalarType::BFloat16: return Type::bfloat16;
    case ScalarType::Float: return Type::single;
    default: throw std::runtime_error("gated_conv: tensors must be float16, bfloat16 or float32");
  }
}

void check_tensor(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape, const Tensor& like) {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    const int64_t wanted = shape.begin()[i];
    fits = wanted < 0 || tensor.size(static_cast<int64_t>(i)) == wanted;
  }
  check(fits, std::string(name) + " does not have the shape that the other arguments ask for");
  check(tensor.is_cuda() && tensor.get_device_index() == like.get_device_index(),
        std::string(name) + " must be on the GPU of the other arguments");
  check(tensor.scalar_type() == like.scalar_type(), std::string(name) + " must have the dtype of the other arguments");
}

View view(const Tensor& tensor) {
  return view_of(tensor.const_data_ptr(), tensor.sizes().data(), tensor.strides().data());
}

int multiprocessors(int device) {
  int count = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  check(error == cudaSuccess, std::string("the GPU does not answer: ") + cudaGetErrorString(error));
  return count;
}

Weight weight_view(const Tensor& tensor) {
  const auto stride = tensor.strides();
  return {tensor.const_data_ptr(), {stride[0], stride[1], stride[2], stride[3]}};
}

bool phased(int64_t count, int64_t height, int64_t width) {
  return worth_phases({small(count), small(height), small(width), 0, 0, 0, 0, 0, false});
}

Plan weights_plan(int64_t features, int64_t skip, int64_t out, bool masked, bool kept, bool gated, bool phased) {
  return plan_weights({0, 0, 0, small(features), small(skip), small(out), masked, masked, kept, gated}, phased);
}

int64_t packed_numbers(int64_t features, int64_t skip, int64_t out, bool masked, bool kept, bool gated, bool phased) {
  return packed_size(weights_plan(features, skip, out, masked, kept, gated, phased));
}

// The weights in the order in which the kernels read them; not gated: of a convolution alone.
void pack(Tensor weight, std::optional<Tensor> skip_weight, int64_t features, bool masked, bool gated, bool phased,
          int64_t stream, Tensor packed) {
  const int64_t out = gated ? weight.size(0) / 2 : weight.size(0), skip = weight.size(1) - features - masked;
  const Plan plan = weights_plan(features, skip, out, masked, skip_weight.has_value(), gated, phased);
  check_tensor("packed", packed, {packed_size(plan)}, weight);
  check_tensor("weight", weight, {gated ? 2 * out : out, features + skip + masked, 3, 3}, packed);
  if (skip_weight) check_tensor("skip_weight", *skip_weight, {out, skip, 3, 3}, packed);
  const torch::stable::accelerator::DeviceGuard guard(weight.get_device_index());
  check_launch(launch_packing(plan, weight_view(weight), skip_weight ? weight_view(*skip_weight) : Weight{},
                              packed.mutable_data_ptr(), type_of(weight), reinterpret_cast<void*>(stream)));
}

// Plans and launches what `task` says of sources, biases and slope.
void launch_on(Task& task, const Shape& shape, bool phased, const Tensor& packed, const Tensor& skip, int64_t stream,
               const Tensor& out) {
  check(!phased || (shape.height % 2 == 0 && shape.width % 2 == 0), "phases ask for an even height and width");
  task.plan = plan_weights(shape, phased);
  check_tensor("packed", packed, {packed_size(task.plan)}, skip);
  const int device = skip.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Type type = type_of(skip);
  const Kernel kernel = type == Type::single ? Kernel::full : half_kernel(task.plan);
  plan_tiles(task.plan, tile_of(kernel), multiprocessors(device));

  const View result = view_of(out.mutable_data_ptr(), out.sizes().data(), out.strides().data());
  for (int i = 0; i < 4; ++i) task.out_stride[i] = result.stride[i];
  task.out = out.mutable_data_ptr();
  task.out_pairs = type != Type::single && steps_by(result, 2);
  task.packed = packed.const_data_ptr();
  // From PyTorch's allocator, so that a CUDA graph can capture it; on the current stream, which is also the kernels'.
  std::optional<Tensor> partial;
  if (const int64_t size = partial_size(task.plan, kernel)) {
    partial = torch::stable::new_empty(skip, {size}, ScalarType::Float);
    task.partial = static_cast<float*>(partial->mutable_data_ptr());
  }
  check_launch(launch(task, kernel, type, reinterpret_cast<void*>(stream)));
}

// `packed` as `pack` makes it; biases contiguous; on `stream`, a cudaStream_t.
void gated_conv(Tensor features, Tensor skip, std::optional<Tensor> mask, Tensor packed, Tensor bias,
                std::optional<Tensor> skip_bias, double negative_slope, bool phased, int64_t stream, Tensor out) {
  const int64_t count = skip.size(0), height = skip.size(2), width = skip.size(3), channels = out.size(1);
  check_tensor("features", features, {count, -1, (height + 1) / 2, (width + 1) / 2}, skip);
  if (mask) check_tensor("mask", *mask, {count, 1, -1, -1}, skip);
  check_tensor("bias", bias, {2 * channels}, skip);
  if (skip_bias) check_tensor("skip_bias", *skip_bias, {channels}, skip);
  check_tensor("out", out, {count, channels, height, width}, skip);
  check(bias.is_contiguous() && (!skip_bias || skip_bias->is_contiguous()), "biases must be contiguous");

  const Shape shape{small(count),
                    small(height),
                    small(width),
                    small(features.size(1)),
                    small(skip.size(1)),
                    small(channels),
                    mask ? small(mask->size(2)) : 0,
                    mask ? small(mask->size(3)) : 0,
                    skip_bias.has_value()};
  Task task{};
  task.source[features_source] = view(features);
  task.source[skip_source] = view(skip);
  if (mask) task.source[mask_source] = view(*mask);
  task.bias = bias.const_data_ptr();
  task.skip_bias = skip_bias ? skip_bias->const_data_ptr() : nullptr;
  task.slope = static_cast<float>(negative_slope);
  launch_on(task, shape, phased, packed, skip, stream, out);
}

// leaky(conv3x3(Cat(up(features), skip))), or of skip alone with a stride of 1 or 2.
void convolution(std::optional<Tensor> features, Tensor skip, Tensor packed, Tensor bias, double negative_slope,
                 int64_t stride, bool phased, int64_t stream, Tensor out) {
  check(stride == 1 || (stride == 2 && !features), "the stride must be 1, or 2 without features");
  const int64_t count = skip.size(0), height = skip.size(2), width = skip.size(3), channels = out.size(1);
  check_tensor("out", out, {count, channels, (height + stride - 1) / stride, (width + stride - 1) / stride}, skip);
  if (features) check_tensor("features", *features, {count, -1, (height + 1) / 2, (width + 1) / 2}, skip);
  check_tensor("bias", bias, {channels}, skip);
  check(bias.is_contiguous(), "bias must be contiguous");

  const Shape shape{small(count),
                    small(out.size(2)),
                    small(out.size(3)),
                    features ? small(features->size(1)) : 0,
                    small(skip.size(1)),
                    small(channels),
                    0,
                    0,
                    false,
                    false,
                    static_cast<int>(stride),
                    small(height),
                    small(width)};
  Task task{};
  if (features) task.source[features_source] = view(*features);
  task.source[skip_source] = view(skip);
  task.bias = bias.const_data_ptr();
  task.slope = static_cast<float>(negative_slope);
  launch_on(task, shape, phased, packed, skip, stream, out);
}

void check_dense(const char* name, const Tensor& tensor, bool channels_last) {
  int64_t wanted = 1;
  for (const int64_t axis : channels_last ? std::array{1, 3, 2, 0} : std::array{3, 2, 1, 0}) {
    check(tensor.size(axis) == 1 || tensor.stride(axis) == wanted, std::string(name) + " must be dense in its layout");
    wanted *= tensor.size(axis);
  }
}

// In place: what the activations of features and gate, and of the skip, got becomes its gradient.
void gated_conv_gradient(Tensor both, std::optional<Tensor> kept, Tensor grad, double negative_slope,
                         bool channels_last, int64_t stream) {
  const int64_t count = grad.size(0), channels = grad.size(1), height = grad.size(2), width = grad.size(3);
  check_tensor("both", both, {count, 2 * channels, height, width}, grad);
  check_dense("both", both, channels_last);
  check_dense("grad", grad, channels_last);
  if (kept) {
    check_tensor("kept", *kept, {count, channels, height, width}, grad);
    check_dense("kept", *kept, channels_last);
  }
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const int64_t pixels = height * width;
  check_launch(launch_gradient({both.mutable_data_ptr(), kept ? kept->mutable_data_ptr() : nullptr,
                                grad.const_data_ptr(), channels_last ? count * pixels : count,
                                channels_last ? channels : channels * pixels, static_cast<float>(negative_slope)},
                               type_of(grad), reinterpret_cast<void*>(stream)));
}

}  // namespace
}  // namespace abpn

STABLE_TORCH_LIBRARY(abpn_fast_cuda, library) {
  library.def("gated_conv_phased(int count, int height, int width) -> bool");
  library.def(
      "gated_conv_packed_size(int features, int skip, int out, bool masked, bool kept, bool gated, bool phased) -> "
      "int");
  library.def(
      "gated_conv_pack(Tensor weight, Tensor? skip_weight, int features, bool masked, bool gated, bool phased, "
      "int stream, Tensor(a!) packed) -> ()");
  library.def(
      "gated_conv(Tensor features, Tensor skip, Tensor? mask, Tensor packed, Tensor bias, Tensor? skip_bias, "
      "float negative_slope, bool phased, int stream, Tensor(a!) out) -> ()");
  library.def(
      "convolution(Tensor? features, Tensor skip, Tensor packed, Tensor bias, float negative_slope, int stride, "
      "bool phased, int stream, Tensor(a!) out) -> ()");
  library.def(
      "gated_conv_gradient(Tensor(a!) both, Tensor(b!)? kept, Tensor grad, float negative_slope, bool channels_last, "
      "int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(abpn_fast_cuda, CompositeExplicitAutograd, library) {
  library.impl("gated_conv_phased", TORCH_BOX(&abpn::phased));
  library.impl("gated_conv_packed_size", TORCH_BOX(&abpn::packed_numbers));
}

STABLE_TORCH_LIBRARY_IMPL(abpn_fast_cuda, CUDA, library) {
  library.impl("gated_conv_pack", TORCH_BOX(&abpn::pack));
  library.impl("gated_conv", TORCH_BOX(&abpn::gated_conv));
  library.impl("convolution", TORCH_BOX(&abpn::convolution));
  library.impl("gated_conv_gradient", TORCH_BOX(&abpn::gated_conv_gradient));
}

// As for the CPU's library.
#if __has_include(<Python.h>)
PyMODINIT_FUNC PyInit__C_cuda() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr,
                               nullptr};
  return PyModule_Create(&module);
}
#endif
