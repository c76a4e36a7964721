#include "ops/accounting.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "lora/adapter/name_mapping.h"
#include "lora/adapter/update.h"
#include "ops/selection.h"

namespace lora {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string shape_text(std::int64_t rows, std::int64_t columns) {
  return "[" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
}

// Parameters that LoRA layers on a target change.
std::vector<std::string> base_names_of(const ModuleInfo& target) {
  if (target.kind == LayerKind::attention)
    return {target.module_path + ".in_proj_weight", target.module_path + ".out_proj.weight"};
  return {target.module_path + std::string(kWeight)};
}

class Account {
 public:
  Account(const Adapter& adapter, const Checkpoint& base, const ModuleList& modules,
          const ResolvedTargets& targets)
      : adapter_(adapter),
        base_(base),
        modules_(modules),
        targets_(targets),
        selection_(adapter.config) {
    for (const ModuleInfo& module : modules) infos_.emplace(module.module_path, &module);
    for (const LoraModule& module : adapter.modules) sites_.emplace(module.base_name, &module);
    for (const KeyProblem& problem : adapter.problems)
      damaged_.insert(to_base_name(parse_key(problem.key)));
    for (const auto& [name, tensors] : adapter.others)
      for (const auto& [key, tensor] : tensors) damaged_.insert(to_base_name(parse_key(key)));
  }

  Accounting take() {
    compare_sites();
    compare_saved();
    compare_biases();
    compare_tokens();
    compare_replacements();
    return std::move(result_);
  }

 private:
  void compare_sites() {
    std::set<std::string> expected;
    for (const ModuleInfo& target : targets_.lora)
      for (std::string& name : base_names_of(target)) {
        ++result_.expected_sites;
        const auto site = sites_.find(name);
        if (site != sites_.end()) {
          compare_shape(*site->second, target);
        } else if (!damaged_.contains(name)) {
          result_.missing.push_back({target.kind == LayerKind::attention && name.ends_with(kWeight)
                                         ? target.module_path + ".out_proj"
                                         : target.module_path,
                                     MissingPart::Kind::factors});
        }
        expected.insert(std::move(name));
      }
    for (const ParameterTarget& target : targets_.parameters) {
      ++result_.expected_sites;
      expected.insert(target.base_name);
      const auto site = sites_.find(target.base_name);
      if (site != sites_.end()) {
        compare_parameter(*site->second, target.weight_shape);
      } else if (!damaged_.contains(target.base_name)) {
        result_.missing.push_back({target.base_name, MissingPart::Kind::factors});
      }
    }
    for (const LoraModule& module : adapter_.modules) {
      if (expected.contains(module.base_name) || is_tied_head(module)) continue;
      add_unexpected(module.module_path, has_in_base(module), selection_.refusal(module));
      if (const auto info = infos_.find(module.module_path); info != infos_.end())
        compare_shape(module, *info->second);
    }
  }

  bool has_in_base(const LoraModule& module) const {
    return infos_.contains(module.module_path) || base_.find(module.base_name) != nullptr;
  }

  // With ensure_weight_tying PEFT writes the factors of the head too and does not list it.
  bool is_tied_head(const LoraModule& module) const {
    const Json* tying = adapter_.config.other.find("ensure_weight_tying");
    if (tying == nullptr || tying->as_bool() != true) return false;
    const auto info = infos_.find(module.module_path);
    return info != infos_.end() &&
           (info->second->is_output_head || module.module_path.ends_with("lm_head"));
  }

  void add_unexpected(const std::string& name, bool exists, std::string cause = {}) {
    UnexpectedSite site{name, UnexpectedSite::Reason::not_targeted, {}, std::move(cause)};
    if (!exists) {
      if (paths_.empty())
        for (const ModuleInfo& module : modules_)
          if (!module.module_path.empty()) paths_.push_back(module.module_path);
      site.reason = UnexpectedSite::Reason::not_in_base;
      site.nearest = nearest_name(name, paths_);
    }
    result_.unexpected.push_back(std::move(site));
  }

  void add_misshaped(const std::string& name, std::string found, std::string expected,
                     std::string cause = {}, bool is_vocabulary = false) {
    result_.misshaped.push_back(
        {name, std::move(found), std::move(expected), std::move(cause), is_vocabulary});
  }

