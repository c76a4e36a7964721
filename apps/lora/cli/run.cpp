#include "cli/run.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <new>

#include "cli/console.h"
#include "cli/context.h"
#include "cli/envelope.h"
#include "cli/help.h"
#include "cli/log.h"
#include "cli/parse.h"
#include "cli/suggest.h"
#include "cli/verb.h"
#include "cli/version.h"

namespace lora::cli {
namespace {

Error unknown_verb(const std::string& name) {
  std::vector<std::string> names{"help", "completion"};
  for (const Verb& verb : all_verbs()) names.emplace_back(verb.name);
  Error error(ErrorKind::usage, "unknown verb \"" + name + "\"");
  const auto close = closest(name, names);
  error.with_hint(close ? "did you mean lora " + *close + "?" : "lora --help lists the verbs");
  return error;
}

// --json decides the shape of the answer even when nothing else can be parsed.
bool asks_for_json(const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [](const std::string& token) {
                       return token == "--json" || token == "--format=json";
                     }) ||
         std::adjacent_find(arguments.begin(), arguments.end(),
                            [](const std::string& a, const std::string& b) {
                              return a == "--format" && b == "json";
                            }) != arguments.end();
}

LogLevel log_level(const GlobalOptions& global, const Streams& streams) {
  if (global.verbosity >= 2) return LogLevel::debug;
  if (global.verbosity == 1) return LogLevel::info;
  const std::string level = streams.environment("LORA_LOG").value_or("warning");
  if (level == "debug") return LogLevel::debug;
  if (level == "info") return LogLevel::info;
  if (level != "warning")
    throw Error(ErrorKind::usage,
                "cannot use \"" + level + "\" for LORA_LOG, expected debug, info or warning");
  return LogLevel::warning;
}

void answer_help(const Request& request, const Streams& streams) {
  const bool is_help_verb = request.verb == "help";
  const std::string topic =
      is_help_verb ? (request.arguments.empty() ? "" : request.arguments.front()) : request.verb;
  if (topic.empty() || topic == "help") {
    streams.out << overview_help();
  } else if (topic == "exit-codes") {
    streams.out << exit_code_help();
  } else if (topic == "markdown") {
    streams.out << reference_markdown();
  } else if (topic == "verify-rules") {
    streams.out << rules_markdown();
  } else if (const Verb* verb = find_verb(topic)) {
    const auto command = verb->make();
    GlobalOptions global;
    OptionSet options;
    command->add_options(options);
    global.add_to(options);
    streams.out << verb_help(*verb, options);
  } else {
    throw unknown_verb(topic);
  }
}

void answer_completion(const Request& request, const Streams& streams) {
  const std::string shell = request.arguments.empty() ? "" : request.arguments.front();
  if (shell != "bash" && shell != "zsh" && shell != "fish")
    throw Error(ErrorKind::usage,
                "cannot make completions for \"" + shell + "\", expected bash, zsh or fish")
        .with_hint("source <(lora completion bash)");
  streams.out << completion_script(shell);
}

Outcome run_verb(const Verb& verb, const Request& request, const Streams& streams,
                 Console& console) {
  const auto command = verb.make();
  GlobalOptions global;
  OptionSet options;
  command->add_options(options);
  global.add_to(options);
  std::vector<std::string> arguments = request.arguments;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool separate = arguments[i] == "--settings" && i + 1 < arguments.size();
    if (!separate && !arguments[i].starts_with("--settings=")) continue;
    const std::string path = separate ? arguments[i + 1] : arguments[i].substr(11);
    const auto added = settings_arguments(path, request.verb, arguments, options);
    arguments.insert(arguments.begin(), added.begin(), added.end());
    break;
  }
  parse_options(arguments, options);
  console.configure({asks_for_json(arguments), global.quiet, global.color});
  const auto log = make_log(console, log_level(global, streams), global.log_json);
  Context context{streams, global, console, Sinks{log.get(), nullptr, streams.cancel}, {}};
  for (const OptionSpec& spec : options.specs())
    if (is_given(spec, arguments)) context.given.push_back(spec.key());
  return command->run(context);
}

Error from_current_exception() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorKind::resources, "out of memory");
  } catch (const std::exception& other) {
    return Error(ErrorKind::internal, std::string("internal error: ") + other.what())
        .with_hint("this is a bug in lora: please report the command line and `lora -V -v`");
  }
}

}  // namespace

int run(const std::vector<std::string>& arguments, const Streams& streams) {
  OptionSet global_options;
  GlobalOptions global_targets;
  global_targets.add_to(global_options);
  const Request request = split_request(arguments, global_options);
  const bool json = asks_for_json(arguments);
  const Verb* verb = find_verb(request.verb);
  Console console(streams, verb ? request.verb : "");
  console.configure({json, false, "auto"});
  int code = kDone;
  try {
    if (request.wants_version) {
      const bool detailed =
          std::find(arguments.begin(), arguments.end(), "-v") != arguments.end() ||
          std::find(arguments.begin(), arguments.end(), "--verbose") != arguments.end();
      streams.out << version_text(detailed, json, streams);
    } else if (request.wants_help || request.verb == "help") {
      answer_help(request, streams);
    } else if (request.verb == "completion") {
      answer_completion(request, streams);
    } else if (request.verb.empty()) {
      if (json) throw Error(ErrorKind::usage, "no verb given");
      streams.err << overview_help();
      code = kUsage;
    } else if (verb == nullptr) {
      throw unknown_verb(request.verb);
    } else {
      const Outcome outcome = run_verb(*verb, request, streams, console);
      if (console.is_json()) streams.out << envelope(request.verb, outcome, nullptr);
      code = outcome.exit_code;
    }
  } catch (...) {
    const Error error = from_current_exception();
    if (json) streams.out << envelope(verb ? request.verb : "", {}, &error);
    console.error(error);
    code = exit_code_of(error.kind());
  }
  errno = 0;
  streams.out.flush();
  // A reader that has gone away (a closed pipe) asked for no more; anything else is a lost answer.
  if (!streams.out && errno != EPIPE) {
    console.error(
        Error(ErrorKind::output, std::string("cannot write standard output: ") +
                                     (errno ? std::strerror(errno) : "the stream failed")));
    code = kOutput;
  }
  streams.err.flush();
  return code;
}

}  // namespace lora::cli
