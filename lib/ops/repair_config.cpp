#include "ops/repair_config.h"

#include <algorithm>
#include <set>
#include <vector>

#include "adapter/parameter_sites.h"
#include "adapter/target_match.h"
#include "lora/adapter/config_check.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/repair_strength.h"
#include "ops/rules/rule.h"
#include "ops/save_config.h"

namespace lora {
namespace {

bool is_set(const AdapterConfig& config, std::string_view field) {
  const Json* value = config.other.find(field);
  return value != nullptr && !value->is_null();
}

std::string names_text(const std::vector<std::string>& names) {
  return names.empty() ? "none" : rules::join_some(names, 3);
}

std::string_view bias_text(BiasMode mode) {
  if (mode == BiasMode::all) return "all";
  return mode == BiasMode::lora_only ? "lora_only" : "none";
}

class Configuration {
 public:
  Configuration(const RepairConfig& read, const RepairedNames& names,
                const std::optional<Manifest>& manifest, const RepairOptions& options,
                RepairReport& report)
      : read_(read),
        names_(names),
        manifest_(manifest),
        options_(options),
        report_(report),
        survey_(survey_keys(names.tensors)) {}

  AdapterConfig run() {
    if (read_.config) {
      config_ = *read_.config;
      settle_targets();
      settle_ranks();
      settle_switches();
      settle_saved();
    } else {
      make();
    }
    if (!survey_.ranks.empty() && !has_experts())
      repair_strength(config_, read_, names_, survey_.ranks, manifest_, options_, report_);
    return std::move(config_);
  }

 private:
  void change(const std::string& from, const std::string& to, const std::string& why) {
    report_.changes.push_back({"configuration", from, to, why});
  }

  bool has_experts() const { return is_set(config_, "target_parameters"); }

  // Modules that target_modules must name: not those whose bare parameters target_parameters does.
  std::set<std::string> adapted() const {
    std::vector<std::string> sites;
    for (const auto& [path, rank] : survey_.ranks) sites.push_back(path);
    const auto parameters = name_parameter_sites(config_, sites);
    std::set<std::string> paths;
    for (std::string& site : sites)
      if (!parameters.contains(site)) paths.insert(without_base_layers(site));
    return paths;
  }

  std::vector<std::string> known_modules() const {
    std::vector<std::string> paths;
    if (options_.base)
      for (const ModuleInfo& info : list_modules(*options_.base)) paths.push_back(info.module_path);
    return paths;
  }

  void make() {
    if (!survey_.unknowable.empty()) {
      const std::string source = options_.adapter.string();
      throw Error(ErrorKind::usage, "cannot repair " + source + ": " + kAdapterConfigName + " " +
                                        read_.lost_because +
                                        ", and the tensors need fields that only it holds: " +
                                        rules::join_some(survey_.unknowable))
          .in_file(source)
          .with_hint("give the configuration with --adapter-config FILE");
    }
    config_.peft_version = "0.21.2";
    config_.use_dora = survey_.has_magnitude;
    config_.lora_bias = survey_.has_lora_bias;
    config_.bias = survey_.bias;
    config_.modules_to_save = survey_.saved_modules;
    if (options_.task && *options_.task != "none") config_.task_type = *options_.task;
    set_ranks(config_, survey_.ranks);
    const std::vector<std::string> targets = target_names(adapted(), known_modules());
    config_.target_modules = targets;
    std::string made =
        "r " + std::to_string(config_.rank) + ", target_modules " + rules::join_some(targets, 3);
    if (!config_.rank_pattern.empty())
      made += ", rank_pattern " + pattern_text(config_.rank_pattern);
    if (!config_.modules_to_save.empty())
      made += ", modules_to_save " + names_text(config_.modules_to_save);
    if (config_.use_dora) made += ", use_dora";
    if (config_.lora_bias) made += ", lora_bias";
    if (config_.bias != BiasMode::none) made += ", bias " + std::string(bias_text(config_.bias));
    change(std::string(kAdapterConfigName) + " " + read_.lost_because, made,
           "names and shapes of the tensors say so");
    if (!config_.task_type)
      report_.notes.push_back("the task type is not known and stays null; --task gives it");
    if (!config_.base_model_name_or_path)
      report_.notes.push_back("the name of the base is not known and stays null");
  }

