#include "ops/extract/survey.h"

#include <algorithm>
#include <atomic>
#include <set>

#include "checkpoint/module_names.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/extract/difference.h"
#include "ops/rules/rule.h"

namespace lora::extraction {
namespace {

constexpr std::int64_t kUsualRank = 16;

bool has_path(const std::string& module_path, const std::string& entry) {
  return module_path == entry || module_path.ends_with("." + entry);
}

bool is_inside(const std::string& module_path, const std::string& folder) {
  return module_path == folder || module_path.starts_with(folder + ".");
}

std::set<std::string> names_of(const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : checkpoint.tensors) names.insert(name);
  for (const auto& [name, target] : checkpoint.aliases) names.insert(name);
  return names;
}

class Surveying {
 public:
  Surveying(const ExtractOptions& options, const ModuleList& modules, const Sinks& sinks)
      : options_(options), base_(*options.base), tuned_(*options.tuned), sinks_(sinks) {
    for (std::size_t i = 0; i < modules.size(); ++i)
      infos_.emplace(modules[i].module_path, std::pair(&modules[i], i));
  }

  Survey run() {
    require_same_form();
    require_known_exclusions();
    find_changed();
    for (const std::string& name : changed_) assign(name);
    settle_saved();
    if (survey_.sites.empty() && survey_.tokens.empty() && survey_.saved.empty())
      throw Error(
          ErrorKind::incompatible,
          "cannot extract from " + tuned_.path.string() +
              (survey_.left_out.empty() ? ": it holds the same weights as " + base_.path.string()
                                        : ": all that changed is in excluded modules"))
          .in_file(tuned_.path.string());
    std::stable_sort(survey_.sites.begin(), survey_.sites.end(),
                     [](const Site& a, const Site& b) { return a.order < b.order; });
    return std::move(survey_);
  }

 private:
  // A second name of both is one parameter of both.
  bool is_second_name(const std::string& name) const {
    const auto base = base_.aliases.find(name), tuned = tuned_.aliases.find(name);
    return base != base_.aliases.end() && tuned != tuned_.aliases.end() &&
           base->second == tuned->second;
  }

  void require_same_form() {
    const std::set<std::string> left = names_of(base_), right = names_of(tuned_);
    std::vector<std::string> faults;
    for (const std::string& name : left)
      if (!right.contains(name)) faults.push_back(name + " is missing in the tuned checkpoint");
    for (const std::string& name : right)
      if (!left.contains(name)) faults.push_back(name + " is missing in the base");
    for (const std::string& name : left) {
      if (!right.contains(name) || is_second_name(name)) continue;
      const Tensor& a = *base_.find(name);
      const Tensor& b = *tuned_.find(name);
      if (a.shape != b.shape)
        faults.push_back(name + " is " + shape_to_string(a.shape) + " in the base and " +
                         shape_to_string(b.shape) + " in the tuned checkpoint");
      else if (a.dtype != b.dtype && !(is_float(a.dtype) && is_float(b.dtype)))
        faults.push_back(name + " is " + std::string(to_string(a.dtype)) + " in the base and " +
                         std::string(to_string(b.dtype)) + " in the tuned checkpoint");
      else
        names_.push_back(name);
    }
    constexpr std::size_t kShown = 5;
    if (!faults.empty())
      throw Error(ErrorKind::incompatible, "cannot extract from " + tuned_.path.string() + " on " +
                                               base_.path.string() + ": " +
                                               rules::join_some(faults, kShown))
          .in_file(tuned_.path.string())
          .with_hint("both must be one model before and after training, with one vocabulary");
  }

  void require_known_exclusions() const {
    for (const std::string& entry : options_.exclude_modules)
      if (std::none_of(names_.begin(), names_.end(), [&](const std::string& name) {
            return has_path(split_parameter(name).first, entry);
          }))
        throw Error(ErrorKind::usage, "--exclude-modules " + entry + " matches no module")
            .with_hint("give a module's path or its last parts: lora inspect BASE lists them");
  }

