// What the machine's arithmetic units can do, for the benchmarks: multiply-adds on registers alone.
#ifndef ABPN_ISA

#include <atomic>
#include <chrono>

#include <torch/csrc/stable/ops.h>

#include "operators.h"

#define ABPN_SOURCE "../cpu/ceilings.cpp"
#include "each_isa.h"

namespace abpn {

double fma_peak(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto slice = ABPN_FOR_ISA(multiply_adds);
  std::atomic<double> rate{0};
  const int64_t threads = torch::stable::get_num_threads();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto start = Clock::now();
      double flops = 0, taken = 0;
      for (volatile float used = 0; taken < seconds; taken = std::chrono::duration<double>(Clock::now() - start).count())
        flops += slice(&used);
      for (double before = rate; !rate.compare_exchange_weak(before, before + flops / taken);) {
      }
    }
  });
  return rate;
}

}  // namespace abpn

#else

// Some microseconds of independent chains, as many as hide the latency and fit in the registers; returns the FLOPs.
inline double multiply_adds(volatile float* used) {
  constexpr int chains = registers == 32 ? 24 : 12, rounds = 4096;
  // sum += sum * shrink: an instruction that overwrites what it adds to, as ARM's does, then needs no copy.
  const Vec shrink = broadcast(-0.001f);
  Vec sums[chains];
#pragma GCC unroll 32
  for (int i = 0; i < chains; ++i) sums[i] = broadcast(1.0f + i);
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) add_product(sums[i], sums[i], shrink);
  }
  float last[lanes];
#pragma GCC unroll 32
  for (int i = 1; i < chains; ++i) sums[0] = sums[0] + sums[i];
  store(last, sums[0]);
  *used = last[0];
  return 2.0 * chains * lanes * rounds;
}

#endif
