// Chat templates: parsed and rendered for a short conversation.
#include "fuzz.h"
#include "lora/text/chat_template.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  fuzz::accepts([&] {
    const ChatTemplate parsed = ChatTemplate::parse(fuzz::text_of(data, size), "input");
    const Json messages(JsonArray{
        JsonObject{{"role", "system"}, {"content", "Be brief."}},
        JsonObject{{"role", "user"}, {"content", "Hi\nthere"}},
        JsonObject{{"role", "assistant"}, {"content", "Hello"}},
    });
    ChatOptions options;
    options.bos_token = "<s>";
    options.eos_token = "</s>";
    options.now = std::tm{6, 5, 4, 3, 1, 126, 2, 33, 0, 0, nullptr};
    const RenderedChat chat = parsed.render(messages, options);
    for (const TextRange& range : chat.generated)
      fuzz::require(range.begin <= range.end && range.end <= chat.text.size(),
                    "a generated range lies inside the text");
    assistant_ranges(parsed, messages, options, chat);
  });
  return 0;
}
