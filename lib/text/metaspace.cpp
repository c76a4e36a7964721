#include "text/metaspace.h"

namespace lora::text {

Metaspace::Metaspace(const Component& part, const std::string& context)
    : replacement(part.character("replacement")), splits(part.boolean("split", true)) {
  if (part.has("prepend_scheme")) {
    const std::string name = part.string("prepend_scheme");
    if (name == "first") {
      prepend = Prepend::first;
    } else if (name == "never") {
      prepend = Prepend::never;
    } else if (name != "always") {
      throw malformed_tokenizer(
          "Metaspace has prepend_scheme \"" + name + "\", expected always, first or never",
          context);
    }
  }
  // Files from before 0.15 say no more than this.
  if (!part.boolean("add_prefix_space", true)) prepend = Prepend::never;
}

}  // namespace lora::text
