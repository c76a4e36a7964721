#include "ops/repair_strength.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lora/base/error.h"
#include "ops/rules/rule.h"
#include "ops/save_config.h"

namespace lora {
namespace {

using Alphas = std::map<std::string, double>;

double divisor(std::int64_t rank, bool use_rslora) {
  return use_rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank);
}

// The alpha that gives exactly this scaling: a whole number where one does.
double alpha_for(double scaling, std::int64_t rank, bool use_rslora) {
  const double product = scaling * divisor(rank, use_rslora);
  const double whole = std::round(product);
  for (const double alpha :
       {whole, product, std::nextafter(product, HUGE_VAL), std::nextafter(product, -HUGE_VAL)})
    if (alpha / divisor(rank, use_rslora) == scaling) return alpha;
  return product;
}

class Strength {
 public:
  Strength(AdapterConfig& config, const RepairConfig& read, const RepairedNames& names,
           const std::map<std::string, std::int64_t>& ranks,
           const std::optional<Manifest>& manifest, const RepairOptions& options,
           RepairReport& report)
      : config_(config),
        read_(read),
        names_(names),
        ranks_(ranks),
        manifest_(manifest),
        options_(options),
        report_(report) {}

  void run() {
    const bool is_known = read_.config.has_value() && read_.has_alpha;
    if (is_known && (options_.alpha || options_.use_rslora))
      refuse(
          "its configuration says lora_alpha and use_rslora, so --alpha and --rslora "
          "contradict it",
          "--adapter-config FILE replaces the configuration");
    const AdapterConfig before = config_;
    std::string why;
    const Alphas wanted = is_known ? known_alphas(why) : lost_alphas(why);
    set(wanted, !is_known);
    report_changes(before, is_known, why);
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& hint) const {
    const std::string source = options_.adapter.string();
    throw Error(ErrorKind::usage, "cannot repair " + source + ": " + what)
        .in_file(source)
        .with_hint(hint);
  }

  std::optional<double> recorded(const std::string& path) const {
    if (!manifest_) return std::nullopt;
    const auto found = manifest_->scaling.find(names_.earlier_path(path));
    if (found == manifest_->scaling.end()) return std::nullopt;
    return found->second;
  }

  bool all_recorded() const {
    return !ranks_.empty() && std::all_of(ranks_.begin(), ranks_.end(), [&](const auto& entry) {
      return recorded(entry.first).has_value();
    });
  }

  Alphas known_alphas(std::string& why) const {
    const PatternTable table(*read_.config);
    Alphas wanted;
    std::vector<std::string> contradictions;
    why = "the strength stays what the configuration gave each module";
    for (const auto& [path, rank] : ranks_) {
      const std::string& earlier = names_.earlier_path(path);
      double alpha = table.alpha_of(earlier);
      if (const auto scaling = recorded(path);
          scaling && alpha / divisor(rank, config_.use_rslora) != *scaling) {
        alpha = alpha_for(*scaling, rank, config_.use_rslora);
        why = std::string(kManifestName) + " records the scaling of every module";
      }
      const auto scalar = names_.alphas.find(path);
      if (scalar != names_.alphas.end() && scalar->second != alpha)
        contradictions.push_back(path + " (" + rules::figure(alpha) + " and " +
                                 rules::figure(scalar->second) + ")");
      wanted[path] = alpha;
    }
    if (!contradictions.empty())
      refuse("the configuration and the .alpha scalars of the file contradict each other: " +
                 rules::join_some(contradictions),
             "give the right configuration with --adapter-config FILE");
    return wanted;
  }

  Alphas lost_alphas(std::string& why) {
    Alphas wanted;
    const bool has_config = read_.config.has_value();
    if (options_.alpha) {
      require_rslora(has_config);
      const AdapterConfig patterns = with_default_alpha(*options_.alpha);
      const PatternTable table(patterns);
      for (const auto& [path, rank] : ranks_)
        wanted[path] = table.alpha_of(names_.earlier_path(path));
      why = "--alpha says so";
    } else if (!names_.alphas.empty()) {
      std::vector<std::string> missing;
      for (const auto& [path, rank] : ranks_) {
        const auto found = names_.alphas.find(path);
        if (found == names_.alphas.end())
          missing.push_back(path);
        else
          wanted[path] = found->second;
      }
      if (!missing.empty())
        refuse("modules have no .alpha scalar although others do: " + rules::join_some(missing),
               "give --alpha");
      config_.use_rslora = options_.use_rslora.value_or(config_.use_rslora);
      why = "the .alpha scalars of the file; what writes them divides by the rank";
    } else if (all_recorded()) {
      config_.use_rslora = options_.use_rslora.value_or(recorded_rslora(has_config));
      for (const auto& [path, rank] : ranks_)
        wanted[path] = alpha_for(*recorded(path), rank, config_.use_rslora);
      why = std::string(kManifestName) + " records the scaling of every module";
    } else {
      refuse("lora_alpha is lost" +
                 (has_config ? std::string()
                             : " with " + std::string(kAdapterConfigName) + ", which " +
                                   read_.lost_because) +
                 ", and tensors do not say how strongly they are applied",
             has_config ? "give --alpha N; PEFT would assume 8 without a word"
                        : "give --alpha N with --rslora or --no-rslora, or --adapter-config FILE");
    }
    return wanted;
  }

