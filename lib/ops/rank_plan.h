// How many ranks each site keeps, from what each rank is worth and what it costs.
#pragma once

#include <cstdint>
#include <vector>

namespace lora {

/// Sites that have one rank. Ranks come in steps (of 1, or of the groups of a convolution).
struct RankGroup {
  std::vector<double> energies;  ///< of each step, descending
  std::uint64_t step_bytes = 0;  ///< of the factors, for each step
};

/// Of each group the fewest steps, at least one, that keep this share of its energy. What f32 does
/// not resolve counts as nothing: a share of 1 keeps the exact rank.
std::vector<std::int64_t> steps_for_energy(const std::vector<RankGroup>& groups, double share);

/// At least one step of each group, and then those that are worth most a byte while they fit into
/// `bytes`: the choice that keeps most energy of all groups together, but for what the last bytes
/// would have held. Steps without energy are left out. The one step of each group must fit.
std::vector<std::int64_t> steps_for_budget(const std::vector<RankGroup>& groups,
                                           std::uint64_t bytes);

/// Bytes of one step of each group.
std::uint64_t least_bytes(const std::vector<RankGroup>& groups);

}  // namespace lora
