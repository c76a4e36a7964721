// From argument strings to assigned options. CLI11 splits the arguments; its own messages never
// reach the person.
#pragma once

#include <string>
#include <vector>

#include "cli/option_set.h"

namespace lora::cli {

/// Arguments taken apart: what stands before the verb moves behind it, so that `lora --json verify
/// X` and `lora verify X --json` mean the same.
struct Request {
  std::string verb;  ///< empty when none was given
  std::vector<std::string> arguments;
  bool wants_help = false;
  bool wants_version = false;
};
Request split_request(const std::vector<std::string>& arguments, const OptionSet& global);

/// Parses and assigns. Throws Error(usage) for unknown flags (with the closest one), missing or
/// superfluous arguments and bad values.
void parse_options(const std::vector<std::string>& arguments, const OptionSet& options);

/// Arguments for the keys of a settings file that `arguments` do not give themselves: top-level
/// keys and those in the table named like the verb. Unknown keys are Error(usage).
std::vector<std::string> settings_arguments(const std::string& path, const std::string& verb,
                                            const std::vector<std::string>& arguments,
                                            const OptionSet& options);

/// True when one of the option's names stands among the arguments.
bool is_given(const OptionSpec& spec, const std::vector<std::string>& arguments);

}  // namespace lora::cli
