// From the combined updates of the sites to the tensors and the configuration of an adapter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/dtype.h"
#include "ops/combine/carried.h"
#include "ops/combine/recipe.h"
#include "ops/combine/sites.h"

namespace lora::combining {

/// The combination of a site in the shapes of LoraModule::a and b, scaling 1.
struct SiteResult {
  Tensor a, b;
  std::optional<Tensor> bias;
  std::int64_t rank = 0;
  Matrix inner;  ///< inner products of the updates that meet here, in the order of Site::parts
  double squares = 0;                   ///< as in Combination
  std::optional<double> squared_error;  ///< before rounding into the dtype
};

/// Throws Error(incompatible) for values beyond the range of `dtype`.
SiteResult combine_site(const Site& site, const Recipe& recipe, DType dtype);

/// The rank that PEFT takes an adapter to have: the largest of r and rank_pattern.
std::int64_t peft_rank(const AdapterConfig& config);

struct Assembled {
  AdapterConfig config;
  TensorMap tensors;
};

/// Joins the results with what is carried over. Sites that share a key of rank_pattern get one
/// rank, the rest of it zero. With `common_rank`, every site gets that rank, lora_alpha is the same
/// number and use_rslora stays, as PEFT leaves them.
Assembled assemble(const std::vector<Site>& sites, std::vector<SiteResult> results, Carried carried,
                   std::optional<std::int64_t> common_rank);

}  // namespace lora::combining
