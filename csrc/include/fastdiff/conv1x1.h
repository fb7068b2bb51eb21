// Arguments of conv1x1, and how its work is cut. All maps are channels last, all numbers float32.
#pragma once

#include <cstdint>

#include "fastdiff/conv3x3.h"

namespace fastdiff {

// What one row of statistics covers: neighbouring pixels of a sample. It depends on the size of one map
// alone, so that neither the batch nor the number of threads changes a bit of the result.
constexpr int64_t kConv1x1Stretch = 64;

static constexpr int64_t conv1x1_stretches(int64_t pixels) {
  return (pixels + kConv1x1Stretch - 1) / kConv1x1Stretch;
}

struct Conv1x1Args {
  // A map is one line of pixels: height is 1, and tile, upsample, plain and the plan are not used.
  Conv3x3Args map;
  int64_t block = 1;  // stretches that share a reading of the weights
  int64_t parts = 1;  // of the output channels; a unit of work is one part of one block
};

// Floats of scratch memory of one thread.
static constexpr int64_t conv1x1_scratch_floats(const Conv1x1Args& args) {
  return args.block * kConv1x1Stretch * (args.map.channels + args.map.channels2);
}

struct Conv1x1PackArgs {
  int64_t outs = 0, channels = 0;
  const float* weight = nullptr;
  int64_t strides[2] = {};  // of (Cout, Cin)
  float* out = nullptr;
};

}  // namespace fastdiff
