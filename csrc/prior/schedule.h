// The order in which the stages of a pass run.
#pragma once

namespace vqcodec {

enum class Schedule {
  stepwise,   // all stages at step t, then at t + 1: how maps are decoded and sampled
  whole_map,  // each stage at all steps, in any order: the codes are known
};

}  // namespace vqcodec
