// A block of threads on the host: every thread is a fiber that runs until it waits, so bodies with barriers, warp
// shuffles, shared memory and clusters run as they are written, under the address sanitizer. One thread runs at a
// time; a barrier that not everybody reaches ends the program.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

class Fibers {
 public:
  struct Barrier {
    int size = 0, arrived = 0, generation = 0;
  };

  explicit Fibers(int count) : contexts_(count), done_(count), stacks_(count) {
    for (auto& stack : stacks_) stack = std::make_unique<char[]>(kStack);
  }

  // Runs body(0) ... body(count - 1), from the last to the first, until all have ended.
  void run(const std::function<void(int)>& body) {
    body_ = &body;
    const int count = static_cast<int>(contexts_.size());
    for (int i = 0; i < count; ++i) prepare(i);
    for (int left = count; left > 0;) {
      moved_ = false;
      for (int i = count - 1; i >= 0; --i) {
        if (done_[i]) continue;
        resume(i);
        if (done_[i]) --left;
      }
      if (!moved_ && left > 0) {
        std::fprintf(stderr, "fibers: a barrier is not reached by all threads\n");
        std::abort();
      }
    }
  }

  void wait(Barrier& barrier) {
    moved_ = true;
    const int generation = barrier.generation;
    if (++barrier.arrived == barrier.size) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    while (barrier.generation == generation) yield();
    moved_ = true;
  }

 private:
  static constexpr size_t kStack = 128 << 10;

  void prepare(int index) {
    done_[index] = false;
    ucontext_t& context = contexts_[index];
    getcontext(&context);
    context.uc_stack.ss_sp = stacks_[index].get();
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&context, reinterpret_cast<void (*)()>(&Fibers::enter), 3, static_cast<int>(self >> 32),
                static_cast<int>(self & 0xFFFFFFFFu), index);
  }

  static void enter(int high, int low, int index) {
    auto* self = reinterpret_cast<Fibers*>(static_cast<uintptr_t>(static_cast<uint32_t>(high)) << 32 |
                                           static_cast<uint32_t>(low));
    __sanitizer_finish_switch_fiber(nullptr, &self->main_stack_, &self->main_size_);
    (*self->body_)(index);
    self->done_[index] = self->moved_ = true;
    __sanitizer_start_switch_fiber(nullptr, self->main_stack_, self->main_size_);
    swapcontext(&self->contexts_[index], &self->main_);
  }

  void resume(int index) {
    current_ = index;
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stacks_[index].get(), kStack);
    swapcontext(&main_, &contexts_[index]);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
  }

  void yield() {
    const int index = current_;
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, main_stack_, main_size_);
    swapcontext(&contexts_[index], &main_);
    __sanitizer_finish_switch_fiber(fake, &main_stack_, &main_size_);
  }

  std::vector<ucontext_t> contexts_;
  std::vector<char> done_;
  std::vector<std::unique_ptr<char[]>> stacks_;
  ucontext_t main_ = {};
  const std::function<void(int)>* body_ = nullptr;
  const void* main_stack_ = nullptr;
  size_t main_size_ = 0;
  int current_ = 0;
  bool moved_ = false;
};

// What a cluster of blocks shares: barriers, one lane of exchange per thread, and each block's own memory, which
// holds NaN until somebody writes it.
struct HostCluster {
  HostCluster(int ranks_, int threads_, int64_t bytes)
      : ranks(ranks_),
        threads(threads_),
        fibers(ranks_ * threads_),
        blocks(ranks_),
        warps(ranks_ * threads_ / 32),
        exchanged(ranks_ * threads_),
        memory(ranks_) {
    whole.size = ranks * threads;
    for (auto& block : blocks) block.size = threads;
    for (auto& warp : warps) warp.size = 32;
    for (auto& shared : memory) shared = std::make_unique<float[]>(static_cast<size_t>(bytes + 3) / 4);
    floats = (bytes + 3) / 4;
  }

  int ranks, threads;
  int64_t floats;
  Fibers fibers;
  Fibers::Barrier whole;
  std::vector<Fibers::Barrier> blocks, warps;
  std::vector<float> exchanged;
  std::vector<std::unique_ptr<float[]>> memory;
};

struct HostBlock {
  HostCluster& cluster;
  int thread, threads, rank, ranks;

  HostBlock(HostCluster& c, int index)
      : cluster(c), thread(index % c.threads), threads(c.threads), rank(index / c.threads), ranks(c.ranks) {}

  float* shared() const { return cluster.memory[rank].get(); }
  void sync() const { cluster.fibers.wait(cluster.blocks[rank]); }
  void sync_cluster() const { cluster.fibers.wait(cluster.whole); }
  float shuffle_xor(float value, int mask) const {
    const int lane = rank * threads + thread;
    Fibers::Barrier& warp = cluster.warps[lane / 32];
    cluster.exchanged[lane] = value;
    cluster.fibers.wait(warp);
    const float other = cluster.exchanged[lane ^ mask];
    cluster.fibers.wait(warp);
    return other;
  }
  const float* of_rank(const float* mine, int other) const {
    return cluster.memory[other].get() + (mine - shared());
  }
};

// Clusters one after another; body(block, index of the cluster).
template <class Body>
void launch_clusters(int64_t clusters, int ranks, int threads, int64_t bytes, const Body& body) {
  HostCluster cluster(ranks, threads, bytes);
  for (int64_t index = 0; index < clusters; ++index) {
    for (auto& shared : cluster.memory) {
      for (int64_t i = 0; i < cluster.floats; ++i) shared[i] = __builtin_nanf("");
    }
    cluster.fibers.run([&](int i) { body(HostBlock(cluster, i), index); });
  }
}
