// What a launch hands to the kernel of the gate's gradient.
#pragma once

#include "gated_task.h"

namespace abpn::gated {

// F * G + S * (1 - G) on the way back. `both` and `kept` hold what their activations get, and then its gradient.
struct GradientTask {
  void* both;
  // Null without a skip.
  void* kept;
  const void* grad;
  // Runs of so many numbers in `grad` and `kept`; `both` has the features of a run, then its gates.
  int64_t count, run;
  float slope;
};

// Null, or the CUDA error's message.
const char* launch_gradient(const GradientTask& task, Type type, void* stream);

}  // namespace abpn::gated