  void find_changed() {
    // Pieces, so that one thread is not left with the embedding.
    struct Piece {
      std::size_t tensor, first, count;
    };
    constexpr std::size_t kPiece = 1 << 20;
    std::vector<Piece> pieces;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      const auto values = static_cast<std::size_t>(base_.find(names_[i])->numel());
      for (std::size_t first = 0; first < values; first += kPiece)
        pieces.push_back({i, first, std::min(kPiece, values - first)});
    }
    std::vector<std::atomic<bool>> is_changed(names_.size());
    parallel_for(pieces.size(), options_.threads, [&](std::size_t i) {
      sinks_.throw_if_cancelled();
      const auto [tensor, first, count] = pieces[i];
      if (is_changed[tensor]) return;
      const std::string& name = names_[tensor];
      if (!has_equal_values(*base_.find(name), *tuned_.find(name), first, count))
        is_changed[tensor] = true;
    });
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (!is_changed[i]) {
        survey_.unchanged.push_back(names_[i]);
      } else if (is_excluded(names_[i])) {
        survey_.left_out.push_back(names_[i]);
      } else {
        changed_.push_back(names_[i]);
      }
    }
  }

  bool is_excluded(const std::string& name) const {
    const std::string path = split_parameter(name).first;
    return std::any_of(options_.exclude_modules.begin(), options_.exclude_modules.end(),
                       [&](const std::string& entry) { return has_path(path, entry); });
  }

  void assign(const std::string& name) {
    const auto [path, parameter] = split_parameter(name);
    const auto found = infos_.find(path);
    const ModuleInfo* info = found == infos_.end() ? nullptr : found->second.first;
    if (info == nullptr || path.empty())
      throw Error(ErrorKind::unsupported,
                  "cannot extract " + name + ": it belongs to no module that an adapter can hold")
          .in_tensor(name)
          .with_hint("--exclude-modules leaves changes out");
    const Tensor& base = *base_.find(name);
    const bool is_layer = info->kind == LayerKind::linear || info->kind == LayerKind::conv1d;
    const bool is_matrix = parameter == "weight" && base.shape.size() == 2 && is_float(base.dtype);
    if (is_matrix && info->kind == LayerKind::embedding) {
      assign_embedding(*info, name);
    } else if (is_matrix && is_layer && !info->is_output_head) {
      add_site(*info, name);
    } else if (parameter == "bias" && is_layer && !info->is_output_head) {
      biases_.insert(path);
    } else {
      saved_.insert(path);
    }
  }

  void add_site(const ModuleInfo& info, const std::string& name) {
    survey_.sites.push_back({info.module_path, name, info.kind, base_.find(name), tuned_.find(name),
                             infos_.at(info.module_path).second});
  }

  // Rows are exact; they are taken where factors would not be smaller.
  void assign_embedding(const ModuleInfo& info, const std::string& name) {
    const Tensor& base = *base_.find(name);
    const std::vector<std::int64_t> rows = changed_rows(base, *tuned_.find(name));
    const std::int64_t rank = options_.rank.value_or(kUsualRank);
    const auto count = static_cast<std::int64_t>(rows.size());
    if (count * base.shape[1] <= rank * (base.shape[0] + base.shape[1])) {
      if (count != 0) survey_.tokens.push_back({info.module_path, rows});
      return;
    }
    std::vector<std::string> tied;
    for (const auto& [alias, canonical] : base_.aliases)
      if (canonical == name && is_second_name(alias)) tied.push_back(split_parameter(alias).first);
    if (tied.empty()) return add_site(info, name);
    // Factors on both would be applied to one matrix twice by some merges; copies are not.
    saved_.insert(info.module_path);
    saved_.insert(tied.begin(), tied.end());
  }

  // Where the head of a tied embedding is carried whole, so is the embedding.
  void settle_tied() {
    std::erase_if(survey_.tokens, [&](const Tokens& tokens) {
      for (const auto& [alias, canonical] : base_.aliases)
        if (canonical == tokens.module_path + ".weight" && is_saved(split_parameter(alias).first)) {
          saved_.insert(tokens.module_path);
          return true;
        }
      return false;
    });
  }

  bool is_saved(const std::string& path) const {
    return std::any_of(saved_.begin(), saved_.end(),
                       [&](const std::string& folder) { return is_inside(path, folder); });
  }

  void settle_saved() {
    settle_tied();
    std::set<std::string> adapted;
    for (const Site& site : survey_.sites) adapted.insert(site.module_path);
    for (const std::string& path : biases_)
      if (!adapted.contains(path)) saved_.insert(path);
    std::erase_if(survey_.sites, [&](const Site& site) { return is_saved(site.module_path); });
    for (const std::string& path : biases_)
      if (adapted.contains(path) && !is_saved(path)) survey_.biased.push_back(path);
    for (const std::string& path : saved_)
      if (std::none_of(saved_.begin(), saved_.end(), [&](const std::string& folder) {
            return folder != path && is_inside(path, folder);
          }))
        survey_.saved.push_back(path);
  }

  const ExtractOptions& options_;
  const Checkpoint& base_;
  const Checkpoint& tuned_;
  const Sinks& sinks_;
  std::map<std::string, std::pair<const ModuleInfo*, std::size_t>> infos_;
  std::vector<std::string> names_, changed_;
  std::set<std::string> saved_, biases_;
  Survey survey_;
};

}  // namespace

Survey survey(const ExtractOptions& options, const ModuleList& modules, const Sinks& sinks) {
  return Surveying(options, modules, sinks).run();
}

std::map<std::string, const Tensor*> parameters_of(const Checkpoint& tuned,
                                                   const std::string& module_path) {
  std::map<std::string, const Tensor*> found;
  for (const std::string& name : names_of(tuned))
    if (name.starts_with(module_path + ".")) found[name] = tuned.find(name);
  return found;
}

}  // namespace lora::extraction
