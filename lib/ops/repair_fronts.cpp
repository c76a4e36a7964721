#include <algorithm>
#include <set>
#include <string_view>

#include "lora/adapter/keys.h"
#include "ops/repair_name_steps.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

using rules::kPeftPrefix;

std::string with_dot(std::string text) {
  if (!text.empty() && text.back() != '.') text += '.';
  return text;
}

// Position of the prefix where a component begins; npos when it is nowhere.
std::size_t find_prefix(const std::string& name) {
  if (name.starts_with(kPeftPrefix)) return 0;
  const std::size_t found = name.find("." + std::string(kPeftPrefix));
  return found == std::string::npos ? found : found + 1;
}

bool is_wrapper(std::string_view part) {
  return part == "module" || part == "_orig_mod" || part == "_fsdp_wrapped_module";
}

// A front without the wrappers that parse_key knows.
std::string foreign_part(std::string front) {
  std::string foreign;
  while (!front.empty()) {
    const std::size_t dot = front.find('.');
    const std::string part = front.substr(0, dot);
    if (!is_wrapper(part)) foreign += part + ".";
    front = dot == std::string::npos ? std::string() : front.substr(dot + 1);
  }
  return foreign;
}

class Fronts {
 public:
  Fronts(NameEntries& entries, NameSteps& steps) : entries_(entries), steps_(steps) {}

  void take_prefix() {
    if (!steps_.options().prefix) return;
    const std::string prefix = with_dot(*steps_.options().prefix);
    std::size_t count = 0;
    for (NameEntry& entry : entries_) {
      if (!entry.name.starts_with(prefix)) continue;
      entry.name.erase(0, prefix.size());
      ++count;
    }
    if (count == 0)
      steps_.refuse(ErrorKind::usage, "no name begins with " + prefix,
                    "lora inspect shows the names; --prefix takes what they begin with");
    steps_.add(prefix + " in " + count_of_names(count), "taken off", "--prefix says so");
  }

  // Something in front of base_model.model. was put there by the tool that saved the file. Some
  // tools mean a module by it, whose place is behind the prefix.
  void take_foreign_front() {
    std::set<std::string> fronts;
    std::size_t count = 0;
    for (const NameEntry& entry : entries_) {
      const std::size_t begin = find_prefix(entry.name);
      if (begin == std::string::npos) return;
      fronts.insert(foreign_part(entry.name.substr(0, begin)));
      ++count;
    }
    if (fronts.size() != 1 || fronts.begin()->empty()) {
      if (fronts.size() > 1)
        steps_.refuse(ErrorKind::usage,
                      "names have different fronts before base_model.model.: " +
                          rules::join_some({fronts.begin(), fronts.end()}),
                      "--prefix takes one off");
      return;
    }
    const std::string front = *fronts.begin();
    if (steps_.options().base == nullptr)
      steps_.refuse(
          ErrorKind::usage,
          "every name begins with " + front +
              " before base_model.model.; it may be a module of the base or nothing at all",
          "give the base with --base DIR, or say that it is nothing: --prefix " + front);
    const bool is_module = all_exist(front);
    for (NameEntry& entry : entries_) {
      const std::size_t begin = find_prefix(entry.name);
      entry.name = std::string(kPeftPrefix) + (is_module ? front : "") +
                   entry.name.substr(begin + kPeftPrefix.size());
    }
    steps_.add(front + " before base_model.model. in " + count_of_names(count),
               is_module ? "base_model.model." + front : "taken off",
               is_module ? "all modules exist in the base with it behind the prefix"
                         : "the base has no such module there");
  }

 private:
  bool all_exist(const std::string& front) const {
    return std::all_of(entries_.begin(), entries_.end(), [&](const NameEntry& entry) {
      const std::size_t begin = find_prefix(entry.name);
      const ParsedKey key = parse_key(front + entry.name.substr(begin + kPeftPrefix.size()));
      return !key.is_lora() || steps_.paths().contains(key.module_path);
    });
  }

  NameEntries& entries_;
  NameSteps& steps_;
};

}  // namespace

void take_fronts(NameEntries& entries, NameSteps& steps) {
  Fronts fronts(entries, steps);
  fronts.take_prefix();
  fronts.take_foreign_front();
}

}  // namespace lora
