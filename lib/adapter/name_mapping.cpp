#include "lora/adapter/name_mapping.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

namespace lora {
namespace {

using Parts = std::vector<std::string>;
using Front = std::pair<std::string, std::string>;

constexpr std::string_view kInnerLayer = "base_layer";

Parts split(std::string_view path) {
  Parts parts;
  while (true) {
    const std::size_t dot = path.find('.');
    parts.emplace_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

std::string join(const Parts& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ".") + part;
  return text;
}

bool is_index(std::string_view part) {
  return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
}

// Modules can only have become each other when these agree: the last component and all indices.
std::string fingerprint(const Parts& parts) {
  std::string text = parts.back();
  for (const std::string& part : parts)
    if (is_index(part)) text += '/' + part;
  return text;
}

Parts without_inner_layers(Parts parts) {
  if (parts.size() > 1) std::erase(parts, std::string(kInnerLayer));
  return parts;
}

// Puts the base_layer components of `original` at the same distance from the end of `renamed`.
std::string with_inner_layers(const Parts& original, Parts renamed) {
  std::ptrdiff_t from_end = 0;
  for (auto part = original.rbegin(); part != original.rend(); ++part, ++from_end)
    if (*part == kInnerLayer) renamed.insert(renamed.end() - from_end, std::string(kInnerLayer));
  return join(renamed);
}

struct Likeness {
  std::size_t end = 0, beginning = 0;
  friend auto operator<=>(const Likeness&, const Likeness&) = default;
};

Likeness likeness(const Parts& x, const Parts& y) {
  const std::size_t shorter = std::min(x.size(), y.size());
  Likeness result;
  while (result.end < shorter && x[x.size() - 1 - result.end] == y[y.size() - 1 - result.end])
    ++result.end;
  while (result.beginning < shorter - result.end && x[result.beginning] == y[result.beginning])
    ++result.beginning;
  return result;
}

std::string front_text(const Parts& parts, std::size_t end) {
  std::string text;
  for (std::size_t i = 0; i + end < parts.size(); ++i)
    text += (is_index(parts[i]) ? std::string("*") : parts[i]) + ".";
  return text;
}

Front front_of(const Parts& from, const Parts& to) {
  const std::size_t end = likeness(from, to).end;
  return {front_text(from, end), front_text(to, end)};
}

struct Module {
  std::string path;
  Parts original, parts;
  std::vector<std::string> candidates;
};

class Matching {
 public:
  Matching(const std::vector<std::string>& base_paths, const std::set<std::string>& taken) {
    for (const std::string& path : base_paths)
      if (!path.empty() && !taken.contains(path))
        by_fingerprint_[fingerprint(split(path))].push_back(path);
  }

  std::vector<std::string> best(const Module& module, const MayBe& may_be) const {
    const auto found = by_fingerprint_.find(fingerprint(module.parts));
    if (found == by_fingerprint_.end()) return {};
    std::vector<std::string> best;
    Likeness most;
    for (const std::string& path : found->second) {
      if (may_be && !may_be(module.path, path)) continue;
      const Likeness here = likeness(module.parts, split(path));
      if (here < most) continue;
      if (most < here) best.clear();
      most = here;
      best.push_back(path);
    }
    std::sort(best.begin(), best.end());
    return best;
  }

 private:
  std::map<std::string, std::vector<std::string>> by_fingerprint_;
};

// Keeps the one candidate that follows a rule other modules follow without a choice.
void decide_by_rules(std::vector<Module>& modules) {
  std::set<Front> known;
  for (const Module& module : modules)
    if (module.candidates.size() == 1)
      known.insert(front_of(module.parts, split(module.candidates[0])));
  for (Module& module : modules) {
    std::vector<std::string> followers;
    for (const std::string& candidate : module.candidates)
      if (known.contains(front_of(module.parts, split(candidate)))) followers.push_back(candidate);
    if (followers.size() == 1) module.candidates = std::move(followers);
  }
}

}  // namespace

NameMapping map_names(const std::vector<std::string>& adapter_paths,
                      const std::vector<std::string>& base_paths, const MayBe& may_be) {
  const std::set<std::string> in_base(base_paths.begin(), base_paths.end());
  NameMapping mapping;
  std::vector<Module> modules;
  std::set<std::string> taken;
  for (const std::string& path :
       std::set<std::string>(adapter_paths.begin(), adapter_paths.end())) {
    Module module{path, split(path), {}, {}};
    module.parts = without_inner_layers(module.original);
    if (const std::string plain = join(module.parts); in_base.contains(plain)) {
      taken.insert(plain);
      ++mapping.unchanged;
    } else {
      modules.push_back(std::move(module));
    }
  }
  const Matching matching(base_paths, taken);
  for (Module& module : modules) module.candidates = matching.best(module, may_be);
  decide_by_rules(modules);

  // Sites inside one LoRA layer share a base module; anything else that meets there is a clash.
  std::map<std::string, std::set<std::string>> owners;
  for (const Module& module : modules)
    if (module.candidates.size() == 1) owners[module.candidates[0]].insert(join(module.parts));
  std::map<Front, std::size_t> rules;
  for (const Module& module : modules) {
    if (module.candidates.empty()) {
      mapping.unmatched.push_back(module.path);
    } else if (module.candidates.size() > 1 || owners[module.candidates[0]].size() > 1) {
      mapping.ambiguous[module.path] = module.candidates;
    } else {
      const Parts renamed = split(module.candidates[0]);
      mapping.renames[module.path] = with_inner_layers(module.original, renamed);
      ++rules[front_of(module.parts, renamed)];
    }
  }
  for (const auto& [front, count] : rules)
    mapping.rules.push_back({front.first, front.second, count});
  std::stable_sort(mapping.rules.begin(), mapping.rules.end(),
                   [](const RenameRule& x, const RenameRule& y) { return x.modules > y.modules; });
  return mapping;
}

std::string describe_rules(const NameMapping& mapping) {
  std::string text;
  for (const RenameRule& rule : mapping.rules)
    text += (text.empty() ? "" : ", ") + rule.from + "* -> " + rule.to + "* (" +
            std::to_string(rule.modules) + (rule.modules == 1 ? " module)" : " modules)");
  return text;
}

std::string nearest_name(const std::string& path, const std::vector<std::string>& base_paths) {
  const Parts parts = without_inner_layers(split(path));
  std::string nearest;
  Likeness most;
  for (const std::string& candidate : base_paths) {
    const Likeness here = likeness(parts, split(candidate));
    if (here.end == 0 || here <= most) continue;
    most = here;
    nearest = candidate;
  }
  return nearest;
}

}  // namespace lora
