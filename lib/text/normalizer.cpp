#include "text/normalizer.h"

#include <string_view>
#include <utility>

#include "lora/base/error.h"
#include "text/byte_alphabet.h"
#include "text/character_steps.h"
#include "text/charsmap.h"
#include "text/component.h"
#include "text/normal_forms.h"
#include "text/replacement.h"

namespace lora::text {
namespace {

class Form : public NormalizerStep {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  void apply(NormalText& normal) const override { apply_form(normal, form_); }

 private:
  NormalForm form_;
};

class Lowercase : public NormalizerStep {
 public:
  void apply(NormalText& normal) const override { apply_lower_case(normal); }
};

class ByteLevel : public NormalizerStep {
 public:
  void apply(NormalText& normal) const override {
    normal.start = spelling_of_bytes(std::string_view(normal.text).substr(0, normal.start)).size();
    normal.text = spelling_of_bytes(normal.text);
  }
};

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(NormalText& normal) const override {
    if (normal.text.empty()) return;
    normal.text.insert(0, prefix_);
    if (normal.start > 0) normal.start += prefix_.size();
  }

 private:
  std::string prefix_;
};

class Replace : public NormalizerStep {
 public:
  explicit Replace(Replacement replacement) : replacement_(std::move(replacement)) {}
  void apply(NormalText& normal) const override {
    Replacement::Result result = replacement_.apply(normal.text, normal.start);
    normal.text = std::move(result.text);
    normal.start = result.start;
  }

 private:
  Replacement replacement_;
};

std::unique_ptr<NormalizerStep> make_step(const Component& part, const std::string& context) {
  const std::string& type = part.type();
  if (type == "NFC") return std::make_unique<Form>(NormalForm::nfc);
  if (type == "NFD") return std::make_unique<Form>(NormalForm::nfd);
  if (type == "NFKC") return std::make_unique<Form>(NormalForm::nfkc);
  if (type == "NFKD") return std::make_unique<Form>(NormalForm::nfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Prepend") return std::make_unique<Prepend>(part.string("prepend"));
  if (type == "Replace") return std::make_unique<Replace>(Replacement(part, context));
  if (type == "Strip") return make_strip(part);
  if (type == "StripAccents") return make_strip_accents();
  if (type == "Nmt") return make_nmt();
  if (type == "BertNormalizer") return make_bert_normalizer(part);
  if (type == "Precompiled") return std::make_unique<Charsmap>(part, context);
  throw unsupported_component("normalizer", type, context);
}

}  // namespace

void require_growth(std::size_t before, std::size_t after) {
  if (after > 4096 + 32 * before)
    throw Error(ErrorKind::unsupported, "cannot normalize text: " + std::to_string(before) +
                                            " bytes would become " + std::to_string(after) +
                                            " or more");
}

Normalizer::Normalizer(const Json& document, const std::string& context) {
  if (!document.is_null()) add(document, context);
}

void Normalizer::add(const Json& document, const std::string& context) {
  const Component part(document, "normalizer", context);
  if (part.type() == "Sequence") {
    for (const Json& step : part.array("normalizers")) add(step, context);
    return;
  }
  steps_.push_back(make_step(part, context));
  require_few_steps(steps_.size(), "normalizer", context);
}

void Normalizer::apply(NormalText& normal) const {
  const std::size_t before = normal.text.size();
  for (const auto& step : steps_) {
    step->apply(normal);
    require_growth(before, normal.text.size());
  }
}

std::string Normalizer::apply(std::string text) const {
  NormalText normal{std::move(text)};
  apply(normal);
  return std::move(normal.text);
}

}  // namespace lora::text
