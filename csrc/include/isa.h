// Which instruction set the kernels of this library run on.
#pragma once

namespace abpn {

// In the order of preference, the last that the machine has.
enum class Isa { portable = 0, avx2 = 1, avx512 = 2 };

Isa best_isa();
Isa isa();
void use_isa(Isa wanted);

}  // namespace abpn
