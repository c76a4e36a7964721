// The grammar of tensor names takes anything apart, and a clean name stays as it is.
#include "fuzz.h"
#include "lora/adapter/keys.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  const ParsedKey key = parse_key(fuzz::text_of(data, size));
  const std::string clean = to_peft_key(key);
  to_base_name(key);
  const ParsedKey again = parse_key(clean);
  fuzz::require(to_peft_key(again) == clean, "a clean name stays as it is", clean);
  fuzz::require(again.wrappers.empty(), "a clean name has no wrappers", clean);
  return 0;
}