  void compare_shape(const LoraModule& module, const ModuleInfo& info) {
    if (module.kind == LayerKind::convolution || info.kind == LayerKind::convolution) {
      compare_convolution(module, info);
    } else if (const auto expected = matrix_of(module, info)) {
      const MatrixShape found = update_shape(module);
      if (is_stored_transposed(module, found, *expected)) return;
      if (found.rows != expected->rows || found.columns != expected->columns)
        add_misshaped(module.module_path, "update " + shape_text(found.rows, found.columns),
                      shape_text(expected->rows, expected->columns),
                      cause(module, found, *expected, info),
                      has_other_vocabulary(module, found, *expected, info));
    }
  }

  // Rows and columns that B . A must have, whatever way the base stores them.
  std::optional<MatrixShape> matrix_of(const LoraModule& module, const ModuleInfo& info) const {
    if (info.kind == LayerKind::attention) {
      const Tensor* weight = base_.find(module.base_name);
      if (weight == nullptr || weight->shape.size() != 2) return std::nullopt;
      return MatrixShape{weight->shape[0], weight->shape[1]};
    }
    if (info.kind == LayerKind::linear || info.kind == LayerKind::conv1d ||
        info.kind == LayerKind::embedding)
      return MatrixShape{info.out_features, info.in_features};
    return std::nullopt;
  }

  // Outside the families whose classes are known, what a matrix is can only be deduced: an
  // embedding by any other name, and GPT-2's Conv1D, look like a linear layer of the transposed
  // shape.
  bool is_stored_transposed(const LoraModule& module, const MatrixShape& found,
                            const MatrixShape& expected) const {
    const bool may_be = module.kind == LayerKind::embedding || adapter_.config.fan_in_fan_out;
    const bool is_known = base_.config && (base_.config->layout || base_.config->gpt2 ||
                                           base_.config->bert || base_.config->gpt_neox);
    return !is_known && may_be && found.rows == expected.columns && found.columns == expected.rows;
  }

  // Embeddings have a column of the update for every token, heads a row.
  static bool has_other_vocabulary(const LoraModule& module, const MatrixShape& found,
                                   const MatrixShape& expected, const ModuleInfo& info) {
    if (info.kind == LayerKind::embedding && module.kind == LayerKind::embedding)
      return found.rows == expected.rows;
    return info.is_output_head && found.columns == expected.columns;
  }

  static std::string cause(const LoraModule& module, const MatrixShape& found,
                           const MatrixShape& expected, const ModuleInfo& info) {
    if (found.rows == expected.columns && found.columns == expected.rows) return "transposed layer";
    return has_other_vocabulary(module, found, expected, info) ? "another vocabulary"
                                                               : "a base of another size";
  }

  void compare_convolution(const LoraModule& module, const ModuleInfo& info) {
    const std::vector<std::int64_t>& weight = info.weight_shape;
    if (weight.size() < 3) return;
    std::vector<std::int64_t> found{module.b.shape[0], module.a.shape[1]};
    found.insert(found.end(), module.a.shape.begin() + 2, module.a.shape.end());
    std::vector<std::int64_t> expected = weight;
    expected[1] *= module.groups;
    if (found != expected)
      add_misshaped(module.module_path, "update " + shape_to_string(found),
                    shape_to_string(expected), "another kernel or number of channels");
  }

  void compare_parameter(const LoraModule& module, const std::vector<std::int64_t>& weight) {
    const MatrixShape one = update_shape(module);
    std::vector<std::int64_t> found{one.rows, one.columns};
    if (module.is_in_out) std::swap(found[0], found[1]);
    if (weight.size() == 3) found.insert(found.begin(), module.experts);
    if (found != weight)
      add_misshaped(module.module_path, "update " + shape_to_string(found), shape_to_string(weight),
                    "another number of experts or layout");
  }

  bool has_replacement_in(const std::string& module_path) const {
    const std::string prefix = module_path + ".";
    const auto first = adapter_.replacements.lower_bound(prefix);
    return first != adapter_.replacements.end() && first->first.starts_with(prefix);
  }

  // PEFT asks for every parameter of a saved module and fails with a bare KeyError.
  void compare_saved() {
    for (const ModuleInfo& saved : targets_.saved) {
      ++result_.expected_sites;
      if (!has_replacement_in(saved.module_path)) {
        result_.missing.push_back({saved.module_path, MissingPart::Kind::saved});
        continue;
      }
      const std::string prefix = saved.module_path + ".";
      for (auto it = base_.tensors.lower_bound(prefix);
           it != base_.tensors.end() && it->first.starts_with(prefix); ++it)
        if (!adapter_.replacements.contains(it->first))
          result_.missing.push_back({it->first, MissingPart::Kind::saved});
    }
  }

