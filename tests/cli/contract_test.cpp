// The rules of docs/cli.md that hold for every verb.
#include "cli/exit_codes.h"
#include "cli/verb.h"
#include "support/command_line.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("no verb shows the overview and is a usage error") {
  const CommandResult result = lora::testing::lora({});
  REQUIRE(result.code == 2);
  REQUIRE(result.out.empty());
  REQUIRE(contains(result.err, "Usage: lora <verb>"));
}

TEST_CASE("an unknown verb suggests the closest one") {
  const CommandResult result = lora::testing::lora({"verfy"});
  REQUIRE(result.code == 2);
  REQUIRE(result.err == "lora: error: unknown verb \"verfy\"\nhint: did you mean lora verify?\n");
}

TEST_CASE("an unknown flag suggests the closest one, for every verb") {
  for (const cli::Verb& verb : cli::all_verbs()) {
    const CommandResult result = lora::testing::lora({std::string(verb.name), "--thraeds", "2"});
    INFO(verb.name << ": " << result.err);
    REQUIRE(result.code == 2);
    REQUIRE(contains(result.err, "unknown flag --thraeds"));
    REQUIRE(contains(result.err, "did you mean --threads?"));
  }
}

TEST_CASE("a missing argument is named") {
  const CommandResult result = lora::testing::lora({"save", "x.pth"});
  REQUIRE(result.code == 2);
  REQUIRE(contains(result.err, "missing --output"));
}

TEST_CASE("a flag without its value is named") {
  const CommandResult result = lora::testing::lora({"inspect", "x", "--adapter-config"});
  REQUIRE(result.code == 2);
  REQUIRE(contains(result.err, "flag --adapter-config needs a value"));
}

TEST_CASE("superfluous arguments are refused") {
  const CommandResult result = lora::testing::lora({"diff", "a", "b", "c"});
  REQUIRE(result.code == 2);
  REQUIRE(contains(result.err, "superfluous argument \"c\""));
}

TEST_CASE("bad values name flag, value and expectation") {
  const auto message = [](std::vector<std::string> arguments) {
    const CommandResult result = lora::testing::lora(arguments);
    REQUIRE(result.code == 2);
    return result.err;
  };
  REQUIRE(contains(message({"init-base", "--preset", "mlp", "-o", "x", "--dtype", "f23"}),
                   "cannot use \"f23\" for --dtype, expected one of f32, bf16, f16, f64"));
  REQUIRE(contains(message({"init-base", "-o", "x", "--seed", "-1"}), "for --seed"));
  REQUIRE(contains(message({"init-base", "-o", "x", "--max-shard-size", "5XB"}),
                   "cannot use \"5XB\" for --max-shard-size, expected a size"));
  REQUIRE(contains(message({"train", "--run-dir", "x", "--rank", "3.5"}),
                   "cannot use \"3.5\" for --rank, expected an integer of at least 1"));
  REQUIRE(contains(message({"train", "--run-dir", "x", "--lr", "nan"}), "for --lr"));
  REQUIRE(contains(message({"train", "--run-dir", "x", "--rank", "99999999999999999999"}),
                   "for --rank"));
}

TEST_CASE("with --json a failure is exactly one document on stdout") {
  CommandResult result = lora::testing::lora({"inspect", "/does/not/exist", "--json"});
  REQUIRE(result.code == 3);
  const Json document = result.document();
  REQUIRE(*document.find("schema")->as_string() == "lora.inspect/1");
  REQUIRE(document.find("error")->find("exit_code")->as_int() == 3);
  REQUIRE(*document.find("error")->find("kind")->as_string() == "not_found");
  REQUIRE(!document.find("error")->find("message")->as_string()->empty());
  REQUIRE(contains(result.err, "lora inspect: error:"));
}

TEST_CASE("with --json usage errors are documents too") {
  const CommandResult unknown = lora::testing::lora({"--json", "nonsense"});
  REQUIRE(unknown.code == 2);
  REQUIRE(*unknown.document().find("error")->find("kind")->as_string() == "usage");
  const CommandResult none = lora::testing::lora({"--json"});
  REQUIRE(none.code == 2);
  REQUIRE(none.document().find("error")->find("exit_code")->as_int() == 2);
}

