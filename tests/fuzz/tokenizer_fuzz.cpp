// tokenizer.json: a tokenizer that loads encodes and decodes any text.
#include "fuzz.h"
#include "lora/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put("tokenizer.json", fuzz::text_of(data, size));
  fuzz::accepts([&] {
    const Tokenizer tokenizer = Tokenizer::from_file(path);
    const std::string_view text = "Hello world's <|endoftext|> \u00e9\u4e2d\n\n 123 a  b";
    const auto ids = tokenizer.encode(text);
    for (const TokenId id : ids)
      fuzz::require(tokenizer.id_to_token(id).has_value(), "an id is one of a token",
                    std::to_string(id));
    TokenStream stream(tokenizer);
    std::string streamed;
    for (const TokenId id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    fuzz::require(streamed == tokenizer.decode(ids), "a stream of tokens gives the text");
  });
  return 0;
}
