#include "text/pre_tokenizer.h"

#include <optional>
#include <utility>

#include "lora/base/error.h"
#include "text/component.h"
#include "text/regex.h"
#include "text/scanner.h"
#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

std::optional<Behavior> behavior_named(std::string_view name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  return std::nullopt;
}

struct Segment {
  std::size_t begin;
  std::size_t end;
  bool is_match;
};

// The reference's rules for what happens to matches. Takes segments that cover the text without
// holes, in order, and holds one back as long as the next may join it.
class Arrangement {
 public:
  Arrangement(std::string_view text, Behavior behavior, const PieceSink& sink)
      : text_(text), behavior_(behavior), sink_(sink) {}

  void add(const Segment& segment) {
    if (behavior_ == Behavior::removed && segment.is_match) return;
    if (joins(segment)) {
      held_.end = segment.end;
    } else {
      flush();
      held_ = segment;
      holds_ = true;
    }
    held_.is_match = segment.is_match;
  }

  void flush() {
    if (holds_ && held_.begin < held_.end)
      sink_(text_.substr(held_.begin, held_.end - held_.begin));
    holds_ = false;
  }

 private:
  bool joins(const Segment& segment) const {
    if (!holds_) return false;
    if (behavior_ == Behavior::merged_with_previous) return segment.is_match && !held_.is_match;
    if (behavior_ == Behavior::merged_with_next) return !segment.is_match && held_.is_match;
    return behavior_ == Behavior::contiguous && segment.is_match == held_.is_match;
  }

  std::string_view text_;
  Behavior behavior_;
  const PieceSink& sink_;
  Segment held_{};  // `is_match` of its last part
  bool holds_ = false;
};

class ScannerStep : public PreTokenStep {
 public:
  explicit ScannerStep(KnownPattern pattern) : scanner_(pattern) {}
  void split(std::string_view text, const PieceSink& sink) const override {
    for (std::size_t start = 0; start < text.size();) {
      const std::size_t end = scanner_.next(text, start);
      sink(text.substr(start, end - start));
      start = end;
    }
  }

 private:
  Scanner scanner_;
};

class RegexStep : public PreTokenStep {
 public:
  RegexStep(const std::string& expression, Behavior behavior, bool invert,
            const std::string& context)
      : regex_(expression, context), behavior_(behavior), invert_(invert) {}

  void split(std::string_view text, const PieceSink& sink) const override {
    Arrangement segments(text, behavior_, sink);
    std::size_t covered = 0;
    RegexMatch match;
    RegexSearch search(regex_, text);
    for (std::size_t from = 0; from <= text.size() && search.find(from, match);) {
      const bool is_empty = match.begin == match.end;
      // An empty match right after the previous match is no match of its own.
      if (!(is_empty && match.begin == covered && covered != 0)) {
        if (covered != match.begin) segments.add({covered, match.begin, invert_});
        segments.add({match.begin, match.end, !invert_});
        covered = match.end;
      }
      from = match.end;
      if (is_empty)
        from += from < text.size() ? utf8_length(static_cast<unsigned char>(text[from])) : 1;
    }
    if (covered != text.size()) segments.add({covered, text.size(), invert_});
    segments.flush();
  }

 private:
  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

class DigitsStep : public PreTokenStep {
 public:
  explicit DigitsStep(bool individual) : individual_(individual) {}
  void split(std::string_view text, const PieceSink& sink) const override {
    std::size_t start = 0;
    bool in_digits = false;
    std::size_t length = 0;
    for (std::size_t i = 0; i < text.size(); i += length) {
      const std::uint32_t code_point = utf8_at(text, i, length);
      const bool is_digit = code_point < 0x80 ? code_point >= '0' && code_point <= '9'
                                              : contains(numeric_ranges(), code_point);
      if (i > start && (is_digit != in_digits || (is_digit && individual_))) {
        sink(text.substr(start, i - start));
        start = i;
      }
      in_digits = is_digit;
    }
    if (start < text.size()) sink(text.substr(start));
  }

 private:
  bool individual_;
};

class PrefixSpaceStep : public PreTokenStep {
 public:
  void split(std::string_view text, const PieceSink& sink) const override {
    if (text.starts_with(' ')) {
      sink(text);
    } else {
      sink(" " + std::string(text));
    }
  }
};

}  // namespace

PreTokenizer::PreTokenizer(const Json& document, const std::string& context) {
  add(document, context);
  if (!has_byte_level_)
    throw unsupported_component("pre_tokenizer", "without a ByteLevel step", context);
}

void PreTokenizer::add(const Json& document, const std::string& context) {
  const Component part(document, "pre_tokenizer", context);
  if (part.type() == "Sequence") {
    for (const Json& step : part.array("pretokenizers")) add(step, context);
    return;
  }
  if (has_byte_level_)
    throw unsupported_component("pre_tokenizer", part.type() + " after ByteLevel", context);
  if (part.type() == "ByteLevel") {
    has_byte_level_ = true;
    if (part.boolean("add_prefix_space", true))
      steps_.push_back(std::make_unique<PrefixSpaceStep>());
    if (part.boolean("use_regex", true))
      steps_.push_back(std::make_unique<ScannerStep>(KnownPattern::gpt2));
  } else if (part.type() == "Digits") {
    steps_.push_back(std::make_unique<DigitsStep>(part.boolean("individual_digits", false)));
  } else if (part.type() == "Split") {
    const std::string name = part.string("behavior");
    const auto behavior = behavior_named(name);
    if (!behavior) throw unsupported_component("pre_tokenizer", "Split behavior " + name, context);
    const bool invert = part.boolean("invert", false);
    const std::string expression = part.pattern("pattern");
    const auto known = known_pattern(expression);
    // The known patterns leave no gaps, so keeping the gaps' inverse is the same as isolating.
    const bool keeps_matches =
        (*behavior == Behavior::isolated && !invert) || (*behavior == Behavior::removed && invert);
    if (known && keeps_matches) {
      steps_.push_back(std::make_unique<ScannerStep>(*known));
    } else {
      steps_.push_back(std::make_unique<RegexStep>(expression, *behavior, invert, context));
    }
  } else {
    throw unsupported_component("pre_tokenizer", part.type(), context);
  }
  require_few_steps(steps_.size(), "pre_tokenizer", context);
}

void PreTokenizer::run(std::size_t step, std::string_view text, const PieceSink& sink) const {
  if (step == steps_.size()) {
    sink(text);
    return;
  }
  if (step + 1 == steps_.size()) {
    steps_[step]->split(text, sink);
    return;
  }
  struct Rest {
    const PreTokenizer* self;
    std::size_t step;
    const PieceSink* sink;
  } rest{this, step + 1, &sink};
  steps_[step]->split(text, {&rest, [](void* context, std::string_view piece) {
                               const auto* next = static_cast<const Rest*>(context);
                               next->self->run(next->step, piece, *next->sink);
                             }});
}

}  // namespace lora::text
