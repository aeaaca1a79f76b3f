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
#endif

#define ABPN_ISA

namespace abpn::portable {
#include "vector_portable.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::portable

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace abpn::avx2 {
#include "vector_avx2.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace abpn::avx512 {
#include "vector_avx512.h"

#include "rows.h"

#include ABPN_SOURCE
}  // namespace abpn::avx512
#pragma GCC pop_options

// The function of that name for the instruction set in use; avx512_bf16 is avx512 but for what asks for it.
#define ABPN_FOR_ISA(function)                         \
  (abpn::isa() >= abpn::Isa::avx512 ? avx512::function \
   : abpn::isa() == abpn::Isa::avx2 ? avx2::function   \
                                    : portable::function)

#else
#define ABPN_FOR_ISA(function) portable::function
#endif

#undef ABPN_ISA
