#include "ops/rules/rule.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "lora/base/error.h"

namespace lora::rules {

void Report::begin(const Rule& rule) {
  count_others();
  rule_ = &rule;
  unlisted_.clear();
}

Findings Report::take() {
  count_others();
  return std::move(findings_);
}

void Report::count_others() {
  for (std::size_t i = 0; i < tallies_.size(); ++i) {
    if (tallies_[i].more == 0) continue;
    Finding finding;
    finding.rule = rule_->info.id;
    finding.severity = static_cast<Severity>(i);
    finding.message = "and " + std::to_string(tallies_[i].more) + " more";
    finding.file = file_;
    finding.hint = rule_->info.fix;
    finding.more = tallies_[i].more;
    finding.unlisted = {tallies_[i].digest->finish().hex()};
    findings_.push_back(std::move(finding));
  }
  tallies_ = {};
}

void Report::add(std::string message, About about) {
  Finding finding;
  finding.rule = rule_->info.id;
  finding.severity = about.severity.value_or(rule_->info.severity);
  Tally& tally = tallies_[static_cast<std::size_t>(finding.severity)];
  if (tally.kept == kMostFindings) {
    ++tally.more;
    unlisted_.insert(unlisted_.end(), {message, about.tensor, about.module});
    if (!tally.digest) tally.digest.emplace();
    for (const std::string& text : std::exchange(unlisted_, {})) {
      tally.digest->update_u64(text.size());
      tally.digest->update(std::string_view(text));
    }
    return;
  }
  ++tally.kept;
  finding.message = std::move(message);
  finding.file = about.file.empty() ? file_ : std::move(about.file);
  finding.tensor = std::move(about.tensor);
  finding.module = std::move(about.module);
  finding.hint = about.hint.empty() ? std::string(rule_->info.fix) : std::move(about.hint);
  finding.unlisted = std::exchange(unlisted_, {});
  findings_.push_back(std::move(finding));
}

std::string Report::list(const std::vector<std::string>& items, std::size_t limit) {
  for (std::size_t i = limit; i < items.size(); ++i) unlisted_.push_back(items[i]);
  return join_some(items, limit);
}

std::vector<const Rule*> all_rules() {
  std::vector<const Rule*> rules;
  for (const auto* group :
       {&file_rules(),   &payload_rules(),    &config_rules(), &target_rules(), &pattern_rules(),
        &layer_rules(),  &key_rules(),        &name_rules(),   &rename_rules(), &kind_rules(),
        &expert_rules(), &vocabulary_rules(), &set_rules(),    &number_rules(), &shard_rules(),
        &update_rules(), &identity_rules(),   &output_rules(), &merged_rules(), &security_rules()})
    for (const Rule& rule : *group) rules.push_back(&rule);
  std::sort(rules.begin(), rules.end(),
            [](const Rule* a, const Rule* b) { return a->info.id < b->info.id; });
  return rules;
}

const Rule& rule_by_id(std::string_view id) {
  for (const Rule* rule : all_rules())
    if (rule->info.id == id) return *rule;
  throw Error(ErrorKind::internal, "no rule has the id " + std::string(id));
}

std::string join_some(const std::vector<std::string>& items, std::size_t limit) {
  std::string text;
  for (std::size_t i = 0; i < items.size() && i < limit; ++i)
    text += (i == 0 ? "" : ", ") + items[i];
  if (items.size() > limit) text += " and " + std::to_string(items.size() - limit) + " more";
  return text;
}

std::string figure(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.6g", value);
  return buffer.data();
}

}  // namespace lora::rules
