// Pieces that came before, and their tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/token_model.h"

namespace lora::text {

/// For one thread. Bounded: a new piece takes the place of an old one.
class PieceCache {
 public:
  PieceCache();

  /// Appends the tokens that `model` makes of `piece` to `out`. One cache serves one model.
  void encode(const TokenModel& model, std::string_view piece, std::vector<std::int64_t>& out);

 private:
  static constexpr std::size_t kMaxKey = 15;
  static constexpr std::size_t kMaxIds = 3;
  using Key = std::array<std::uint64_t, 2>;
  /// Short pieces fit in a line; the last byte of `key` holds the length plus one, so that an empty
  /// line equals no piece.
  struct Line {
    Key key{};
    std::uint32_t count = 0;
    std::array<std::uint32_t, kMaxIds> ids{};
  };

  std::vector<Line> lines_;
  std::vector<std::uint32_t> ids_;
};

}  // namespace lora::text
