// Work over all sites: in bounded memory, and ranks that spend a budget best.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lora/base/sinks.h"
#include "ops/extract/survey.h"
#include "ops/extract/work_space.h"

namespace lora::extraction {

/// Runs body(i, space) for every site, the largest first, with a space of options.max_memory;
/// before them other(i) for each of `others` further jobs.
void for_sites(const std::vector<Site>& sites, const ExtractOptions& options,
               const std::function<void(std::size_t, WorkSpace&)>& body, std::size_t others = 0,
               const std::function<void(std::size_t)>& other = {});

/// The ranks whose factors take at most `budget` bytes less `fixed` and leave the least squared
/// error in all: component by component, whichever gains most a byte. A site may get none. Throws
/// Error(usage) when the budget holds no component.
std::vector<std::int64_t> spend(const std::vector<Site>& sites, std::uint64_t budget,
                                std::uint64_t fixed, const ExtractOptions& options,
                                const Sinks& sinks);

}  // namespace lora::extraction
