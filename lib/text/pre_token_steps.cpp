#include "text/pre_token_steps.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "lora/base/error.h"
#include "text/byte_alphabet.h"
#include "text/metaspace.h"
#include "text/regex.h"
#include "text/scanner.h"
#include "text/segment_arrangement.h"
#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

class ScannerStep : public PreTokenStep {
 public:
  explicit ScannerStep(KnownPattern pattern) : scanner_(pattern) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    for (std::size_t start = 0; start < piece.text.size();) {
      const std::size_t end = scanner_.next(piece.text, start);
      sink(piece.part(start, end));
      start = end;
    }
  }
  // In no known pattern a piece goes on from a letter to a blank, or looks back.
  Cut cut_before_blank() const override { return Cut::is_made; }

 private:
  Scanner scanner_;
};

class RegexStep : public PreTokenStep {
 public:
  RegexStep(const std::string& expression, Behavior behavior, bool invert,
            const std::string& context)
      : regex_(expression, context), behavior_(behavior), invert_(invert) {}

  void split(const Piece& piece, const PieceSink& sink) const override {
    Arrangement segments(piece, behavior_, sink);
    each_segment(regex_, piece.text, [&](const Segment& segment) {
      segments.add({segment.begin, segment.end, segment.is_match != invert_});
    });
    segments.flush();
  }

 private:
  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

class DigitsStep : public PreTokenStep {
 public:
  explicit DigitsStep(bool individual)
      : behavior_(individual ? Behavior::isolated : Behavior::contiguous) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    split_at_characters(piece, behavior_, sink, [](std::uint32_t c) {
      return c < 0x80 ? c >= '0' && c <= '9' : contains(numeric_ranges(), c);
    });
  }
  Cut cut_before_blank() const override { return Cut::passes; }

 private:
  Behavior behavior_;
};

class PunctuationStep : public PreTokenStep {
 public:
  explicit PunctuationStep(Behavior behavior) : behavior_(behavior) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    split_at_characters(piece, behavior_, sink, is_punctuation);
  }

 private:
  static bool is_punctuation(std::uint32_t c) {
    if (c >= 0x80) return contains(punctuation_ranges(), c);
    return c > 0x20 && c < 0x7F && !(c >= '0' && c <= '9') &&
           !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  }
  Behavior behavior_;
};

class WhiteSpaceStep : public PreTokenStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    split_at_characters(piece, Behavior::removed, sink, is_white_space);
  }
};

// Runs of word characters and runs of others, without the white space between them.
class WordStep : public PreTokenStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    enum Class { word, other, space };
    const auto class_of = [](std::uint32_t c) {
      if (is_white_space(c)) return space;
      return contains(word_ranges(), c) ? word : other;
    };
    Class current = space;
    std::size_t begin = 0;
    std::size_t length = 0;
    for (std::size_t i = 0; i <= piece.text.size(); i += length) {
      length = 1;
      const bool is_end = i == piece.text.size();
      const Class next = is_end ? space : class_of(utf8_at(piece.text, i, length));
      if (next == current && !is_end) continue;
      if (current != space) sink(piece.part(begin, i));
      current = next;
      begin = i;
    }
  }
};

class CharacterStep : public PreTokenStep {
 public:
  explicit CharacterStep(std::uint32_t delimiter) : delimiter_(delimiter) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    split_at_characters(piece, Behavior::removed, sink,
                        [&](std::uint32_t c) { return c == delimiter_; });
  }

 private:
  std::uint32_t delimiter_;
};

class FixedLengthStep : public PreTokenStep {
 public:
  explicit FixedLengthStep(std::size_t length) : length_(length) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    std::size_t end = 0;
    for (std::size_t begin = 0; begin < piece.text.size(); begin = end) {
      for (std::size_t count = 0; count < length_ && end < piece.text.size(); ++count)
        end += utf8_length(static_cast<unsigned char>(piece.text[end]));
      sink(piece.part(begin, end));
    }
  }

 private:
  std::size_t length_;
};

class PrefixSpaceStep : public PreTokenStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    if (piece.text.starts_with(' ')) {
      sink(piece);
    } else {
      const std::string text = " " + std::string(piece.text);
      sink({text, piece.start > 0 ? piece.start + 1 : 0});
    }
  }
};

class ByteMappingStep : public PreTokenStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    const std::string text = spelling_of_bytes(piece.text);
    sink({text, spelling_of_bytes(piece.text.substr(0, piece.start)).size()});
  }
  Cut cut_before_blank() const override { return Cut::passes; }
};