  void settle_targets() {
    if (survey_.ranks.empty() || (has_experts() && is_monostate())) return;
    const auto* expression = std::get_if<std::string>(&config_.target_modules);
    // "all-linear" means what the base has; with one, verify holds it against the tensors.
    if (expression != nullptr && *expression == "all-linear") return;
    std::vector<std::string> left_out;
    if (is_monostate()) {
      for (const std::string& path : adapted()) left_out.push_back(path);
    } else {
      const TargetMatcher matcher(config_);
      for (const std::string& path : adapted())
        if (matcher.check(path) != TargetMatcher::Verdict::targeted && !is_tied_head(path))
          left_out.push_back(path);
    }
    if (left_out.empty()) return;
    std::set<std::string> targets = adapted();
    std::erase_if(targets, [&](const std::string& path) { return is_tied_head(path); });
    const std::vector<std::string> names = target_names(targets, known_modules());
    change("target_modules without " + rules::join_some(left_out, 3),
           "target_modules " + rules::join_some(names, 3),
           "the file has factors for exactly these modules");
    config_.target_modules = names;
    drop_filter("exclude_modules",
                !std::holds_alternative<std::monostate>(config_.exclude_modules));
    config_.exclude_modules = {};
    drop_filter("layers_to_transform", !config_.layers_to_transform.empty());
    config_.layers_to_transform.clear();
    config_.layers_pattern.clear();
  }

  void drop_filter(const std::string& field, bool is_given) {
    if (is_given)
      change(field, "left out", "target_modules now names exactly the modules that have factors");
  }

  bool is_monostate() const {
    return std::holds_alternative<std::monostate>(config_.target_modules);
  }

  // With ensure_weight_tying PEFT writes factors for a head it does not list.
  bool is_tied_head(const std::string& path) const {
    const Json* tying = config_.other.find("ensure_weight_tying");
    return tying != nullptr && tying->as_bool() == true && path.ends_with("lm_head");
  }

  bool ranks_fit(const AdapterConfig& config) const {
    const PatternTable table(config);
    return std::all_of(survey_.ranks.begin(), survey_.ranks.end(), [&](const auto& entry) {
      return table.rank_of(entry.first) == entry.second;
    });
  }

  // Only where the accounting of keys, which knows every kind of layer, finds a contradiction.
  bool ranks_disagree() const {
    const Adapter adapter = make_adapter(config_, names_.tensors, options_.adapter);
    return std::any_of(
        adapter.problems.begin(), adapter.problems.end(),
        [](const KeyProblem& problem) { return problem.kind == KeyProblem::Kind::rank_mismatch; });
  }

  void settle_ranks() {
    if (config_.rank == kNoRank) return make_rank();
    if (has_experts()) return;
    const bool overlaps = has_overlap(config_.rank_pattern, survey_.ranks);
    if (!overlaps && !ranks_disagree()) return;
    const AdapterConfig before = config_;
    if (overlaps || !change_default_rank()) {
      if (!ranks_fit(config_))
        set_ranks(config_, survey_.ranks);
      else
        qualify_ranks();
    }
    const std::string why = "the rows of each lora_A are its rank";
    if (before.rank != config_.rank)
      change("r " + std::to_string(before.rank), "r " + std::to_string(config_.rank), why);
    if (before.rank_pattern != config_.rank_pattern)
      change("rank_pattern " + pattern_text(before.rank_pattern),
             "rank_pattern " + pattern_text(config_.rank_pattern),
             overlaps ? why + "; keys that overlap mean something else in another order" : why);
    if (!manifest_ && before.rank != config_.rank)
      report_.notes.push_back(
          "lora_alpha stays as it is, so the scaling is alpha over the true "
          "rank; nothing in the files proves it");
  }

