// Text normalization before added tokens of the second kind and pre-tokenization.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

struct NormalText {
  std::string text;
  /// How many of its first bytes were made of the first character of what was to be tokenized:
  /// Metaspace asks.
  std::size_t start = 0;
};

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual void apply(NormalText& normal) const = 0;
};

class Normalizer {
 public:
  /// A null document normalizes nothing. Throws Error(unsupported | malformed).
  Normalizer(const Json& document, const std::string& context);
  bool is_identity() const { return steps_.empty(); }
  void apply(NormalText& normal) const;
  std::string apply(std::string text) const;

 private:
  void add(const Json& document, const std::string& context);
  std::vector<std::unique_ptr<NormalizerStep>> steps_;
};

/// The longest normal form of a character is 18 times as long; steps that replace text by longer
/// text could multiply each other. Throws Error(unsupported) when `after` bytes are out of
/// proportion to `before`.
void require_growth(std::size_t before, std::size_t after);

}  // namespace lora::text
