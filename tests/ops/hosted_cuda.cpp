// The bodies of the CUDA kernels as a library for the host; hosted_cuda.py loads it.
#include "block_shim.h"
#include "fastdiff/add_noise.cuh"
#include "fastdiff/group_norm_plan.h"
#include "fastdiff/normal.cuh"
#include "fastdiff/solver_step.cuh"
#include "fastdiff/vq_nearest.cuh"
#include "fibers.h"

using namespace fastdiff;
using namespace fastdiff::device;

static int64_t blocks_of(const Samples& samples) {
  return samples.batch * ((samples.count + kTile - 1) / kTile);
}

extern "C" void normal(const NormalLaunch* args) {
  launch(blocks_of(args->samples), kThreads,
         [&](int64_t block, int thread) { normal_thread(*args, block, thread); });
}

extern "C" void add_noise(const AddNoiseLaunch* args) {
  launch(blocks_of(args->samples), kThreads,
         [&](int64_t block, int thread) { add_noise_thread(*args, block, thread); });
}

extern "C" void solver_step(const SolverStepLaunch* args) {
  launch_shared<StepRow>(
      blocks_of(args->samples), kThreads,
      [&](StepRow& row, int64_t, int thread) { load_row(*args, thread, row); },
      [&](StepRow& row, int64_t block, int thread) { solver_step_thread(*args, row, block, thread); });
}

// What `kernel` picks of a plan: every path must come to the same numbers.
template <class T, int kCount, bool kLast>
static void group_norm_on_host(GroupNormLaunch args, const GroupNormPlan& plan, int threads) {
  const int64_t slabs = args.map.batch * plan.slabs;
  if (plan.slab) {
    launch_clusters(slabs, args.ranks, threads, plan.shared, [&](const HostBlock& block, int64_t index) {
      group_norm_slab<T, kCount, kLast>(args, block, index, block.shared());
    });
    return;
  }
  std::vector<float> partials(args.map.batch * args.groups * args.parts * 3, __builtin_nanf(""));
  args.partials = partials.data();
  launch_clusters(slabs * args.parts, 1, threads, plan.shared, [&](const HostBlock& block, int64_t index) {
    group_norm_part<T, kCount, kLast>(args, block, index, block.shared());
  });
  launch_clusters(slabs * args.parts, 1, threads, plan.shared, [&](const HostBlock& block, int64_t index) {
    group_norm_apply<T, kCount, kLast>(args, block, index, block.shared());
  });
}

template <class T, int kWide>
static void group_norm_on_host(const GroupNormLaunch& args, const GroupNormPlan& plan, int threads) {
  const bool last = args.map.channels_last;
  if (plan.count == 1) {
    return last ? group_norm_on_host<T, 1, true>(args, plan, threads)
                : group_norm_on_host<T, 1, false>(args, plan, threads);
  }
  return last ? group_norm_on_host<T, kWide, true>(args, plan, threads)
              : group_norm_on_host<T, kWide, false>(args, plan, threads);
}

// Returns 1 x blocks of the cluster for a slab, -parts for a split.
extern "C" int64_t group_norm_silu(GroupNormLaunch* args, int threads, int64_t limit, int most_ranks,
                                   int64_t least_parts) {
  const GroupNormPlan plan = plan_group_norm(*args, threads, limit, most_ranks);
  if (!plan.slab && args->parts < least_parts) args->parts = least_parts;
  if (args->map.element == Element::f32) {
    group_norm_on_host<float, 4>(*args, plan, threads);
  } else {
    group_norm_on_host<uint16_t, 8>(*args, plan, threads);
  }
  return plan.slab ? args->ranks : -args->parts;
}

template <class TZ, class TE>
static void vq_nearest_on_host(const VqNearestLaunch& args) {
  launch_clusters(
      (args.z.count + kSearchRows - 1) / kSearchRows, 1, kSearchThreads, search_shared(args.slots),
      [&](const HostBlock& block, int64_t index) { vq_nearest<TZ, TE>(args, block, index, block.shared()); });
}

template <class TZ>
static void vq_nearest_on_host(const VqNearestLaunch& args) {
  args.codes.element == Element::f32 ? vq_nearest_on_host<TZ, float>(args)
                                     : vq_nearest_on_host<TZ, uint16_t>(args);
}

// Returns the panels of rows in shared memory: two where `limit` bytes do not hold whole rows.
extern "C" int vq_nearest(VqNearestLaunch* args, int64_t limit) {
  args->slots = search_slots(args->z.width, limit);
  args->z.element == Element::f32 ? vq_nearest_on_host<float>(*args) : vq_nearest_on_host<uint16_t>(*args);
  return args->slots;
}

// All halves to float32 and back.
extern "C" void narrowed(const float* from, uint16_t* to, int64_t count, int element) {
  for (int64_t i = 0; i < count; ++i) from_float(from[i], static_cast<Element>(element), to[i]);
}