  void compare_biases() {
    if (adapter_.config.bias != BiasMode::all) return;
    for (const ModuleInfo& module : modules_) {
      if (!module.has_bias) continue;
      const std::string name = module.module_path + ".bias";
      if (base_.find(name) != nullptr && !adapter_.replacements.contains(name))
        result_.missing.push_back({name, MissingPart::Kind::bias});
    }
  }

  void compare_tokens() {
    const Json* field = adapter_.config.other.find("trainable_token_indices");
    if (field == nullptr) return;
    if (const JsonArray* listed = field->as_array(); listed && !listed->empty()) {
      ++result_.expected_sites;
      if (adapter_.tokens.empty())
        result_.missing.push_back({input_embedding(), MissingPart::Kind::tokens});
    }
    const JsonObject* named = field->as_object();
    if (named == nullptr) return;
    for (const auto& [name, indices] : *named) {
      ++result_.expected_sites;
      const std::string& entry = name;
      if (std::none_of(adapter_.tokens.begin(), adapter_.tokens.end(),
                       [&](const TokenRows& rows) { return rows.module_path.ends_with(entry); }))
        result_.missing.push_back({entry, MissingPart::Kind::tokens});
    }
  }

  std::string input_embedding() const {
    const auto found = std::find_if(modules_.begin(), modules_.end(), [](const ModuleInfo& module) {
      return module.kind == LayerKind::embedding;
    });
    return found == modules_.end() ? "the input embedding" : found->module_path;
  }

  // A classification model is the base plus a head; checkpoints of plain bases do not have it.
  bool is_new_head(const std::string& base_name) const {
    const auto& task = adapter_.config.task_type;
    if (task != "SEQ_CLS" && task != "TOKEN_CLS" && task != "QUESTION_ANS") return false;
    const std::string path = "." + base_name;
    return std::any_of(adapter_.config.modules_to_save.begin(),
                       adapter_.config.modules_to_save.end(), [&](const std::string& entry) {
                         return path.find("." + entry + ".") != std::string::npos;
                       });
  }

  void compare_replacements() {
    for (const auto& [name, tensor] : adapter_.replacements) {
      const Tensor* original = base_.find(name);
      if (original == nullptr) {
        if (!is_new_head(name)) add_unexpected(name, false);
      } else if (original->shape != tensor.shape) {
        const bool differs_in_rows = original->shape.size() == 2 && tensor.shape.size() == 2 &&
                                     original->shape[1] == tensor.shape[1];
        const auto info = infos_.find(name.substr(0, name.rfind('.')));
        const bool is_vocabulary =
            differs_in_rows && info != infos_.end() &&
            (info->second->kind == LayerKind::embedding || info->second->is_output_head);
        add_misshaped(
            name, shape_to_string(tensor.shape), shape_to_string(original->shape),
            differs_in_rows ? "another vocabulary or number of labels" : "a base of another size",
            is_vocabulary);
      }
    }
  }

  const Adapter& adapter_;
  const Checkpoint& base_;
  const ModuleList& modules_;
  const ResolvedTargets& targets_;
  Selection selection_;
  std::map<std::string, const ModuleInfo*> infos_;
  std::map<std::string, const LoraModule*> sites_;  ///< by base_name
  std::set<std::string> damaged_;                   ///< base_names that problems are about
  std::vector<std::string> paths_;
  Accounting result_;
};

}  // namespace

Accounting account(const Adapter& adapter, const Checkpoint& base, const ModuleList& modules,
                   const ResolvedTargets& targets) {
  return Account(adapter, base, modules, targets).take();
}

std::string describe(const UnexpectedSite& site) {
  if (site.reason == UnexpectedSite::Reason::not_targeted)
    return "not targeted" + (site.cause.empty() ? "" : ": " + site.cause);
  return site.nearest.empty() ? "not in the base" : "not in the base, nearest " + site.nearest;
}

std::string describe(MissingPart::Kind kind) {
  switch (kind) {
    case MissingPart::Kind::factors:
      return "";
    case MissingPart::Kind::saved:
      return " (module to save)";
    case MissingPart::Kind::bias:
      return " (bias)";
    case MissingPart::Kind::tokens:
      return " (token rows)";
  }
  return "";
}

}  // namespace lora
