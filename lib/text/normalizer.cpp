#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "lora/base/error.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// The longest normal form of a character is 18 times as long; steps that replace text by longer
// text could multiply each other.
void require_growth(std::size_t before, std::size_t after) {
  if (after > 4096 + 32 * before)
    throw Error(ErrorKind::unsupported, "cannot normalize text: " + std::to_string(before) +
                                            " bytes would become " + std::to_string(after) +
                                            " or more");
}

class UnicodeForm : public NormalizerStep {
 public:
  explicit UnicodeForm(int options) : options_(static_cast<utf8proc_option_t>(options)) {}

  std::string apply(std::string text) const override {
    if (std::all_of(text.begin(), text.end(),
                    [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
      return text;
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                     static_cast<utf8proc_option_t>(options_ | UTF8PROC_STABLE));
    if (size < 0)
      throw Error(ErrorKind::resources,
                  std::string("cannot normalize text: ") + utf8proc_errmsg(size));
    const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
    return {reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size)};
  }

 private:
  utf8proc_option_t options_;
};

class Lowercase : public NormalizerStep {
 public:
  std::string apply(std::string text) const override {
    std::string out;
    out.reserve(text.size());
    std::size_t length = 0;
    for (std::size_t i = 0; i < text.size(); i += length) {
      const std::uint32_t code_point = utf8_at(text, i, length);
      // The one character whose lower case is two: I with a dot above.
      if (code_point == 0x130) {
        out += "i\xCC\x87";
      } else {
        append_utf8(out, static_cast<std::uint32_t>(
                             utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
      }
    }
    return out;
  }
};

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text) const override {
    return text.empty() ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public NormalizerStep {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  std::string apply(std::string text) const override {
    std::string out;
    std::size_t covered = 0;
    for (std::size_t at = text.find(from_); at != std::string::npos;
         at = text.find(from_, covered)) {
      require_growth(text.size(), out.size() + at - covered + to_.size());
      out.append(text, covered, at - covered).append(to_);
      covered = at + from_.size();
    }
    return out.append(text, covered);
  }

 private:
  std::string from_;
  std::string to_;
};

}  // namespace

Normalizer::Normalizer(const Json& document, const std::string& context) {
  if (!document.is_null()) add(document, context);
}

void Normalizer::add(const Json& document, const std::string& context) {
  const Component part(document, "normalizer", context);
  const std::string& type = part.type();
  if (type == "Sequence") {
    for (const Json& step : part.array("normalizers")) add(step, context);
  } else if (type == "NFC") {
    steps_.push_back(std::make_unique<UnicodeForm>(UTF8PROC_COMPOSE));
  } else if (type == "NFD") {
    steps_.push_back(std::make_unique<UnicodeForm>(UTF8PROC_DECOMPOSE));
  } else if (type == "NFKC") {
    steps_.push_back(std::make_unique<UnicodeForm>(UTF8PROC_COMPOSE | UTF8PROC_COMPAT));
  } else if (type == "NFKD") {
    steps_.push_back(std::make_unique<UnicodeForm>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT));
  } else if (type == "Lowercase") {
    steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "Prepend") {
    steps_.push_back(std::make_unique<Prepend>(part.string("prepend")));
  } else if (type == "Replace") {
    const Json* from = part.member("pattern").find("String");
    if (from == nullptr || !from->is_string() || from->as_string()->empty())
      throw unsupported_component("normalizer", "Replace with a regular expression", context);
    steps_.push_back(std::make_unique<Replace>(*from->as_string(), part.string("content")));
  } else {
    throw unsupported_component("normalizer", type, context);
  }
  require_few_steps(steps_.size(), "normalizer", context);
}

std::string Normalizer::apply(std::string text) const {
  const std::size_t before = text.size();
  for (const auto& step : steps_) {
    text = step->apply(std::move(text));
    require_growth(before, text.size());
  }
  return text;
}

}  // namespace lora::text
