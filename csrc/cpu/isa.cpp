#include "isa.h"

#include <atomic>

namespace abpn {

Isa best_isa() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::portable;
}

namespace {
std::atomic<Isa> chosen{best_isa()};
}

Isa isa() { return chosen.load(std::memory_order_relaxed); }

void use_isa(Isa wanted) { chosen.store(wanted, std::memory_order_relaxed); }

}  // namespace abpn
