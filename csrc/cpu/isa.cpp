#include "isa.h"

#include <atomic>

namespace abpn {

Isa best_isa() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::portable;
}

namespace {

// Zen has as many bf16 dot products a cycle as FMAs, Intel's cores a quarter: half the FLOP/s.
Isa preferred_isa() {
#if defined(__x86_64__)
  if (best_isa() == Isa::avx512_bf16 && !__builtin_cpu_is("amd")) return Isa::avx512;
#endif
  return best_isa();
}

std::atomic<Isa> chosen{preferred_isa()};

}  // namespace

Isa isa() { return chosen.load(std::memory_order_relaxed); }

void use_isa(Isa wanted) { chosen.store(wanted, std::memory_order_relaxed); }

}  // namespace abpn
