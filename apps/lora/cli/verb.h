// A verb of the command line: one command object, made anew for each run.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "cli/context.h"
#include "cli/option_set.h"
#include "lora/format/json.h"
#include "lora/ops/finding.h"

namespace lora::cli {

/// What a verb answers. `result` becomes the JSON envelope's result; text is printed by the verb
/// itself through Context::console.
struct Outcome {
  int exit_code = 0;
  JsonObject result;
  Findings findings;
};

class Command {
 public:
  virtual ~Command() = default;
  virtual void add_options(OptionSet& options) = 0;
  virtual Outcome run(Context& context) = 0;
};

struct Verb {
  std::string_view name;
  std::string_view group;  ///< heading in `lora --help`
  std::string_view summary;
  std::string_view description;  ///< paragraph(s) of `lora VERB --help`
  std::string_view examples;     ///< lines, shown indented
  std::unique_ptr<Command> (*make)();
};

/// All verbs in help order (commands/commands.cpp).
const std::vector<Verb>& all_verbs();
const Verb* find_verb(std::string_view name);

}  // namespace lora::cli
