#include "text/decoder_steps.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>

#include "lora/base/error.h"
#include "text/byte_alphabet.h"
#include "text/metaspace.h"
#include "text/replacement.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t covered = 0;
  for (std::size_t at = text.find(from); at != std::string_view::npos;
       at = text.find(from, covered)) {
    out.append(text, covered, at - covered).append(to);
    covered = at + from.size();
  }
  return out.append(text.substr(covered));
}

/// A sink that its settings make.
template <typename Sink, typename Settings>
class StepOf : public DecoderStep {
 public:
  explicit StepOf(Settings settings) : settings_(std::move(settings)) {}
  std::unique_ptr<SpellingSink> start(SpellingSink& next) const override {
    return std::make_unique<Sink>(next, settings_);
  }

 private:
  Settings settings_;
};

template <typename Sink, typename Settings>
std::unique_ptr<DecoderStep> step_of(Settings settings) {
  return std::make_unique<StepOf<Sink, Settings>>(std::move(settings));
}

struct None {};

class PassingSink : public SpellingSink {
 public:
  explicit PassingSink(SpellingSink& next) : next_(next) {}
  void finish() override { next_.finish(); }

 protected:
  SpellingSink& next_;
};

/// For steps that look at whole tokens.
class TokenSink : public PassingSink {
 public:
  using PassingSink::PassingSink;
  void take(std::string_view part, bool ends_token) final {
    if (ends_token && held_.empty()) {
      take_token(part);
      return;
    }
    held_ += part;
    if (ends_token) take_token(std::exchange(held_, {}));
  }

 protected:
  virtual void take_token(std::string_view token) = 0;

 private:
  std::string held_;
};

class JoinSink : public PassingSink {
 public:
  JoinSink(SpellingSink& next, None) : PassingSink(next) {}
  void take(std::string_view part, bool ends_token) override {
    if (is_new_ && !is_first_) next_.take(" ", false);
    is_first_ = false;
    is_new_ = ends_token;
    next_.take(part, ends_token);
  }

 private:
  bool is_first_ = true;
  bool is_new_ = true;
};

// All tokens become one, whose bytes need not end where a token ends.
class ByteLevelSink : public TokenSink {
 public:
  ByteLevelSink(SpellingSink& next, None) : TokenSink(next) {}
  void finish() override {
    hand_over(false);
    bytes_.clear();
    next_.take({}, true);
    next_.finish();
  }

 private:
  void take_token(std::string_view token) override {
    if (!append_bytes_of_spelling(token, bytes_)) bytes_ += token;
    bytes_.erase(0, hand_over(true));
  }
  std::size_t hand_over(bool holds_back_tail) {
    text_.clear();
    const std::size_t consumed = append_lossy(text_, bytes_, holds_back_tail);
    if (!text_.empty()) next_.take(text_, false);
    return consumed;
  }
  std::string bytes_;
  std::string text_;
};

// "<0x41>" is a byte. Bytes in a row are text, or one replacement character each.
class ByteFallbackSink : public TokenSink {
 public:
  ByteFallbackSink(SpellingSink& next, None) : TokenSink(next) {}
  void finish() override {
    flush();
    next_.finish();
  }

 private:
  void take_token(std::string_view token) override {
    if (const auto byte = byte_named(token)) {
      bytes_ += static_cast<char>(*byte);
    } else {
      flush();
      next_.take(token, true);
    }
  }
  void flush() {
    if (bytes_.empty()) return;
    if (find_invalid_utf8(bytes_) == std::string::npos) {
      next_.take(bytes_, true);
    } else {
      for (std::size_t i = 0; i < bytes_.size(); ++i) next_.take(kReplacementCharacter, true);
    }
    bytes_.clear();
  }
  static std::optional<std::uint8_t> byte_named(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
    const char* digits = token.data() + 3;
    // A sign is a digit for the reference.
    if (*digits == '+') ++digits;
    std::uint8_t byte = 0;
    const auto [end, error] = std::from_chars(digits, token.data() + 5, byte, 16);
    if (error != std::errc() || end != token.data() + 5) return std::nullopt;
    return byte;
  }
  std::string bytes_;
};

class FuseSink : public PassingSink {
 public:
  FuseSink(SpellingSink& next, None) : PassingSink(next) {}
  void take(std::string_view part, bool) override { next_.take(part, false); }
  void finish() override {
    next_.take({}, true);
    next_.finish();
  }
};

class ReplaceSink : public TokenSink {
 public:
  ReplaceSink(SpellingSink& next, const Replacement& replacement)
      : TokenSink(next), replacement_(replacement) {}

 private:
  void take_token(std::string_view token) override {
    next_.take(replacement_.apply(token).text, true);
  }
  const Replacement& replacement_;
};

struct StripSettings {
  std::string content;
  std::size_t start;
  std::size_t stop;
};