TEST_CASE("global flags mean the same before and after the verb") {
  const CommandResult before =
      lora::testing::lora({"--json", "--threads", "1", "inspect", "/none"});
  const CommandResult after = lora::testing::lora({"inspect", "/none", "--threads", "1", "--json"});
  REQUIRE(before.code == after.code);
  REQUIRE(before.out == after.out);
}

TEST_CASE("every verb has help with usage, description and example") {
  for (const cli::Verb& verb : cli::all_verbs()) {
    const CommandResult result = lora::testing::lora({std::string(verb.name), "--help"});
    REQUIRE(result.code == 0);
    REQUIRE(contains(result.out, "Usage: lora " + std::string(verb.name)));
    REQUIRE(contains(result.out, "Examples:"));
    REQUIRE(contains(result.out, "--json"));
    REQUIRE(lora::testing::lora({"help", std::string(verb.name)}).out == result.out);
  }
}

TEST_CASE("the exit code topic and the mapping come from one array") {
  const CommandResult result = lora::testing::lora({"help", "exit-codes"});
  for (const cli::ExitCode& entry : cli::kExitCodes)
    REQUIRE(contains(result.out, std::string(entry.meaning)));
  REQUIRE(cli::exit_code_of(ErrorKind::usage) == 2);
  REQUIRE(cli::exit_code_of(ErrorKind::not_found) == 3);
  REQUIRE(cli::exit_code_of(ErrorKind::malformed) == 3);
  REQUIRE(cli::exit_code_of(ErrorKind::unsupported) == 3);
  REQUIRE(cli::exit_code_of(ErrorKind::incompatible) == 4);
  REQUIRE(cli::exit_code_of(ErrorKind::output) == 5);
  REQUIRE(cli::exit_code_of(ErrorKind::resources) == 6);
  REQUIRE(cli::exit_code_of(ErrorKind::interrupted) == 130);
  REQUIRE(cli::exit_code_of(ErrorKind::internal) == 70);
}

TEST_CASE("docs/cli.md is what the program generates") {
  const std::string generated = lora_ok({"help", "markdown"}).out;
  REQUIRE(read_file(LORA_SOURCE_DIR "/docs/cli.md") == generated);
}

TEST_CASE("docs/verify-rules.md is what the program generates") {
  REQUIRE(read_file(LORA_SOURCE_DIR "/docs/verify-rules.md") ==
          lora_ok({"help", "verify-rules"}).out);
}

TEST_CASE("completion scripts know the verbs and their flags") {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const CommandResult result = lora_ok({"completion", shell});
    REQUIRE(contains(result.out, "init-base"));
    REQUIRE(contains(result.out, "target-modules"));
  }
  REQUIRE(lora::testing::lora({"completion", "tcsh"}).code == 2);
}

TEST_CASE("names from files cannot drive a terminal") {
  const CommandResult result = lora::testing::lora({"inspect", "/tmp/\033[31mred"});
  REQUIRE(result.code == 3);
  REQUIRE(!contains(result.err, "\033"));
  REQUIRE(contains(result.err, "\\x1b[31mred"));
}

TEST_CASE("a settings file fills flags that were not given, and knows its keys") {
  TempDir directory;
  const auto settings = (directory / "settings.toml").string();
  write_file(settings,
             "# defaults\nseed = 7\n[init-base]\npreset = \"mlp\"\nhidden_sizes = [4, 3, 2]\n");
  CommandResult filled =
      lora_ok({"init-base", "--settings", settings, "-o", (directory / "base").string(), "--json"});
  REQUIRE(filled.result().find("parameters")->as_int() == 4 * 3 + 3 + 3 * 2 + 2);
  CommandResult overridden = lora_ok({"init-base", "--settings", settings, "--hidden-sizes", "2,2",
                                      "-o", (directory / "other").string(), "--json"});
  REQUIRE(overridden.result().find("parameters")->as_int() == 2 * 2 + 2);

  write_file(settings, "presset = \"mlp\"\n");
  const CommandResult unknown =
      lora::testing::lora({"init-base", "--settings", settings, "-o", (directory / "x").string()});
  REQUIRE(unknown.code == 2);
  REQUIRE(contains(unknown.err, "line 1: unknown key presset"));
  REQUIRE(contains(unknown.err, "did you mean preset?"));

  write_file(settings, "preset = mlp\n");
  REQUIRE(contains(lora::testing::lora({"init-base", "--settings", settings, "-o", "x"}).err,
                   "expected a number, true, false or a quoted string"));
}

