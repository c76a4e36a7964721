// The float64 comparison, for targets whose bits no known order of summation gives.
#pragma once

#include "ops/replay/target.h"

namespace lora::replay {

/// Compares every element with E = W + s * B . A in float64. It fits when it is within one ulp of
/// the merged dtype at max(|M|, |E|) plus the error bound of the f32 product,
/// (r + 2) 2^-24 |s| |B| . |A|. In 16 bits half an ulp of the update is added, which safe_merge
/// rounds first. DoRA adds the error of a f32 norm of n terms, |E| (n / 2 + 4)
/// 2^-24. Sets proof (one_ulp or differs), outside, first_outside, found, expected and worst_ulps.
void bound(const Target& target, int threads, const Sinks& sinks, Outcome& outcome);

}  // namespace lora::replay
