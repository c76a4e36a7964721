// Flags and words shared by the verbs that make an adapter from others.
#pragma once

#include <optional>
#include <string>

#include "cli/context.h"
#include "cli/option_set.h"
#include "lora/format/json.h"
#include "lora/ops/derived.h"

namespace lora::cli {

class DerivedFlags {
 public:
  /// `dtype_help` says what the dtype is without the flag.
  void add_to(OptionSet& options, const std::string& dtype_help);
  DerivedOptions options(const Context& context) const;

 private:
  std::string output_;
  std::optional<std::string> dtype_;
  bool force_ = false, dry_run_ = false;
};

/// "output", "written", "digest", "module_count", "bytes", "notes".
void add_result(const DerivedReport& report, JsonObject& result);

/// Notes on stderr, "wrote DIR: 4 LoRA modules, 1.2 kB" as the last line of the answer.
void print_result(const DerivedReport& report, Console& console);

}  // namespace lora::cli
