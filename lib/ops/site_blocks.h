// A site as independent products, and its factors made again from new ones.
//
// A linear layer, convolution or embedding is one block; a stack of experts one an expert, a
// grouped convolution one a group. The rank of a site is that of one expert, or of all groups.
#pragma once

#include <span>
#include <vector>

#include "lora/adapter/update.h"
#include "ops/derived_adapter.h"
#include "ops/numbers/update_svd.h"

namespace lora {

/// The products that together are the site's update without `times`; pooled inputs stay pooled,
/// which changes every singular value by one factor. A scaling of zero counts as one: the factors
/// are still there.
std::vector<UpdateFactor> blocks_of(const LoraModule& module);

/// The factor between the energy of blocks_of and that of what the site adds to its weight.
double energy_factor(const LoraModule& module);

/// Ranks of the site for each rank of one block: the number of groups, 1 everywhere else.
std::int64_t rank_step(const LoraModule& module);

/// Empty, or why the rank of the site cannot be changed: "KaSA (lora_diag) ...".
std::string why_fixed(const LoraModule& module);

/// F32 factors from those of every block, each [rows, k] and [k, columns], for the site's scaling.
SiteFactors joined(const LoraModule& module, std::span<const numbers::SplitFactors> blocks);

/// The site's own factors with zeros up to `rank`, every other bit as it was.
SiteFactors padded(const LoraModule& module, std::int64_t rank);

}  // namespace lora
