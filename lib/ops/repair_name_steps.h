// The names of a damaged adapter's tensors while they are being cleaned.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "lora/adapter/keys.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/repair.h"

namespace lora {

struct NameEntry {
  std::string file_key;
  std::string name;  ///< without fronts that are no part of any scheme
  const Tensor* tensor = nullptr;
  ParsedKey key;
  std::string earlier_path;  ///< module_path before any module was renamed
};

using NameEntries = std::vector<NameEntry>;

/// What every step needs, and how it reports.
class NameSteps {
 public:
  NameSteps(const RepairOptions& options, const AdapterConfig* config, RepairReport& report);

  const RepairOptions& options() const { return options_; }
  const AdapterConfig* config() const { return config_; }  ///< null: lost
  const ModuleList& modules() const { return modules_; }   ///< of the base; empty without one
  const std::set<std::string>& paths() const { return paths_; }
  RepairReport& report() { return report_; }

  /// Lists a change of names.
  void add(const std::string& from, const std::string& to, const std::string& why);
  [[noreturn]] void refuse(ErrorKind kind, const std::string& what, const std::string& hint) const;

 private:
  const RepairOptions& options_;
  const AdapterConfig* config_;
  RepairReport& report_;
  ModuleList modules_;
  std::set<std::string> paths_;
};

/// "1 name", "3 names".
std::string count_of_names(std::size_t count);

/// Takes off `options.prefix` and what a tool put in front of base_model.model.
void take_fronts(NameEntries& entries, NameSteps& steps);

/// Applies `options.map` and gives the modules of the entries their names in the base. True when
/// modules were renamed, so that other tensors of the base are meant.
bool place_modules(NameEntries& entries, NameSteps& steps);

}  // namespace lora
