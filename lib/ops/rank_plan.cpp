#include "ops/rank_plan.h"

#include <numeric>
#include <queue>
#include <utility>

namespace lora {
namespace {

// Squares of singular values that f32 factors resolve, as a share of their sum.
constexpr double kResolved = 1e-14;

double total(const RankGroup& group) {
  return std::accumulate(group.energies.begin(), group.energies.end(), 0.0);
}

}  // namespace

std::vector<std::int64_t> steps_for_energy(const std::vector<RankGroup>& groups, double share) {
  std::vector<std::int64_t> steps;
  for (const RankGroup& group : groups) {
    const double wanted = (share - kResolved) * total(group);
    double kept = group.energies.empty() ? 0 : group.energies.front();
    std::size_t count = 1;
    while (count < group.energies.size() && kept < wanted) kept += group.energies[count++];
    steps.push_back(static_cast<std::int64_t>(count));
  }
  return steps;
}

std::uint64_t least_bytes(const std::vector<RankGroup>& groups) {
  std::uint64_t bytes = 0;
  for (const RankGroup& group : groups) bytes += group.step_bytes;
  return bytes;
}

std::vector<std::int64_t> steps_for_budget(const std::vector<RankGroup>& groups,
                                           std::uint64_t bytes) {
  std::vector<std::int64_t> steps(groups.size(), 1);
  std::uint64_t left = bytes - least_bytes(groups);
  double all = 0;
  for (const RankGroup& group : groups) all += total(group);
  // Worth a byte and group; of equals the first group.
  using Offer = std::pair<double, std::size_t>;
  const auto is_worse = [](const Offer& x, const Offer& y) {
    return x.first != y.first ? x.first < y.first : x.second > y.second;
  };
  std::priority_queue<Offer, std::vector<Offer>, decltype(is_worse)> offers(is_worse);
  const auto offer = [&](std::size_t i) {
    const auto next = static_cast<std::size_t>(steps[i]);
    if (next >= groups[i].energies.size()) return;
    const double energy = groups[i].energies[next];
    if (energy <= kResolved * all * kResolved) return;
    offers.emplace(energy / static_cast<double>(groups[i].step_bytes), i);
  };
  for (std::size_t i = 0; i < groups.size(); ++i) offer(i);
  while (!offers.empty()) {
    const std::size_t i = offers.top().second;
    offers.pop();
    // A group whose next step does not fit is done: its later ones are worth less and cost as much.
    if (groups[i].step_bytes > left) continue;
    left -= groups[i].step_bytes;
    ++steps[i];
    offer(i);
  }
  return steps;
}

}  // namespace lora
