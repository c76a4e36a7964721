#include "text/pre_tokenizer.h"

#include <utility>

#include "lora/base/error.h"
#include "text/component.h"
#include "text/pre_token_steps.h"

namespace lora::text {

PreTokenizer::PreTokenizer(const Json& document, bool takes_bytes, const std::string& context) {
  if (!document.is_null()) add(document, context);
  if (takes_bytes && !steps_.empty() && is_byte_mapping(*steps_.back())) {
    steps_.pop_back();
    gives_bytes_ = true;
  }
}

void PreTokenizer::add(const Json& document, const std::string& context) {
  const Component part(document, "pre_tokenizer", context);
  if (part.type() == "Sequence") {
    for (const Json& step : part.array("pretokenizers")) add(step, context);
    return;
  }
  append_pre_token_steps(part, context, steps_);
  require_few_steps(steps_.size(), "pre_tokenizer", context);
}

bool PreTokenizer::cuts_before_blanks() const {
  bool is_made = false;
  for (const auto& step : steps_) {
    const PreTokenStep::Cut cut = step->cut_before_blank();
    if (cut == PreTokenStep::Cut::matters) return false;
    is_made = is_made || cut == PreTokenStep::Cut::is_made;
  }
  return is_made;
}

void PreTokenizer::run(std::size_t step, const Piece& piece, const PieceSink& sink) const {
  if (step == steps_.size()) {
    sink(piece);
    return;
  }
  if (step + 1 == steps_.size()) {
    steps_[step]->split(piece, sink);
    return;
  }
  struct Rest {
    const PreTokenizer* self;
    std::size_t step;
    const PieceSink* sink;
  } rest{this, step + 1, &sink};
  steps_[step]->split(piece, {&rest, [](void* context, const Piece& part) {
                                const auto* next = static_cast<const Rest*>(context);
                                next->self->run(next->step, part, *next->sink);
                              }});
}

}  // namespace lora::text
