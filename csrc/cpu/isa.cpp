#include "isa.h"

#include <atomic>
#include <initializer_list>

namespace abpn {

bool has(Isa wanted) {
  switch (wanted) {
    case Isa::portable: return true;
#if defined(__x86_64__)
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case Isa::avx512:
      return has(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case Isa::avx512_bf16: return has(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
    case Isa::neon: return true;
#endif
    default: return false;
  }
}

namespace {

// Zen has as many bf16 dot products a cycle as FMAs, Intel's cores a quarter: half the FLOP/s.
Isa preferred_isa() {
#if defined(__x86_64__)
  // It may run before the constructor that does so.
  __builtin_cpu_init();
  if (has(Isa::avx512_bf16) && __builtin_cpu_is("amd")) return Isa::avx512_bf16;
#endif
  for (const Isa each : {Isa::neon, Isa::avx512, Isa::avx2})
    if (has(each)) return each;
  return Isa::portable;
}

std::atomic<Isa> chosen{preferred_isa()};

}  // namespace

Isa isa() { return chosen.load(std::memory_order_relaxed); }

void use_isa(Isa wanted) { chosen.store(wanted, std::memory_order_relaxed); }

}  // namespace abpn
