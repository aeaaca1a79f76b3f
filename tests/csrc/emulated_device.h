// csrc/cuda/device.cuh on a CPU: every thread of a block is a fiber, run in random order between the points where threads
// wait for each other. Asynchronous copies are made when they are waited for and leave NaN until then, so that a missing
// barrier, a missing wait or a slot overwritten too early changes the result; misaligned or outlying accesses throw.
#pragma once
#define ABPN_DEVICE

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

inline dim3 threadIdx, blockIdx;

namespace abpn {
using std::max, std::min;
}

namespace abpn::gpu {

struct Copy {
  char* to;
  const char* from;
  int bytes;
  bool valid;
};

// Threads that wait for each other: all of a block, or the 32 of a warp with what each brought.
struct Meeting {
  std::vector<int> waiting;
  std::vector<void*> brought;
};

class Block {
 public:
  Block(int threads, int shared_bytes, unsigned seed)
      : memory_(shared_bytes + 128), threads_(threads), barrier_(), warps_(threads / 32), random_(seed) {
    // NaN in every type.
    std::memset(memory_.data(), 0xff, memory_.size());
    for (Thread& thread : threads_) thread.stack = std::make_unique<char[]>(stack_bytes);
  }

  void run(const std::function<void()>& kernel) {
    current() = this;
    kernel_ = &kernel;
    for (int i = 0; i < static_cast<int>(threads_.size()); ++i) {
      Thread& thread = threads_[i];
      getcontext(&thread.context);
      thread.context.uc_stack = {thread.stack.get(), 0, stack_bytes};
      thread.context.uc_link = &scheduler_;
      makecontext(&thread.context, &Block::start, 0);
      ready_.push_back(i);
    }
    while (!ready_.empty()) {
      std::swap(ready_[random_() % ready_.size()], ready_.back());
      now_ = ready_.back();
      ready_.pop_back();
      threadIdx = dim3(now_);
      swapcontext(&scheduler_, &threads_[now_].context);
    }
    if (!error_.empty()) throw std::runtime_error(error_);
    if (finished_ != threads_.size()) throw std::runtime_error("threads wait for others that never come");
  }

  static Block*& current() {
    static Block* block;
    return block;
  }

  char* memory() { return memory_.data() + (128 - reinterpret_cast<uintptr_t>(memory_.data()) % 128); }

  void check_shared(const void* pointer, int bytes) {
    const char* at = static_cast<const char*>(pointer);
    const char* end = memory_.data() + memory_.size();
    if (at < memory() || at + bytes > end) fail("shared memory accessed outside its bounds");
    if (reinterpret_cast<uintptr_t>(at) % bytes) fail("shared memory accessed out of line");
  }

  void fail(const char* error) {
    if (error_.empty()) error_ = error;
  }

  void meet_all() { meet(barrier_, threads_.size(), nullptr, [](const std::vector<void*>&) {}); }

  template <class Together>
  void meet_warp(void* brought, const Together& together) {
    meet(warps_[now_ / 32], 32, brought, together);
  }

  void copy(const Copy& copy) {
    check_shared(copy.to, copy.bytes);
    if (copy.valid && reinterpret_cast<uintptr_t>(copy.from) % copy.bytes) fail("global memory read out of line");
    std::memset(copy.to, 0xff, copy.bytes);
    threads_[now_].copies.push_back(copy);
  }

  void commit() {
    Thread& thread = threads_[now_];
    thread.groups.push_back(std::move(thread.copies));
    thread.copies.clear();
  }

  void wait(size_t pending) {
    for (auto& groups = threads_[now_].groups; groups.size() > pending; groups.pop_front())
      for (const Copy& copy : groups.front())
        if (copy.valid)
          std::memcpy(copy.to, copy.from, copy.bytes);
        else
          std::memset(copy.to, 0, copy.bytes);
  }

 private:
  static constexpr size_t stack_bytes = 1 << 16;
  struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::vector<Copy> copies;
    std::deque<std::vector<Copy>> groups;
  };

  static void start() {
    (*current()->kernel_)();
    ++current()->finished_;
  }

  template <class Together>
  void meet(Meeting& meeting, size_t size, void* brought, const Together& together) {
    meeting.waiting.push_back(now_);
    meeting.brought.resize(size);
    meeting.brought[now_ % size] = brought;
    if (meeting.waiting.size() == size) {
      together(meeting.brought);
      ready_.insert(ready_.end(), meeting.waiting.begin(), meeting.waiting.end());
      meeting.waiting.clear();
    }
    swapcontext(&threads_[now_].context, &scheduler_);
  }

  std::vector<char> memory_;
  std::vector<Thread> threads_;
  Meeting barrier_;
  std::vector<Meeting> warps_;
  std::vector<int> ready_;
  std::minstd_rand random_;
  ucontext_t scheduler_;
  const std::function<void()>* kernel_;
  std::string error_;
  size_t finished_ = 0;
  int now_ = 0;
};

inline char* shared_memory() { return Block::current()->memory(); }
inline float fast_sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
inline unsigned kept(unsigned number) { return number; }
inline void synchronize() { Block::current()->meet_all(); }

inline void copy4(void* to, const void* from, bool valid) {
  Block::current()->copy({static_cast<char*>(to), static_cast<const char*>(from), 4, valid});
}
inline void copy16(void* to, const void* from, bool valid) {
  Block::current()->copy({static_cast<char*>(to), static_cast<const char*>(from), 16, valid});
}
inline void copy16_once(void* to, const void* from) { copy16(to, from, true); }
inline void commit_copies() { Block::current()->commit(); }
template <int Pending>
void wait_for_copies() {
  Block::current()->wait(Pending);
}

inline void load_matrices(uint32_t (&to)[4], const void* row) {
  struct Lane {
    uint32_t* to;
    const char* row;
  } mine{to, static_cast<const char*>(row)};
  Block::current()->check_shared(row, 16);
  Block::current()->meet_warp(&mine, [](const std::vector<void*>& lanes) {
    for (int lane = 0; lane < 32; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix) {
        const char* from = static_cast<Lane*>(lanes[matrix * 8 + lane / 4])->row + lane % 4 * 4;
        std::memcpy(static_cast<Lane*>(lanes[lane])->to + matrix, from, 4);
      }
  });
}

template <class T>
float number(const uint32_t& pair, int which) {
  T value;
  std::memcpy(&value, reinterpret_cast<const char*>(&pair) + 2 * which, 2);
  return static_cast<float>(value);
}

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* sum;
    const uint32_t* a;
    uint32_t b[2];
  } mine{sum, a, {b0, b1}};
  Block::current()->meet_warp(&mine, [](const std::vector<void*>& lanes) {
    const auto lane = [&](int i) -> const Lane& { return *static_cast<const Lane*>(lanes[i]); };
    float left[16][16], right[16][8];
    for (int row = 0; row < 16; ++row)
      for (int k = 0; k < 16; ++k)
        left[row][k] = number<T>(lane(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k % 2);
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column)
        right[k][column] = number<T>(lane(column * 4 + k % 8 / 2).b[k / 8], k % 2);
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column) {
        float& to = lane(row % 8 * 4 + column / 2).sum[row / 8 * 2 + column % 2];
        for (int k = 0; k < 16; ++k) to = std::fma(left[row][k], right[k][column], to);
      }
  });
}

}  // namespace abpn::gpu
