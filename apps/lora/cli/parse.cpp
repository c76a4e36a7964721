#include "cli/parse.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "cli/suggest.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

bool is_flag_token(const std::string& token) { return token.size() > 1 && token[0] == '-'; }

std::string name_part(const std::string& token) { return token.substr(0, token.find('=')); }

const OptionSpec* spec_named(const OptionSet& options, const std::string& name) {
  for (const OptionSpec& spec : options.specs())
    if (std::find(spec.names.begin(), spec.names.end(), name) != spec.names.end()) return &spec;
  return nullptr;
}

Error unknown_flag(const std::string& token, const OptionSet& options) {
  std::vector<std::string> candidates;
  for (const OptionSpec& spec : options.specs())
    for (const std::string& name : spec.names)
      if (name.starts_with("--")) candidates.push_back(name);
  const std::string name = name_part(token);
  Error error(ErrorKind::usage, "unknown flag " + name);
  if (const auto close = closest(name, candidates)) {
    error.with_hint("did you mean " + *close + "?");
  } else {
    error.with_hint("--help lists the flags of this verb");
  }
  return error;
}

bool is_number(const std::string& token) {
  return token.size() > 1 && token[0] == '-' &&
         (std::isdigit(static_cast<unsigned char>(token[1])) || token[1] == '.');
}

using OptionalValues = std::map<const OptionSpec*, std::vector<std::string>>;

// One token for a flag and its value ("--rank=-5"), so that values may start with a dash and a flag
// without its value is noticed here. Flags nobody declared are refused. Flags whose value is
// optional are taken out: CLI11 would give them the next argument.
std::vector<std::string> join_values(const std::vector<std::string>& arguments,
                                     const OptionSet& options, OptionalValues& optional_values) {
  std::vector<std::string> joined;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& token = arguments[i];
    if (token == "--") {
      joined.insert(joined.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i),
                    arguments.end());
      break;
    }
    if (!is_flag_token(token) || is_number(token)) {
      joined.push_back(token);
      continue;
    }
    const bool is_long = token.starts_with("--");
    const OptionSpec* spec = spec_named(options, is_long ? name_part(token) : token.substr(0, 2));
    if (spec == nullptr) throw unknown_flag(token, options);
    const bool is_alone = is_long ? token.find('=') == std::string::npos : token.size() == 2;
    if (spec->arity == Arity::optional) {
      optional_values[spec].push_back(is_alone ? "" : token.substr(token.find('=') + 1));
    } else if (spec->arity != Arity::one && spec->arity != Arity::each) {
      joined.push_back(token);
    } else if (!is_alone) {
      joined.push_back(is_long ? token : spec->label() + "=" + token.substr(2));
    } else {
      const bool has_value =
          i + 1 < arguments.size() && spec_named(options, name_part(arguments[i + 1])) == nullptr;
      if (!has_value) throw Error(ErrorKind::usage, "flag " + spec->label() + " needs a value");
      joined.push_back((is_long ? token : spec->label()) + "=" + arguments[++i]);
    }
  }
  return joined;
}

struct Bound {
  const OptionSpec* spec;
  CLI::Option* option;
  std::vector<std::string> values;
};

}  // namespace

Request split_request(const std::vector<std::string>& arguments, const OptionSet& global) {
  Request request;
  std::size_t i = 0;
  for (; i < arguments.size() && is_flag_token(arguments[i]); ++i) {
    const std::string& token = arguments[i];
    if (token == "-h" || token == "--help") {
      request.wants_help = true;
      continue;
    }
    if (token == "-V" || token == "--version") {
      request.wants_version = true;
      continue;
    }
    request.arguments.push_back(token);
    const OptionSpec* spec = spec_named(global, name_part(token));
    const bool takes_value = spec != nullptr && spec->arity == Arity::one;
    if (takes_value && token.find('=') == std::string::npos && i + 1 < arguments.size())
      request.arguments.push_back(arguments[++i]);
  }
  if (i < arguments.size()) request.verb = arguments[i++];
  bool only_positionals = false;
  for (; i < arguments.size(); ++i) {
    const std::string& token = arguments[i];
    if (token == "--") only_positionals = true;
    if (!only_positionals && (token == "-h" || token == "--help")) {
      request.wants_help = true;
    } else {
      request.arguments.push_back(token);
    }
  }
  return request;
}

