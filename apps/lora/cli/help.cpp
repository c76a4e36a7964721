#include "cli/help.h"

#include <sstream>
#include <string_view>
#include <vector>

#include "cli/exit_codes.h"
#include "lora/ops/verify.h"

namespace lora::cli {
namespace {

constexpr std::size_t kWidth = 96;
constexpr std::size_t kHelpColumn = 30;

std::string value_text(const OptionSpec& spec) {
  if (spec.arity == Arity::flag) return "";
  std::string value = spec.metavar;
  if (!spec.choices.empty()) {
    value.clear();
    for (const std::string& choice : spec.choices) value += (value.empty() ? "" : "|") + choice;
  }
  if (spec.arity == Arity::many || spec.arity == Arity::rest) value += "...";
  return value;
}

std::string head_of(const OptionSpec& spec) {
  if (spec.arity == Arity::positional || spec.arity == Arity::rest) return value_text(spec);
  std::string head;
  for (const std::string& name : spec.names) head += (head.empty() ? "" : ", ") + name;
  const std::string value = value_text(spec);
  if (spec.arity == Arity::optional) return head + "[=" + value + "]";
  return value.empty() ? head : head + " " + value;
}

std::string body_of(const OptionSpec& spec) {
  std::string body = spec.help;
  if (!spec.default_text.empty()) body += " (default: " + spec.default_text + ")";
  return body;
}

// Breaks at spaces; every line after the first starts at `indent`.
std::string wrapped(std::string_view text, std::size_t column, std::size_t indent) {
  std::string out;
  std::istringstream words{std::string(text)};
  std::string word;
  bool first = true;
  while (words >> word) {
    if (!first && column + 1 + word.size() > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    first = false;
  }
  return out;
}

std::string option_line(const OptionSpec& spec) {
  std::string line = "  " + head_of(spec);
  if (line.size() + 2 > kHelpColumn) {
    line += "\n" + std::string(kHelpColumn, ' ');
  } else {
    line.resize(kHelpColumn, ' ');
  }
  return line + wrapped(body_of(spec), kHelpColumn, kHelpColumn) + "\n";
}

std::vector<std::string> groups_of(const OptionSet& options) {
  std::vector<std::string> groups;
  for (const OptionSpec& spec : options.specs()) {
    bool seen = false;
    for (const std::string& group : groups) seen = seen || group == spec.group;
    if (!seen && !spec.is_hidden) groups.push_back(spec.group);
  }
  return groups;
}

std::string usage_of(const Verb& verb, const OptionSet& options) {
  std::string usage = "lora " + std::string(verb.name);
  for (const OptionSpec& spec : options.specs()) {
    if (spec.arity == Arity::positional || spec.arity == Arity::rest) {
      usage += spec.is_required ? " " + head_of(spec) : " [" + head_of(spec) + "]";
    } else if (spec.is_required) {
      usage += " " + spec.label() + " " + value_text(spec);
    }
  }
  return usage + " [flags]";
}

std::string paragraphs(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto end = text.find("\n\n");
    out += wrapped(text.substr(0, end), 0, 0) + "\n";
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 2);
    if (!text.empty()) out += "\n";
  }
  return out;
}

std::string indented(std::string_view lines) {
  std::string out;
  while (!lines.empty()) {
    const auto end = lines.find('\n');
    out += "  " + std::string(lines.substr(0, end)) + "\n";
    lines = end == std::string_view::npos ? std::string_view() : lines.substr(end + 1);
  }
  return out;
}

OptionSet options_of(Command& command, GlobalOptions& global) {
  OptionSet options;
  command.add_options(options);
  global.add_to(options);
  return options;
}

}  // namespace

std::string overview_help() {
  std::string out =
      "lora - the whole life of a LoRA adapter: make or import a base, train, save, load, verify, "
      "diff\n\nUsage: lora <verb> [arguments] [flags]\n";
  std::string_view group;
  for (const Verb& verb : all_verbs()) {
    if (verb.group != group) {
      group = verb.group;
      out += "\n" + std::string(group) + ":\n";
    }
    std::string line = "  " + std::string(verb.name);
    line.resize(15, ' ');
    out += line + std::string(verb.summary) + "\n";
  }
  out +=
      "\nGlobal flags:\n"
      "  -h, --help     help for lora or for one verb (lora help <verb>)\n"
      "  -V, --version  version; with -v also engine, LibTorch and processor features\n"
      "\nlora <verb> --help lists the flags of a verb; lora help exit-codes the exit codes.\n";
  return out;
}

