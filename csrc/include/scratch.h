// Working memory of one thread for one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace abpn {

// Floats on a cache line, cleared unless asked for as they are; handed out front to back.
class Scratch {
 public:
  explicit Scratch(int64_t floats, bool cleared = true)
      : memory_(static_cast<float*>(::operator new(sizeof(float) * floats, alignment))), free_(memory_) {
    for (int64_t i = 0; cleared && i < floats; ++i) memory_[i] = 0.0f;
  }
  ~Scratch() { ::operator delete(memory_, alignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* take(int64_t floats) {
    float* taken = free_;
    free_ += floats;
    return taken;
  }

 private:
  static constexpr std::align_val_t alignment{64};
  float* memory_;
  float* free_;
};

}  // namespace abpn
