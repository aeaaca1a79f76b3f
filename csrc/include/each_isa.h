// Compiles ABPN_SOURCE once per instruction set, each in a namespace of its own and after the vector type of that set.
// Everything the kernels share with the rest is included first: inside a target region an inline function of the
// standard library would be compiled for that target and could be the copy the linker keeps for all.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "isa.h"
#include "picture.h"
#include "prefetcher.h"
#include "scratch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ABPN_ISA

namespace abpn::portable {
#include "vector_portable.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::portable

#if defined(__x86_64__)

#define ABPN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define ABPN_TARGET(features) \
  ABPN_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define ABPN_TARGET_END ABPN_PRAGMA(clang attribute pop)
#else
#define ABPN_TARGET(features) ABPN_PRAGMA(GCC push_options) ABPN_PRAGMA(GCC target(features))
#define ABPN_TARGET_END ABPN_PRAGMA(GCC pop_options)
#endif

ABPN_TARGET("avx2,fma,f16c")
namespace abpn::avx2 {
#include "vector_avx2.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::avx2
ABPN_TARGET_END

ABPN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace abpn::avx512 {
#include "vector_avx512.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::avx512
ABPN_TARGET_END

#undef ABPN_PRAGMA
#undef ABPN_TARGET
#undef ABPN_TARGET_END

// The function of that name for the instruction set in use; avx512_bf16 is avx512 but for what asks for it.
#define ABPN_FOR_ISA(function)                         \
  (abpn::isa() >= abpn::Isa::avx512 ? avx512::function \
   : abpn::isa() == abpn::Isa::avx2 ? avx2::function   \
                                    : portable::function)

#elif defined(__aarch64__)

namespace abpn::neon {
#include "vector_neon.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::neon

#define ABPN_FOR_ISA(function) (abpn::isa() == abpn::Isa::neon ? neon::function : portable::function)

#else
#define ABPN_FOR_ISA(function) portable::function
#endif

#undef ABPN_ISA
