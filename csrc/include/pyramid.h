// A step of the image pyramid.
#pragma once

#include "picture.h"

namespace abpn {

// Rows [begin, end) of I_{i+1} = `out` from I_i, those of all pictures counted through.
void reduce_rows(const Picture& image, bool box, const Picture& out, int64_t begin, int64_t end);

}  // namespace abpn
