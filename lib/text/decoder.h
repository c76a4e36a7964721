// From the spellings of tokens to text.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

/// Receives the spellings of tokens one after another, some of them in several parts, each of them
/// whole characters.
class SpellingSink {
 public:
  virtual ~SpellingSink() = default;
  virtual void take(std::string_view part, bool ends_token) = 0;
  /// There are no more tokens.
  virtual void finish() = 0;
};

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  /// One decoding. Its result hands over to `next`, which must outlive it.
  virtual std::unique_ptr<SpellingSink> start(SpellingSink& next) const = 0;
};

/// The `decoder` of a tokenizer.json.
class Decoder {
 public:
  /// A null document puts spaces between the tokens. Throws Error(unsupported | malformed).
  Decoder(const Json& document, const std::string& context);

 private:
  friend class Decoding;
  void add(const Json& document, const std::string& context);
  std::vector<std::unique_ptr<DecoderStep>> steps_;
};

/// The text of one sequence of tokens as it grows. `decoder` must outlive it.
class Decoding {
 public:
  explicit Decoding(const Decoder& decoder);
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

  void push(std::string_view spelling) { first_->take(spelling, true); }
  void finish() { first_->finish(); }
  /// Text that no further token changes and that was not taken before.
  std::string take() { return std::exchange(end_.text, {}); }

 private:
  struct End : SpellingSink {
    void take(std::string_view part, bool) override { text += part; }
    void finish() override {}
    std::string text;
  };
  End end_;
  std::vector<std::unique_ptr<SpellingSink>> sinks_;  // the last step's first
  SpellingSink* first_ = &end_;
};

}  // namespace lora::text
