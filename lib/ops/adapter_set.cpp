#include "lora/ops/adapter_set.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// Loading one of these changes the base's weights first.
constexpr std::array<std::string_view, 5> kRewritingInits{"pissa", "olora", "corda", "loftq",
                                                          "lora_ga"};

std::string_view bias_name(BiasMode mode) { return mode == BiasMode::all ? "all" : "lora_only"; }

bool has_kasa(const AdapterConfig& config) {
  const Json* kasa = config.other.find("kasa_config");
  return kasa != nullptr && !kasa->is_null();
}

std::string rewriting_init(const AdapterConfig& config) {
  const std::string* init = config.init_lora_weights.as_string();
  const bool rewrites = init != nullptr &&
                        std::any_of(kRewritingInits.begin(), kRewritingInits.end(),
                                    [&](std::string_view name) { return init->starts_with(name); });
  return rewrites ? *init : std::string();
}

std::string module_of(const std::string& base_name) {
  return base_name.substr(0, base_name.rfind('.'));
}

// One pair of adapters.
class Pair {
 public:
  Pair(const Adapter& a, const Adapter& b, std::vector<std::string>& conflicts)
      : a_(a), b_(b), conflicts_(conflicts) {}

  void compare() {
    compare_replacements();
    if (a_.config.bias != BiasMode::none && b_.config.bias != BiasMode::none)
      add("train biases (bias " + std::string(bias_name(a_.config.bias)) + " and bias " +
          std::string(bias_name(b_.config.bias)) + "); a model can have those of one adapter");
    compare_tokens();
    find_replaced(a_, b_);
    find_replaced(b_, a_);
    if (has_kasa(a_.config) != has_kasa(b_.config))
      add("disagree about the base: " + name(has_kasa(a_.config) ? a_ : b_) +
          " uses KaSA, which truncates it, the other does not");
    for (const Adapter* adapter : {&a_, &b_})
      if (const std::string init = rewriting_init(adapter->config); !init.empty())
        add("disagree about the base: " + name(*adapter) + " was initialised with " + init +
            ", which rewrites it");
  }

 private:
  static std::string name(const Adapter& adapter) { return adapter.path.string(); }

  void add(const std::string& what) {
    conflicts_.push_back(name(a_) + " and " + name(b_) + " " + what);
  }

  void compare_replacements() {
    std::set<std::string> modules;
    for (const auto& [base_name, tensor] : a_.replacements) {
      const auto other = b_.replacements.find(base_name);
      if (other != b_.replacements.end() && !has_equal_bytes(tensor, other->second))
        modules.insert(module_of(base_name));
    }
    if (!modules.empty())
      add("replace with different values: " + rules::join_some({modules.begin(), modules.end()}));
  }

  void compare_tokens() {
    for (const TokenRows& rows : a_.tokens)
      for (const TokenRows& other : b_.tokens) {
        if (rows.module_path != other.module_path) continue;
        const std::set<std::int64_t> known(rows.indices.begin(), rows.indices.end());
        std::vector<std::string> shared;
        for (const std::int64_t index : other.indices)
          if (known.contains(index)) shared.push_back(std::to_string(index));
        if (!shared.empty())
          add("both bring rows of " + rows.module_path + ": " + rules::join_some(shared));
      }
  }

  // Modules that `replacing` brings whole and `adapting` changes.
  void find_replaced(const Adapter& replacing, const Adapter& adapting) {
    std::set<std::string> modules;
    for (const auto& [base_name, tensor] : replacing.replacements) {
      if (base_name.ends_with(".bias")) continue;
      const std::string path = module_of(base_name);
      const bool has_rows =
          std::any_of(adapting.tokens.begin(), adapting.tokens.end(),
                      [&](const TokenRows& rows) { return rows.module_path == path; });
      if (adapting.find(path) != nullptr || has_rows) modules.insert(path);
    }
    if (!modules.empty())
      add("touch the same module: " + name(replacing) + " replaces and " + name(adapting) +
          " adapts " + rules::join_some({modules.begin(), modules.end()}));
  }

  const Adapter& a_;
  const Adapter& b_;
  std::vector<std::string>& conflicts_;
};

}  // namespace

std::vector<std::string> adapter_conflicts(const std::vector<const Adapter*>& adapters) {
  std::vector<std::string> conflicts;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    for (std::size_t j = i + 1; j < adapters.size(); ++j)
      Pair(*adapters[i], *adapters[j], conflicts).compare();
  return conflicts;
}

void require_no_conflict(const std::vector<const Adapter*>& adapters) {
  const std::vector<std::string> conflicts = adapter_conflicts(adapters);
  if (conflicts.empty()) return;
  std::string listed;
  for (const std::string& conflict : conflicts) listed += (listed.empty() ? "" : "; ") + conflict;
  throw Error(ErrorKind::incompatible, "these adapters cannot be active together: " + listed)
      .with_hint("load one of them, or merge one into the base first");
}

void apply_weight(Adapter& adapter, double weight) {
  for (LoraModule& module : adapter.modules) module.scaling *= weight;
}

}  // namespace lora
