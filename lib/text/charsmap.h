// Precompiled: the rewrite rules that a SentencePiece model carries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/component.h"
#include "text/normalizer.h"

namespace lora::text {

/// "precompiled_charsmap" is base64 of: the size of a trie in bytes (32 bits), the trie (a double
/// array of 32-bit units, as the library Darts builds it), the texts that its values point at, each
/// with a zero byte after it.
class Charsmap : public NormalizerStep {
 public:
  /// `context` names the file. Throws Error(malformed).
  Charsmap(const Component& part, const std::string& context);
  void apply(NormalText& normal) const override;

 private:
  class Origins;
  std::optional<std::string_view> replacement(std::string_view text) const;

  std::vector<std::uint32_t> units_;
  std::string texts_;
};

}  // namespace lora::text
