#include "ops/extract/budget.h"

#include <algorithm>
#include <numeric>
#include <queue>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/extract/factors.h"

namespace lora::extraction {
namespace {

std::uint64_t bytes_of_component(const Site& site, DType dtype) {
  return static_cast<std::uint64_t>(site.base->shape[0] + site.base->shape[1]) * bits_of(dtype) / 8;
}

std::int64_t full_rank(const Site& site) {
  return std::min(site.base->shape[0], site.base->shape[1]);
}

// Ranks for what is known of the spectra; `wanting` gets the sites that took all that is known and
// might take more.
std::vector<std::int64_t> fill(const std::vector<Site>& sites,
                               const std::vector<std::vector<double>>& spectra, std::uint64_t left,
                               DType dtype, std::vector<std::size_t>& wanting) {
  std::vector<std::int64_t> ranks(sites.size());
  const auto gain = [&](std::size_t i) {
    return spectra[i][static_cast<std::size_t>(ranks[i])] /
           static_cast<double>(bytes_of_component(sites[i], dtype));
  };
  using Entry = std::pair<double, std::size_t>;
  std::priority_queue<Entry> queue;
  for (std::size_t i = 0; i < sites.size(); ++i)
    if (!spectra[i].empty()) queue.emplace(gain(i), i);
  while (!queue.empty()) {
    const auto [value, i] = queue.top();
    queue.pop();
    const std::uint64_t cost = bytes_of_component(sites[i], dtype);
    // Smaller modules may still fit.
    if (value <= 0 || cost > left) continue;
    left -= cost;
    ++ranks[i];
    if (ranks[i] < static_cast<std::int64_t>(spectra[i].size()))
      queue.emplace(gain(i), i);
    else if (ranks[i] < full_rank(sites[i]))
      wanting.push_back(i);
  }
  return ranks;
}

}  // namespace

void for_sites(const std::vector<Site>& sites, const ExtractOptions& options,
               const std::function<void(std::size_t, WorkSpace&)>& body, std::size_t others,
               const std::function<void(std::size_t)>& other) {
  std::vector<std::size_t> order(sites.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return sites[a].base->numel() > sites[b].base->numel();
  });
  // Freed memory stays with its thread: no more threads than begin with room.
  std::uint64_t largest = 1;
  for (const Site& site : sites)
    largest = std::max(largest, first_work_space(*site.base, options.rank));
  const int threads = options.threads > 0 ? options.threads : available_threads();
  const auto fitting = static_cast<int>(
      std::clamp<std::uint64_t>(options.max_memory / largest, 1, static_cast<unsigned>(threads)));
  WorkSpace space(options.max_memory);
  parallel_for(others + sites.size(), fitting, [&](std::size_t i) {
    if (i < others)
      other(i);
    else
      body(order[i - others], space);
  });
}

std::vector<std::int64_t> spend(const std::vector<Site>& sites, std::uint64_t budget,
                                std::uint64_t fixed, const ExtractOptions& options,
                                const Sinks& sinks) {
  std::uint64_t one_each = 0, least = 0;
  for (const Site& site : sites) {
    const std::uint64_t cost = bytes_of_component(site, options.dtype);
    one_each += cost;
    least = least == 0 ? cost : std::min(least, cost);
  }
  if (budget < fixed + least || budget == 0)
    throw Error(ErrorKind::usage, "--budget allows " + std::to_string(budget) +
                                      " bytes, expected at least " + std::to_string(fixed + least) +
                                      ": " + std::to_string(fixed) +
                                      " for what is carried whole and " + std::to_string(least) +
                                      " for one component");
  const std::uint64_t left = budget - fixed;
  // Few modules take more than a few times the rank that all could have.
  const auto even = static_cast<std::int64_t>(left / std::max<std::uint64_t>(1, one_each));
  std::vector<std::int64_t> counts(sites.size(), 4 * even + 16);
  std::vector<std::vector<double>> spectra(sites.size());
  std::vector<std::size_t> wanting(sites.size());
  std::iota(wanting.begin(), wanting.end(), std::size_t{0});
  std::vector<std::int64_t> ranks;
  while (!wanting.empty()) {
    std::vector<Site> asked;
    for (const std::size_t i : wanting) asked.push_back(sites[i]);
    for_sites(asked, options, [&](std::size_t k, WorkSpace& space) {
      sinks.throw_if_cancelled();
      const std::size_t i = wanting[k];
      spectra[i] = spectrum(sites[i].base_name, *sites[i].base, *sites[i].tuned, counts[i], space);
      counts[i] *= 2;
    });
    wanting.clear();
    ranks = fill(sites, spectra, left, options.dtype, wanting);
  }
  return ranks;
}

}  // namespace lora::extraction
