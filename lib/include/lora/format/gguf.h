// GGUF files: the model container of llama.cpp, versions 2 and 3, little-endian.
//
// The file is mapped. Reading touches its header: what metadata and tensors say stays in the
// mapping, arrays are walked when asked. Block formats are widened to f32 as the package `gguf`
// (release 0.19) computes them, to the last bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lora/base/dtype.h"
#include "lora/base/mapped_file.h"

namespace lora {

/// How a tensor's values are stored, by the number that the file holds.
enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  bf16 = 30,
};

/// What one row of a tensor is made of.
struct GgufFormat {
  GgufType type;
  std::string_view name;         ///< "Q4_K"
  std::uint32_t values;          ///< of a block
  std::uint32_t bytes;           ///< of a block
  std::optional<DType> storage;  ///< of plain values; absent: blocks, see dequantise()
};

/// Null for a number that is none of the above.
const GgufFormat* gguf_format(std::uint32_t type);

/// Widens whole blocks of a format without `storage` to f32; `blocks` holds
/// out.size() / values * bytes bytes. Any other size or format is Error(internal).
void dequantise(const GgufFormat& format, std::span<const std::byte> blocks, std::span<float> out);

/// A list of numbers, booleans or texts; the bytes stay in the file.
class GgufArray {
 public:
  /// `type` is the file's number of a scalar or text; `bytes` was walked once by the reader.
  GgufArray(std::uint32_t type, std::uint64_t size, std::span<const std::byte> bytes)
      : type_(type), size_(size), bytes_(bytes) {}

  std::uint64_t size() const { return size_; }
  bool holds_texts() const;
  bool holds_integers() const;
  bool holds_floats() const;

  /// Calls `visit` for each item in order. Error(internal) when the items are something else.
  void each_text(const std::function<void(std::string_view)>& visit) const;
  void each_integer(const std::function<void(std::int64_t)>& visit) const;
  void each_float(const std::function<void(double)>& visit) const;

 private:
  std::uint32_t type_;
  std::uint64_t size_;
  std::span<const std::byte> bytes_;
};

/// Integers that do not fit in 64 signed bits are refused by the reader.
using GgufValue = std::variant<std::int64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  std::string name;
  const GgufFormat* format = nullptr;
  std::vector<std::int64_t> shape;   ///< row-major, as torch has it: the file's extents reversed
  std::span<const std::byte> bytes;  ///< into the mapping
};

struct GgufFile {
  std::filesystem::path path;
  std::uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;                         ///< in file order
  std::map<std::string, std::size_t, std::less<>> places;  ///< of tensors by name
  std::shared_ptr<const MappedFile> mapping;

  /// The value of `key` as the asked type; nullopt when there is none. Throws Error(malformed) with
  /// key and file when the value is of another type.
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  ///< an integer counts as one
  std::optional<bool> flag(std::string_view key) const;
  const GgufArray* array(std::string_view key) const;

  const GgufTensor* find(std::string_view name) const;
};

/// True for a regular file that begins with "GGUF".
bool looks_like_gguf(const std::filesystem::path& path);

/// Throws Error(not_found) for a missing file; Error(malformed) for a file that is cut short, sizes
/// that contradict each other or the file, rows that are no whole blocks, tensors that overlap,
/// names that repeat or are not UTF-8; Error(unsupported) for version 1, big-endian files, unknown
/// storage types and arrays of arrays. Each names the file and the tensor or key.
GgufFile read_gguf(const std::filesystem::path& path);

}  // namespace lora
