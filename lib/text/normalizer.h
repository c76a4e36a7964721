// Text normalization before added tokens of the second kind and pre-tokenization.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual std::string apply(std::string text) const = 0;
};

class Normalizer {
 public:
  /// A null document normalizes nothing. Throws Error(unsupported | malformed).
  Normalizer(const Json& document, const std::string& context);
  bool is_identity() const { return steps_.empty(); }
  std::string apply(std::string text) const;

 private:
  void add(const Json& document, const std::string& context);
  std::vector<std::unique_ptr<NormalizerStep>> steps_;
};

}  // namespace lora::text
