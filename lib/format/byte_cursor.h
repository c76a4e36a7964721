// Reading little-endian integers from bytes that may end too soon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lora {

/// Walks forward through a byte range. A read past the end gives zeros and makes the cursor bad for
/// good, so that a caller may read a whole record and look at is_good() once, before it uses it.
class ByteCursor {
 public:
  explicit ByteCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool is_good() const { return is_good_; }
  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  std::uint8_t u8() { return static_cast<std::uint8_t>(integer(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(integer(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(integer(4)); }
  std::uint64_t u64() { return integer(8); }

  /// The next `count` bytes, or an empty range when fewer are left.
  std::span<const std::byte> take(std::uint64_t count) {
    if (!is_good_ || count > remaining()) {
      is_good_ = false;
      return {};
    }
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }

  std::string_view text(std::uint64_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

 private:
  std::uint64_t integer(std::size_t width) {
    std::uint64_t value = 0;
    std::size_t shift = 0;
    for (const std::byte byte : take(width)) {
      value |= std::to_integer<std::uint64_t>(byte) << shift;
      shift += 8;
    }
    return value;
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  bool is_good_ = true;
};

}  // namespace lora