TEST_CASE("a settings file of more than a mebibyte is refused") {
  TempDir directory;
  const auto settings = (directory / "settings.toml").string();
  const std::string line = "seed = 1\n";
  std::string text;
  while (text.size() + line.size() <= (std::size_t{1} << 20)) text += line;
  write_file(settings, text);
  lora_ok({"init-base", "--preset", "mlp", "--settings", settings, "-o",
           (directory / "base").string()});
  write_file(settings, text + line);
  const CommandResult result =
      lora::testing::lora({"init-base", "--preset", "mlp", "--settings", settings, "-o", "x"});
  REQUIRE(result.code == 2);
  REQUIRE(contains(result.err, "expected at most 1048576"));
}

TEST_CASE("a bad LORA_THREADS or LORA_LOG is a usage error that names it") {
  TempDir directory;
  REQUIRE(lora::testing::lora({"init-base", "--preset", "mlp", "-o", (directory / "b").string()},
                              {{"LORA_THREADS", "many"}})
              .code == 2);
  const CommandResult result = lora::testing::lora({"inspect", "/none"}, {{"LORA_LOG", "loud"}});
  REQUIRE(result.code == 2);
  REQUIRE(contains(result.err, "LORA_LOG"));
}

TEST_CASE("colour follows flag, environment and terminal in that order") {
  const auto colours = [](std::vector<std::string> flags, std::map<std::string, std::string> env) {
    std::vector<std::string> arguments{"inspect", "/none"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return contains(lora::testing::lora(arguments, std::move(env)).err, "\033[");
  };
  REQUIRE(!colours({}, {}));
  REQUIRE(colours({}, {{"CLICOLOR_FORCE", "1"}}));
  REQUIRE(!colours({}, {{"CLICOLOR_FORCE", "1"}, {"NO_COLOR", "1"}}));
  REQUIRE(colours({"--color", "always"}, {{"NO_COLOR", "1"}}));
  REQUIRE(!colours({"--color=never"}, {{"CLICOLOR_FORCE", "1"}}));
}

TEST_CASE("an answer that cannot be written is an error, not success") {
  TempDir directory;
  const auto base = (directory / "base").string();
  lora_ok({"init-base", "--preset", "mlp", "-o", base});
  std::ofstream full("/dev/full");
  std::ostringstream err;
  const cli::Streams streams{full, err};
  REQUIRE(cli::run({"inspect", base}, streams) == 5);
  REQUIRE(contains(err.str(), "cannot write standard output"));
}

TEST_CASE("init-base takes exactly one source") {
  REQUIRE(contains(lora::testing::lora({"init-base", "-o", "x"}).err, "found none"));
  REQUIRE(
      contains(lora::testing::lora({"init-base", "-o", "x", "--preset", "mlp", "--from", "y"}).err,
               "found several"));
}

TEST_CASE("verbs that need the engine say which file is missing") {
  TempDir directory;
  const auto base = (directory / "base").string();
  lora_ok({"init-base", "--preset", "mlp", "-o", base});
  write_file(directory / "data.jsonl", "{\"input_ids\":[1,2]}\n");
  const CommandResult result =
      lora::testing::lora({"train", "--base", base, "--data", (directory / "data.jsonl").string(),
                           "--run-dir", (directory / "run").string(), "--target-modules", "fc1"},
                          {{"LORA_ENGINE", "/missing/liblora_engine.so"}});
  REQUIRE(result.code == 6);
  REQUIRE(contains(result.err, "/missing/liblora_engine.so"));
  REQUIRE(contains(result.err, "hint:"));
  REQUIRE(!std::filesystem::exists(directory / "run"));
}