// Takes a character off the ends of every token, up to `start` and `stop` times. What may come off
// the end is held back.
class StripSink : public PassingSink {
 public:
  StripSink(SpellingSink& next, const StripSettings& settings)
      : PassingSink(next), settings_(settings) {}

  void take(std::string_view part, bool ends_token) override {
    const std::string_view content = settings_.content;
    while (cut_ < settings_.start && part.starts_with(content)) {
      part.remove_prefix(content.size());
      ++cut_;
    }
    if (!part.empty()) cut_ = settings_.start;
    if (settings_.stop > 0) {
      held_ += part;
      if (!ends_token) return;
      for (std::size_t i = 0; i < settings_.stop && held_.ends_with(content); ++i)
        held_.resize(held_.size() - content.size());
      next_.take(std::exchange(held_, {}), true);
    } else {
      next_.take(part, ends_token);
    }
    if (ends_token) cut_ = 0;
  }

 private:
  const StripSettings& settings_;
  std::size_t cut_ = 0;
  std::string held_;
};

class MetaspaceSink : public PassingSink {
 public:
  MetaspaceSink(SpellingSink& next, const Metaspace& settings)
      : PassingSink(next), settings_(settings) {}
  void take(std::string_view part, bool ends_token) override {
    const bool drops = is_first_ && settings_.prepend != Metaspace::Prepend::never;
    next_.take(replaced(part, settings_.replacement, drops ? "" : " "), ends_token);
    if (ends_token) is_first_ = false;
  }

 private:
  const Metaspace& settings_;
  bool is_first_ = true;
};

struct WordPieceSettings {
  std::string prefix;
  bool cleans_up;
};

class WordPieceSink : public TokenSink {
 public:
  WordPieceSink(SpellingSink& next, const WordPieceSettings& settings)
      : TokenSink(next), settings_(settings) {}

 private:
  void take_token(std::string_view token) override {
    std::string text;
    if (is_first_) {
      text = token;
    } else if (token.starts_with(settings_.prefix)) {
      text = token.substr(settings_.prefix.size());
    } else {
      text = " " + std::string(token);
    }
    is_first_ = false;
    next_.take(settings_.cleans_up ? cleaned_up(std::move(text)) : text, true);
  }

  static std::string cleaned_up(std::string text) {
    constexpr std::array<std::pair<const char*, const char*>, 11> kRules{{{" .", "."},
                                                                          {" ?", "?"},
                                                                          {" !", "!"},
                                                                          {" ,", ","},
                                                                          {" ' ", "'"},
                                                                          {" n't", "n't"},
                                                                          {" 'm", "'m"},
                                                                          {" do not", " don't"},
                                                                          {" 's", "'s"},
                                                                          {" 've", "'ve"},
                                                                          {" 're", "'re"}}};
    for (const auto& [from, to] : kRules) text = replaced(text, from, to);
    return text;
  }

  const WordPieceSettings& settings_;
  bool is_first_ = true;
};

// The suffix at the end of a word is a space, but not after the last token.
class BpeSink : public TokenSink {
 public:
  BpeSink(SpellingSink& next, const std::string& suffix) : TokenSink(next), suffix_(suffix) {}
  void finish() override {
    if (waiting_) next_.take(replaced(*waiting_, suffix_, ""), true);
    waiting_.reset();
    next_.finish();
  }

 private:
  void take_token(std::string_view token) override {
    if (waiting_) next_.take(replaced(*waiting_, suffix_, " "), true);
    waiting_ = std::string(token);
  }
  const std::string& suffix_;
  std::optional<std::string> waiting_;
};

std::unique_ptr<DecoderStep> make_bpe_decoder(const Component& part, const std::string& context) {
  std::string suffix = part.string("suffix");
  if (suffix.empty())
    throw unsupported_component("decoder", "BPEDecoder without a suffix", context);
  return step_of<BpeSink>(std::move(suffix));
}

}  // namespace

std::unique_ptr<DecoderStep> make_decoder_step(const Component& part, const std::string& context) {
  const std::string& type = part.type();
  if (type == "ByteLevel") return step_of<ByteLevelSink>(None{});
  if (type == "ByteFallback") return step_of<ByteFallbackSink>(None{});
  if (type == "Fuse") return step_of<FuseSink>(None{});
  if (type == "Replace") return step_of<ReplaceSink>(Replacement(part, context));
  if (type == "Strip")
    return step_of<StripSink>(
        StripSettings{part.character("content"), part.count("start"), part.count("stop")});
  if (type == "Metaspace") return step_of<MetaspaceSink>(Metaspace(part, context));
  if (type == "WordPiece")
    return step_of<WordPieceSink>(
        WordPieceSettings{part.string("prefix"), part.boolean("cleanup", true)});
  if (type == "BPEDecoder") return make_bpe_decoder(part, context);
  throw unsupported_component("decoder", type, context);
}

std::unique_ptr<DecoderStep> make_joining_decoder() { return step_of<JoinSink>(None{}); }

}  // namespace lora::text
