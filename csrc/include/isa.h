// Which instruction set the kernels of this library run on.
#pragma once

namespace abpn {

// Those of x86 have the ones before them.
enum class Isa { portable = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3, neon = 4 };

// Whether the machine has it.
bool has(Isa wanted);
Isa isa();
void use_isa(Isa wanted);

}  // namespace abpn
