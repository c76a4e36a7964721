// Help texts, made from the option tables.
#pragma once

#include <string>

#include "cli/option_set.h"
#include "cli/verb.h"

namespace lora::cli {

std::string overview_help();
std::string verb_help(const Verb& verb, const OptionSet& options);
std::string exit_code_help();

/// docs/cli.md, whole.
std::string reference_markdown();

/// docs/verify-rules.md, whole.
std::string rules_markdown();

/// Shell completion script for bash, zsh or fish.
std::string completion_script(const std::string& shell);

}  // namespace lora::cli
