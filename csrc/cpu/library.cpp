// What torch.ops.abpn_fast_cpu offers.
#if __has_include(<Python.h>)
#include <Python.h>
#endif

#include <torch/csrc/stable/library.h>

#include "isa.h"
#include "operators.h"

namespace {

bool has_isa(int64_t wanted) { return abpn::has(static_cast<abpn::Isa>(wanted)); }
int64_t isa() { return static_cast<int64_t>(abpn::isa()); }
void use_isa(int64_t wanted) { abpn::use_isa(static_cast<abpn::Isa>(wanted)); }

}  // namespace

STABLE_TORCH_LIBRARY(abpn_fast_cpu, library) {
  library.def("has_isa(int wanted) -> bool");
  library.def("isa() -> int");
  library.def("use_isa(int wanted) -> ()");
  library.def("fma_peak(float seconds) -> float");
  library.def("adaptive_blend(Tensor image, Tensor blend, Tensor j, Tensor k, float strength, Tensor(a!) out) -> ()");
  library.def(
      "reverse_adaptive_blend(Tensor image, Tensor retouched, Tensor j, Tensor k, float damping, Tensor(a!) out) -> ()");
  library.def(
      "blend_gradients(Tensor grad, Tensor image, Tensor other, Tensor j, Tensor k, float number, bool reverse, "
      "Tensor(a!)? image_grad, Tensor(b!)? other_grad, Tensor(c!) sums) -> ()");
  library.def("pyramid_down(Tensor image, bool box, Tensor(a!) out) -> ()");
  library.def("laplacian_decompose(Tensor image, int levels, bool box, Tensor(a!)[] out) -> ()");
  library.def(
      "upsample_refine(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, Tensor weight2, "
      "Tensor bias2, bool bf16, Tensor(a!) out) -> ()");
  library.def(
      "upsample_refine_backward(Tensor grad, Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, "
      "Tensor weight2, Tensor bias2, Tensor(a!) grad_up, Tensor(b!)? grad_high, Tensor(c!) sums) -> ()");
  library.def(
      "upsample_refine_blend(Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, "
      "Tensor weight2, Tensor bias2, Tensor j, Tensor k, float strength, Tensor? mask, float? mask_threshold, "
      "bool bf16, Tensor(a!) out) -> ()");
  library.def(
      "gated_conv(Tensor? features, Tensor skip, Tensor? mask, Tensor? features_weight, Tensor skip_weight, Tensor bias, "
      "int groups, float negative_slope, bool bf16, Tensor(a!) out) -> bool");
  library.def(
      "gated_conv_directly(Tensor? features, Tensor skip, Tensor? mask, Tensor? features_weight, Tensor? mask_weight, "
      "Tensor skip_weight, Tensor bias, int groups, float negative_slope, Tensor(a!) out) -> bool");
  library.def(
      "gated_conv_tiles(Tensor features, Tensor skip, Tensor? mask, Tensor weight, Tensor bias, Tensor? skip_weight, "
      "Tensor? skip_bias, float negative_slope, int kernel, bool phased, int multiprocessors, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(abpn_fast_cpu, CompositeExplicitAutograd, library) {
  library.impl("has_isa", TORCH_BOX(&has_isa));
  library.impl("isa", TORCH_BOX(&isa));
  library.impl("use_isa", TORCH_BOX(&use_isa));
  library.impl("fma_peak", TORCH_BOX(&abpn::fma_peak));
}

STABLE_TORCH_LIBRARY_IMPL(abpn_fast_cpu, CPU, library) {
  library.impl("adaptive_blend", TORCH_BOX(&abpn::adaptive_blend));
  library.impl("reverse_adaptive_blend", TORCH_BOX(&abpn::reverse_adaptive_blend));
  library.impl("blend_gradients", TORCH_BOX(&abpn::blend_gradients));
  library.impl("pyramid_down", TORCH_BOX(&abpn::pyramid_down));
  library.impl("laplacian_decompose", TORCH_BOX(&abpn::laplacian_decompose));
  library.impl("upsample_refine", TORCH_BOX(&abpn::upsample_refine));
  library.impl("upsample_refine_backward", TORCH_BOX(&abpn::upsample_refine_backward));
  library.impl("upsample_refine_blend", TORCH_BOX(&abpn::upsample_refine_blend));
  library.impl("gated_conv", TORCH_BOX(&abpn::gated_conv));
  library.impl("gated_conv_directly", TORCH_BOX(&abpn::gated_conv_directly));
  library.impl("gated_conv_tiles", TORCH_BOX(&abpn::gated_conv_tiles));
}

// `import abpn_fast._C` loads the library, and loading it registers the operators. The package loads it without Python,
// so that Python's headers, which Linux distributions have in a package of their own, need not be there.
#if __has_include(<Python.h>)
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
#endif