  void require_rslora(bool has_config) {
    if (options_.use_rslora) {
      config_.use_rslora = *options_.use_rslora;
    } else if (!has_config) {
      refuse("use_rslora is lost, and alpha alone does not say the strength",
             "give --rslora or --no-rslora too");
    }
  }

  AdapterConfig with_default_alpha(double alpha) const {
    AdapterConfig config = config_;
    config.alpha = alpha;
    config.spelling.erase("lora_alpha");
    return config;
  }

  // Whole numbers are what people give: the reading that makes every alpha one, plain first.
  bool recorded_rslora(bool has_config) {
    if (has_config) return config_.use_rslora;
    const auto is_whole = [&](bool use_rslora) {
      return std::all_of(ranks_.begin(), ranks_.end(), [&](const auto& entry) {
        const double alpha = alpha_for(*recorded(entry.first), entry.second, use_rslora);
        return alpha == std::round(alpha);
      });
    };
    const bool plain = is_whole(false), root = is_whole(true);
    if (plain == root)
      report_.notes.push_back(
          "whether rsLoRA was used cannot be told from the recorded scalings; "
          "the strength is the same either way");
    return root && !plain;
  }

  // Keeps what is there when it gives every module its strength already.
  void set(const Alphas& wanted, bool choose_default) {
    const auto is_right = [&] {
      const PatternTable table(config_);
      return std::all_of(wanted.begin(), wanted.end(), [&](const auto& entry) {
        return table.alpha_of(entry.first) == entry.second;
      });
    };
    if (choose_default) {
      std::map<double, std::size_t> frequency;
      for (const auto& [path, alpha] : wanted) ++frequency[alpha];
      std::size_t most = 0;
      for (const auto& [alpha, count] : frequency) {
        if (count <= most) continue;
        most = count;
        config_.alpha = alpha;
      }
      if (options_.alpha) config_.alpha = *options_.alpha;
    }
    if (is_right() && !has_overlap(config_.alpha_pattern, ranks_)) return;
    config_.alpha_pattern.clear();
    // One value for all is better said without patterns.
    const bool is_uniform =
        !wanted.empty() && std::all_of(wanted.begin(), wanted.end(), [&](const auto& entry) {
          return entry.second == wanted.begin()->second;
        });
    if (is_uniform) config_.alpha = wanted.begin()->second;
    for (const auto& [path, alpha] : wanted)
      if (alpha != config_.alpha)
        config_.alpha_pattern.emplace_back(whole_path_pattern(path), alpha);
  }

  void report_changes(const AdapterConfig& before, bool is_known, const std::string& why) {
    const auto add = [&](const std::string& from, const std::string& to) {
      report_.changes.push_back({"configuration", from, to, why});
    };
    if (!is_known || before.alpha != config_.alpha)
      add(is_known ? "lora_alpha " + rules::figure(before.alpha) : "lora_alpha lost",
          "lora_alpha " + rules::figure(config_.alpha));
    if (before.alpha_pattern != config_.alpha_pattern)
      add("alpha_pattern " + pattern_text(before.alpha_pattern),
          "alpha_pattern " + pattern_text(config_.alpha_pattern));
    if (before.use_rslora != config_.use_rslora)
      add("use_rslora lost",
          config_.use_rslora ? std::string("use_rslora true") : "use_rslora false");
  }

  AdapterConfig& config_;
  const RepairConfig& read_;
  const RepairedNames& names_;
  const std::map<std::string, std::int64_t>& ranks_;
  const std::optional<Manifest>& manifest_;
  const RepairOptions& options_;
  RepairReport& report_;
};

}  // namespace

std::string pattern_text(const NumberPattern& pattern) {
  constexpr std::size_t kShown = 3;
  std::string text = "{";
  for (std::size_t i = 0; i < std::min(kShown, pattern.size()); ++i)
    text += (i == 0 ? "" : ", ") + pattern[i].first + ": " + rules::figure(pattern[i].second);
  if (pattern.size() > kShown) text += " and " + std::to_string(pattern.size() - kShown) + " more";
  return text + "}";
}

bool has_overlap(const NumberPattern& pattern, const std::map<std::string, std::int64_t>& ranks) {
  std::map<std::string, double> selected;
  for (const auto& [key, value] : pattern) {
    AdapterConfig probe;
    probe.alpha = 0;
    probe.alpha_pattern = {{key, 1.0}};
    const PatternTable table(probe);
    for (const auto& [path, rank] : ranks) {
      if (table.alpha_of(path) != 1) continue;
      const auto [place, is_new] = selected.emplace(path, value);
      if (!is_new && place->second != value) return true;
    }
  }
  return false;
}

void repair_strength(AdapterConfig& config, const RepairConfig& read, const RepairedNames& names,
                     const std::map<std::string, std::int64_t>& ranks,
                     const std::optional<Manifest>& manifest, const RepairOptions& options,
                     RepairReport& report) {
  Strength(config, read, names, ranks, manifest, options, report).run();
}

}  // namespace lora
