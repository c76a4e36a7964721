// JSON: what is read and written in any style is read as the same value.
#include "fuzz.h"
#include "lora/format/json.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  Json value;
  if (!fuzz::accepts([&] { value = parse_json(fuzz::text_of(data, size), "input"); })) return 0;
  for (const JsonStyle& style : {kPythonConfigStyle, kCompactStyle, kPrettyStyle}) {
    const std::string text = dump_json(value, style);
    fuzz::require(parse_json(text, "output") == value, "a value survives writing", text);
  }
  return 0;
}