  // There is an r, and it says nothing.
  void make_rank() {
    const std::string found = "r " + read_.unusable_rank;
    if (has_experts()) {
      const std::string source = options_.adapter.string();
      throw Error(ErrorKind::usage,
                  "cannot repair " + source + ": its " + found +
                      " is no rank, and the tensors of target_parameters hold the rank times the "
                      "number of experts")
          .in_file(source)
          .with_hint("correct r, or give a whole configuration with --adapter-config FILE");
    }
    if (survey_.ranks.empty()) {
      config_.rank = AdapterConfig().rank;
      return change(found, "r " + std::to_string(config_.rank),
                    "no tensor depends on it; PEFT's default");
    }
    const NumberPattern before = config_.rank_pattern;
    if (!change_default_rank()) set_ranks(config_, survey_.ranks);
    const std::string why = "the rows of each lora_A are its rank";
    change(found, "r " + std::to_string(config_.rank), why);
    if (before != config_.rank_pattern)
      change("rank_pattern " + pattern_text(before),
             "rank_pattern " + pattern_text(config_.rank_pattern), why);
  }

  // A wrong r alone: every module that no pattern selects has one rank, all others fit.
  bool change_default_rank() {
    AdapterConfig probe = config_;
    probe.rank = -1;
    probe.spelling.erase("r");
    const PatternTable table(probe);
    std::set<std::int64_t> unselected;
    for (const auto& [path, rank] : survey_.ranks)
      if (table.rank_of(path) == -1) unselected.insert(rank);
    if (unselected.size() != 1) return false;
    probe.rank = *unselected.begin();
    if (!ranks_fit(probe)) return false;
    config_.rank = probe.rank;
    return true;
  }

  void qualify_ranks() {
    config_.rank_pattern.clear();
    for (const auto& [path, rank] : survey_.ranks)
      if (rank != config_.rank)
        config_.rank_pattern.emplace_back(whole_path_pattern(path), static_cast<double>(rank));
  }

  void settle_switches() {
    if (survey_.has_magnitude && !config_.use_dora) {
      change("use_dora false", "use_dora true", "the file has DoRA magnitudes");
      config_.use_dora = true;
    }
    if (survey_.has_lora_bias && !config_.lora_bias) {
      change("lora_bias false", "lora_bias true", "the file has biases of lora_B");
      config_.lora_bias = true;
    } else if (!survey_.has_lora_bias && config_.lora_bias && !survey_.ranks.empty()) {
      change("lora_bias true", "lora_bias false",
             "the file has no bias of lora_B; PEFT would add zeros");
      report_.notes.push_back("if biases of lora_B were trained, they are lost");
      config_.lora_bias = false;
    }
    if (survey_.bias == BiasMode::lora_only && config_.bias == BiasMode::none) {
      change("bias none", "bias lora_only", "the file has biases of the adapted layers");
      config_.bias = BiasMode::lora_only;
    } else if (config_.bias != BiasMode::none && !has_any_bias()) {
      change("bias " + std::string(bias_text(config_.bias)), "bias none",
             "the file has no bias; PEFT would use those of the base");
      report_.notes.push_back(
          "if biases were trained, they are lost: PEFT up to 0.20 did not save those of lora_only");
      config_.bias = BiasMode::none;
    }
  }

  bool has_any_bias() const {
    return std::any_of(names_.tensors.begin(), names_.tensors.end(), [](const auto& entry) {
      const ParsedKey key = parse_key(entry.first);
      return !key.is_lora() && key.parameter == "bias";
    });
  }

  // Entries that name a module by a path it no longer has.
  void settle_saved() {
    for (std::string& entry : config_.modules_to_save)
      for (const auto& [path, earlier] : names_.earlier_paths) {
        if (entry != earlier) continue;
        change("modules_to_save " + entry, "modules_to_save " + path, "its module was renamed");
        entry = path;
        break;
      }
  }

  const RepairConfig& read_;
  const RepairedNames& names_;
  const std::optional<Manifest>& manifest_;
  const RepairOptions& options_;
  RepairReport& report_;
  KeySurvey survey_;
  AdapterConfig config_;
};

}  // namespace

AdapterConfig repair_config(const RepairConfig& read, const RepairedNames& names,
                            const std::optional<Manifest>& manifest, const RepairOptions& options,
                            RepairReport& report) {
  return Configuration(read, names, manifest, options, report).run();
}

}  // namespace lora
