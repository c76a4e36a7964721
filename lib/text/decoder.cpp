#include "text/decoder.h"

#include "lora/base/error.h"
#include "text/component.h"
#include "text/decoder_steps.h"

namespace lora::text {

Decoder::Decoder(const Json& document, const std::string& context) {
  if (document.is_null()) {
    steps_.push_back(make_joining_decoder());
  } else {
    add(document, context);
  }
}

void Decoder::add(const Json& document, const std::string& context) {
  const Component part(document, "decoder", context);
  if (part.type() == "Sequence") {
    for (const Json& step : part.array("decoders")) add(step, context);
    return;
  }
  steps_.push_back(make_decoder_step(part, context));
  require_few_steps(steps_.size(), "decoder", context);
}

Decoding::Decoding(const Decoder& decoder) {
  for (auto step = decoder.steps_.rbegin(); step != decoder.steps_.rend(); ++step) {
    sinks_.push_back((*step)->start(*first_));
    first_ = sinks_.back().get();
  }
}

}  // namespace lora::text
