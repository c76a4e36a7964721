// The frame of verify's rules: what a rule sees, and how it reports.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lora/adapter/manifest.h"
#include "lora/adapter/targets.h"
#include "lora/base/sha256.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/adapter_set.h"
#include "lora/ops/verify.h"
#include "ops/accounting.h"
#include "ops/base_evidence.h"
#include "ops/base_identity.h"

namespace lora::rules {

/// Everything known about one adapter when the rules run.
struct Subject {
  const Adapter& adapter;
  const std::optional<Manifest>& manifest;
  const std::map<std::string, TensorStatistics>& tensors;  ///< float tensors, by peft_key
  const std::vector<ModuleFigures>& modules;
  const Checkpoint* base = nullptr;
  const ModuleList& base_modules;                    ///< empty without a base
  const std::optional<ResolvedTargets>& targets;     ///< with a base whose modules are known
  const std::optional<Accounting>& accounting;       ///< with `targets`
  const std::optional<BaseIdentity>& base_identity;  ///< with a base
  const BaseEvidence& evidence;                      ///< empty without a base
  bool require_proof = false;
  int threads = 0;
  const std::optional<MergedReport>& merged;  ///< where a merged checkpoint was given
  const AdapterIndex* companions = nullptr;   ///< the adapters of the same run
};

struct Rule;

/// Collects the findings of one run, of one rule and severity at most kMostFindings and one entry
/// that counts the others.
class Report {
 public:
  explicit Report(std::string file) : file_(std::move(file)) {}
  void begin(const Rule& rule);

  struct About {
    std::string tensor;
    std::string module;
    std::string hint;                  ///< empty: the rule's own fix
    std::optional<Severity> severity;  ///< empty: the rule's own severity
    std::string file = {};             ///< empty: the adapter itself
  };
  void add(std::string message, About about);
  void add(std::string message) { add(std::move(message), About{}); }

  /// join_some for the message of the next finding: the names it leaves out still belong to what
  /// the finding is about.
  std::string list(const std::vector<std::string>& items, std::size_t limit = 5);

  Findings take();

 private:
  /// Of one rule: findings kept, and those only counted.
  struct Tally {
    std::uint64_t kept = 0, more = 0;
    std::optional<Sha256> digest;  ///< of what is only counted
  };

  void count_others();

  std::string file_;
  const Rule* rule_ = nullptr;
  std::array<Tally, 3> tallies_;  ///< of the rule that runs, by severity
  Findings findings_;
  std::vector<std::string> unlisted_;
};

struct Rule {
  RuleInfo info;
  void (*check)(const Subject&, Report&);  ///< null: raised by verify itself, not by the frame
};

/// The groups; those of one hundred that are split by subject follow each other.
const std::vector<Rule>& file_rules();        ///< LV1xx
const std::vector<Rule>& payload_rules();     ///< LV1xx: what the bytes are spent on
const std::vector<Rule>& config_rules();      ///< LV2xx
const std::vector<Rule>& target_rules();      ///< LV2xx: what the configuration selects
const std::vector<Rule>& pattern_rules();     ///< LV2xx: rank_pattern and alpha_pattern
const std::vector<Rule>& layer_rules();       ///< LV2xx: what the base's layers ask for
const std::vector<Rule>& key_rules();         ///< LV3xx
const std::vector<Rule>& name_rules();        ///< LV3xx: how keys are spelled
const std::vector<Rule>& rename_rules();      ///< LV3xx: names that moved or collide
const std::vector<Rule>& kind_rules();        ///< LV3xx: tensors of single layer types
const std::vector<Rule>& expert_rules();      ///< LV3xx: stacks of experts
const std::vector<Rule>& vocabulary_rules();  ///< LV3xx: embeddings, heads, token rows
const std::vector<Rule>& set_rules();         ///< LV3xx: adapters that lie together
const std::vector<Rule>& number_rules();      ///< LV4xx
const std::vector<Rule>& shard_rules();       ///< LV4xx: shards saved as whole tensors
const std::vector<Rule>& update_rules();      ///< LV4xx: figures of the updates
const std::vector<Rule>& identity_rules();    ///< LV5xx
const std::vector<Rule>& output_rules();      ///< LV6xx
const std::vector<Rule>& merged_rules();      ///< LV7xx
const std::vector<Rule>& security_rules();    ///< LV8xx
std::vector<const Rule*> all_rules();         ///< by id
const Rule& rule_by_id(std::string_view id);

/// "a, b, c and 12 more".
std::string join_some(const std::vector<std::string>& items, std::size_t limit = 5);
/// Text of a figure in messages: up to 6 significant digits.
std::string figure(double value);

}  // namespace lora::rules