class MetaspaceStep : public PreTokenStep {
 public:
  explicit MetaspaceStep(Metaspace settings) : settings_(std::move(settings)) {
    std::size_t length = 0;
    replacement_ = utf8_at(settings_.replacement, 0, length);
  }

  void split(const Piece& piece, const PieceSink& sink) const override {
    const std::string_view source = piece.text;
    const bool prepends = settings_.prepend == Metaspace::Prepend::always ||
                          (settings_.prepend == Metaspace::Prepend::first && piece.start > 0);
    std::string text;
    text.reserve(source.size() + source.size() / 2 + settings_.replacement.size());
    if (prepends && !source.starts_with(' ') && !source.starts_with(settings_.replacement))
      text = settings_.replacement;
    std::size_t start = 0;
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == ' ') {
        text += settings_.replacement;
      } else {
        text += source[i];
      }
      if (i < piece.start) start = text.size();
    }
    const Piece marked{text, start};
    if (settings_.splits) {
      split_at_characters(marked, Behavior::merged_with_next, sink,
                          [&](std::uint32_t c) { return c == replacement_; });
    } else {
      sink(marked);
    }
  }

 private:
  Metaspace settings_;
  std::uint32_t replacement_;
};

Behavior behavior_of(const Component& part, const std::string& context) {
  const std::string name = part.string("behavior");
  const auto behavior = behavior_named(name);
  if (!behavior)
    throw unsupported_component("pre_tokenizer", part.type() + " behavior " + name, context);
  return *behavior;
}

std::unique_ptr<PreTokenStep> make_split(const Component& part, const std::string& context) {
  const Behavior behavior = behavior_of(part, context);
  const bool invert = part.boolean("invert", false);
  const std::string expression = part.pattern("pattern");
  const auto known = known_pattern(expression);
  // The known patterns leave no gaps, so keeping the gaps' inverse is the same as isolating.
  const bool keeps_matches =
      (behavior == Behavior::isolated && !invert) || (behavior == Behavior::removed && invert);
  if (known && keeps_matches) return std::make_unique<ScannerStep>(*known);
  return std::make_unique<RegexStep>(expression, behavior, invert, context);
}

std::unique_ptr<PreTokenStep> make_fixed_length(const Component& part, const std::string& context) {
  const std::size_t length = part.has("length") ? part.count("length") : 5;
  if (length == 0)
    throw malformed_tokenizer("pre_tokenizer FixedLength has length 0, expected at least 1",
                              context);
  return std::make_unique<FixedLengthStep>(length);
}

std::uint32_t delimiter_of(const Component& part) {
  std::size_t length = 0;
  return utf8_at(part.character("delimiter"), 0, length);
}

}  // namespace

void append_pre_token_steps(const Component& part, const std::string& context,
                            std::vector<std::unique_ptr<PreTokenStep>>& steps) {
  const std::string& type = part.type();
  if (type == "ByteLevel") {
    if (part.boolean("add_prefix_space", true))
      steps.push_back(std::make_unique<PrefixSpaceStep>());
    if (part.boolean("use_regex", true))
      steps.push_back(std::make_unique<ScannerStep>(KnownPattern::gpt2));
    steps.push_back(std::make_unique<ByteMappingStep>());
  } else if (type == "BertPreTokenizer") {
    steps.push_back(std::make_unique<WhiteSpaceStep>());
    steps.push_back(std::make_unique<PunctuationStep>(Behavior::isolated));
  } else if (type == "CharDelimiterSplit") {
    steps.push_back(std::make_unique<CharacterStep>(delimiter_of(part)));
  } else if (type == "Digits") {
    steps.push_back(std::make_unique<DigitsStep>(part.boolean("individual_digits", false)));
  } else if (type == "FixedLength") {
    steps.push_back(make_fixed_length(part, context));
  } else if (type == "Metaspace") {
    steps.push_back(std::make_unique<MetaspaceStep>(Metaspace(part, context)));
  } else if (type == "Punctuation") {
    steps.push_back(std::make_unique<PunctuationStep>(
        part.has("behavior") ? behavior_of(part, context) : Behavior::isolated));
  } else if (type == "Split") {
    steps.push_back(make_split(part, context));
  } else if (type == "Whitespace") {
    steps.push_back(std::make_unique<WordStep>());
  } else if (type == "WhitespaceSplit") {
    steps.push_back(std::make_unique<WhiteSpaceStep>());
  } else {
    throw unsupported_component("pre_tokenizer", type, context);
  }
}

bool is_byte_mapping(const PreTokenStep& step) {
  return dynamic_cast<const ByteMappingStep*>(&step) != nullptr;
}

}  // namespace lora::text
