// The steps of the image pyramid, over whole levels.
#pragma once

#include "picture.h"

namespace abpn {

// I_{i+1} from I_i.
void reduce(const Picture& image, bool box, const Picture& out);

// H_i = I_i - up(I_{i+1}).
void subtract_upsampled(const Picture& image, const Picture& low, const Picture& out);

}  // namespace abpn
