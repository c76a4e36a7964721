#include <algorithm>
#include <map>
#include <optional>

#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

// Rows of a factor that training leaves zero are rare but real (units of a ReLU that never fire),
// so a zero-initialised factor must be half empty and that many rows long before it is suspicious.
// The factor with random starting values has no zero rows at all.
constexpr std::int64_t kFewestTailRows = 16;
constexpr std::int64_t kMostShards = 1024;

struct Factor {
  const std::string* key;
  const TensorStatistics* statistics;
  bool is_random;  // starts from random values

  std::int64_t kept() const { return statistics->rows - statistics->zero_tail_rows; }
  bool is_half_empty() const {
    const std::int64_t tail = statistics->zero_tail_rows;
    return 2 * tail >= statistics->rows && (is_random || tail >= kFewestTailRows);
  }
};

// The factors that are not zero altogether: those say nothing about shards.
std::vector<Factor> factors_of(const Subject& subject) {
  std::map<const std::byte*, bool> is_random;
  for (const LoraModule& module : subject.adapter.modules) {
    const bool is_b_random = module.kind == LayerKind::embedding;
    is_random[module.a.bytes.data()] = !is_b_random;
    is_random[module.b.bytes.data()] = is_b_random;
  }
  std::vector<Factor> factors;
  for (const auto& [key, statistics] : subject.tensors) {
    const auto found = is_random.find(subject.adapter.tensors.at(key).bytes.data());
    if (found == is_random.end() || statistics.is_all_zero || statistics.rows < 2) continue;
    factors.push_back({&key, &statistics, found->second});
  }
  return factors;
}

// N for which every factor holds exactly the first of N equal shards of its rows; a shard is
// rows / N rounded up, as torch.chunk cuts.
std::optional<std::int64_t> common_shards(const std::vector<Factor>& factors) {
  for (std::int64_t shards = 2; shards <= kMostShards; ++shards)
    if (std::all_of(factors.begin(), factors.end(), [&](const Factor& factor) {
          return factor.statistics->zero_tail_rows > 0 &&
                 factor.kept() == (factor.statistics->rows + shards - 1) / shards;
        }))
      return shards;
  return std::nullopt;
}

void partial_shard(const Subject& subject, Report& report) {
  const std::vector<Factor> factors = factors_of(subject);
  if (factors.empty()) return;
  if (const auto shards = common_shards(factors)) {
    report.add("in every tensor only the first 1/" + std::to_string(*shards) +
                   " of the rows is not zero: this is one of " + std::to_string(*shards) +
                   " shards",
               {.tensor = *factors.front().key, .module = {}, .hint = {}, .severity = {}});
    return;
  }
  std::vector<std::string> partial;
  for (const Factor& factor : factors)
    if (factor.is_half_empty())
      partial.push_back(*factor.key + " (" + std::to_string(factor.kept()) + " of " +
                        std::to_string(factor.statistics->rows) + ")");
  if (partial.empty()) return;
  report.add("in " + std::to_string(partial.size()) + " of " + std::to_string(factors.size()) +
                 " tensors only the first rows are not zero: " + report.list(partial, 3),
             {.tensor = {}, .module = {}, .hint = {}, .severity = Severity::warning});
}

}  // namespace

const std::vector<Rule>& shard_rules() {
  static const std::vector<Rule> rules{
      {{"LV405", "tensor-partial-shard", Severity::error, "zero rows at the end of each factor",
        "Only one shard of sharded training (FSDP, ZeRO) was saved, the rest is zeros (a warning "
        "where not every tensor shows it).",
        "save a gathered state dict, or put the shards together"},
       partial_shard},
  };
  return rules;
}

}  // namespace lora::rules