std::string verb_help(const Verb& verb, const OptionSet& options) {
  std::string out = "lora " + std::string(verb.name) + " - " + std::string(verb.summary) +
                    "\n\nUsage: " + usage_of(verb, options) + "\n\n" + paragraphs(verb.description);
  for (const std::string& group : groups_of(options)) {
    out += "\n" + group + ":\n";
    for (const OptionSpec& spec : options.specs())
      if (spec.group == group && !spec.is_hidden) out += option_line(spec);
  }
  if (!verb.examples.empty()) out += "\nExamples:\n" + indented(verb.examples);
  return out;
}

std::string exit_code_help() {
  std::string out = "Exit codes:\n";
  for (const ExitCode& entry : kExitCodes) {
    std::string line = "  " + std::to_string(entry.code);
    line.resize(7, ' ');
    out += line + std::string(entry.meaning) + "\n";
  }
  return out;
}

std::string reference_markdown() {
  std::string out =
      "# Command line\n\nGenerated by `lora help markdown`; a test keeps it equal to the "
      "program.\n\n"
      "`lora <verb> [arguments] [flags]`. stdout carries the answer, stderr everything else. With\n"
      "`--json` stdout is exactly one JSON document (docs/json.md), on failure too. Nothing is\n"
      "overwritten without `--force`.\n\n```text\n" +
      overview_help() + "```\n\n## Exit codes\n\n```text\n" + exit_code_help() + "```\n";
  for (const Verb& verb : all_verbs()) {
    const auto command = verb.make();
    GlobalOptions global;
    const OptionSet options = options_of(*command, global);
    out += "\n## " + std::string(verb.name) + "\n\n```text\n" + verb_help(verb, options) + "```\n";
  }
  return out;
}

std::string rules_markdown() {
  std::string out =
      "# Rules of lora verify\n\nGenerated by `lora help verify-rules`; a test keeps it equal to "
      "the "
      "program.\n\nAn id never changes its meaning. Groups: 1xx file, 2xx configuration, 3xx keys "
      "and\n"
      "shapes, 4xx numbers, 5xx identity of the base, 6xx outputs, 7xx merged checkpoints, 8xx\n"
      "security of the folder. An error gives exit code 1 (3 when the path is no adapter at all);\n"
      "warnings and notes do not change it. `--strict` makes warnings errors, `--require-proof`\n"
      "makes an unproven base one. `--select` and `--ignore` choose rules, `--baseline` accepts\n"
      "known findings (docs/ci.md).\n";
  for (const RuleInfo& rule : verify_rules())
    out += "\n## " + std::string(rule.id) + " " + std::string(rule.name) + "\n\n" +
           std::string(to_string(rule.severity)) + ". Looks at " + std::string(rule.looks_at) +
           ".\n\n" + std::string(rule.says) + "\n\nFix: " + std::string(rule.fix) + ".\n";
  return out;
}

std::string completion_script(const std::string& shell) {
  std::string verbs, cases;
  std::string fish;
  for (const Verb& verb : all_verbs()) {
    const auto command = verb.make();
    GlobalOptions global;
    const OptionSet options = options_of(*command, global);
    std::string flags = "--help";
    for (const OptionSpec& spec : options.specs()) {
      if (spec.arity == Arity::positional || spec.arity == Arity::rest || spec.is_hidden) continue;
      flags += " " + spec.label();
      fish += "complete -c lora -n '__fish_seen_subcommand_from " + std::string(verb.name) +
              "' -l " + spec.key() +
              (spec.arity == Arity::flag || spec.arity == Arity::optional ? "" : " -r") + "\n";
    }
    verbs += (verbs.empty() ? "" : " ") + std::string(verb.name);
    cases += "    " + std::string(verb.name) + ") flags='" + flags + "' ;;\n";
    fish = "complete -c lora -n __fish_use_subcommand -a " + std::string(verb.name) + " -d '" +
           std::string(verb.summary) + "'\n" + fish;
  }
  if (shell == "fish") return fish;
  const std::string function =
      "_lora() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" flags=''\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '" +
      verbs +
      " --help --version' -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${COMP_WORDS[1]}\" in\n" +
      cases +
      "  esac\n"
      "  case \"$word\" in\n"
      "    -*) COMPREPLY=($(compgen -W \"$flags\" -- \"$word\")) ;;\n"
      "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
      "  esac\n"
      "}\n"
      "complete -o filenames -F _lora lora\n";
  return shell == "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" + function : function;
}

}  // namespace lora::cli
