// Which instruction set the kernels of this library run on.
#pragma once

namespace abpn {

// Each has the one before it.
enum class Isa { portable = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3 };

// The last that the machine has.
Isa best_isa();
Isa isa();
void use_isa(Isa wanted);

}  // namespace abpn
