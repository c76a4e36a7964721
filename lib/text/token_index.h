// Tokens by their spelling.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora::text {

/// Finds a token by its bytes or spelling: open addressing over one text buffer.
class TokenIndex {
 public:
  void reserve(std::size_t count, std::size_t bytes);
  /// False when the text is already there.
  bool insert(std::string_view text, std::uint32_t id);
  /// kNone when absent.
  std::uint32_t find(std::string_view text) const;
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

 private:
  struct Slot {
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
    std::uint32_t hash = 0;
    std::uint32_t id = kNone;
  };
  std::vector<Slot> slots_;
  std::string texts_;
  std::size_t count_ = 0;
};

}  // namespace lora::text
