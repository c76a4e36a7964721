// Settings files: what is read becomes arguments of known flags.
#include "cli/parse.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put("settings.toml", fuzz::text_of(data, size));
  bool force = false;
  std::string output;
  std::int64_t rank = 8;
  std::vector<std::string> targets;
  cli::OptionSet options;
  options.flag("-f,--force", force, "");
  options.text("-o,--output", output, "DIR", "");
  options.integer("-r,--rank", rank, 1, "");
  options.many("--target-modules", targets, "NAME", "");
  fuzz::accepts([&] {
    const auto arguments = cli::settings_arguments(path.string(), "train", {}, options);
    cli::parse_options(arguments, options);
    fuzz::require(rank >= 1, "a value is in its range");
  });
  return 0;
}