bool is_given(const OptionSpec& spec, const std::vector<std::string>& arguments) {
  for (const std::string& token : arguments) {
    if (token == "--") return false;
    for (const std::string& name : spec.names) {
      if (name_part(token) == name) return true;
      if (name.size() == 2 && token.size() > 2 && token[1] != '-' && token.starts_with(name))
        return true;
    }
  }
  return false;
}

void parse_options(const std::vector<std::string>& arguments, const OptionSet& options) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras(false);
  std::vector<Bound> bound(options.specs().size());
  for (std::size_t i = 0; i < bound.size(); ++i) {
    const OptionSpec& spec = options.specs()[i];
    bound[i].spec = &spec;
    std::string names;
    for (const std::string& name : spec.names) names += (names.empty() ? "" : ",") + name;
    switch (spec.arity) {
      case Arity::flag:
      case Arity::optional:
        bound[i].option = app.add_flag(names);
        break;
      case Arity::one:
        bound[i].option = app.add_option(names, bound[i].values)
                              ->expected(1)
                              ->allow_extra_args(false)
                              ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        break;
      case Arity::each:
        bound[i].option = app.add_option(names, bound[i].values)
                              ->expected(1)
                              ->allow_extra_args(false)
                              ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        break;
      case Arity::many:
        bound[i].option = app.add_option(names, bound[i].values)->expected(1, 1 << 20);
        break;
      case Arity::positional:
        bound[i].option =
            app.add_option(spec.metavar, bound[i].values)->expected(1)->allow_extra_args(false);
        break;
      case Arity::rest:
        bound[i].option = app.add_option(spec.metavar, bound[i].values)->expected(1, 1 << 20);
        break;
    }
  }
  OptionalValues optional_values;
  std::vector<std::string> joined = join_values(arguments, options, optional_values);
  std::reverse(joined.begin(), joined.end());  // as CLI11 wants them
  try {
    app.parse(joined);
  } catch (const CLI::ExtrasError&) {
    std::string extra;
    for (const std::string& token : app.remaining(true))
      if (extra.empty()) extra = token;
    if (is_flag_token(extra)) throw unknown_flag(extra, options);
    throw Error(ErrorKind::usage, "superfluous argument \"" + extra + "\"")
        .with_hint("--help shows what this verb takes");
  } catch (const CLI::ParseError&) {
    // The one case left: a flag at the end of its arguments that has no value.
    for (const Bound& entry : bound)
      if (entry.spec->arity != Arity::flag && entry.spec->arity != Arity::optional &&
          is_given(*entry.spec, arguments) && entry.values.empty())
        throw Error(ErrorKind::usage, "flag " + entry.spec->label() + " needs a value");
    throw Error(ErrorKind::usage, "cannot make sense of these arguments")
        .with_hint("--help shows what this verb takes");
  }
  std::string missing;
  for (Bound& entry : bound) {
    if (entry.spec->arity == Arity::optional) {
      entry.values = optional_values[entry.spec];
    } else if (entry.spec->arity == Arity::flag) {
      entry.values.assign(entry.option->count(), "");
    } else if (entry.spec->arity == Arity::one && entry.option->count() > 0 &&
               entry.values.empty()) {
      throw Error(ErrorKind::usage, "flag " + entry.spec->label() + " needs a value");
    }
    if (!entry.values.empty()) {
      entry.spec->assign(entry.values);
    } else if (entry.spec->is_required) {
      missing += (missing.empty() ? "" : ", ") + entry.spec->label();
    }
  }
  if (!missing.empty())
    throw Error(ErrorKind::usage, "missing " + missing)
        .with_hint("--help shows what this verb takes");
}

}  // namespace lora::cli
