#include "lora/format/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

#include "format/allocation_budget.h"
#include "format/in_quotes.h"
#include "format/utf8.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint32_t kMostExtents = 4;
// What an entry costs besides its name, and what the verbs say about a tensor.
constexpr std::uint64_t kMetadataBytes = 192;
constexpr std::uint64_t kTensorBytes = 1536;

// The file's numbers of value types.
enum : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes
};
constexpr std::array<std::uint8_t, kValueTypes> kWidth{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

bool is_integer(std::uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }

template <typename T>
T read_as(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Little-endian as the file; nullopt for a u64 beyond the signed range.
std::optional<std::int64_t> integer_at(std::uint32_t type, const std::byte* from) {
  switch (type) {
    case kU8:
      return read_as<std::uint8_t>(from);
    case kI8:
      return read_as<std::int8_t>(from);
    case kU16:
      return read_as<std::uint16_t>(from);
    case kI16:
      return read_as<std::int16_t>(from);
    case kU32:
      return read_as<std::uint32_t>(from);
    case kI32:
      return read_as<std::int32_t>(from);
    case kI64:
      return read_as<std::int64_t>(from);
    default: {
      const auto value = read_as<std::uint64_t>(from);
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
  }
}

class Reader {
 public:
  explicit Reader(GgufFile& file)
      : file_(file), bytes_(file.mapping->bytes()), budget_(bytes_.size()) {}

  void read() {
    if (bytes_.size() < kMagic.size() || text_at(0, kMagic.size()) != kMagic)
      throw fail("it does not begin with GGUF");
    at_ = kMagic.size();
    file_.version = take<std::uint32_t>("its version");
    if ((file_.version & 0xFFFF) == 0)
      throw fail(ErrorKind::unsupported, "found a big-endian file, expected a little-endian one");
    if (file_.version != 2 && file_.version != 3)
      throw fail(ErrorKind::unsupported,
                 "found version " + std::to_string(file_.version) + ", expected 2 or 3");
    const auto tensors = take<std::uint64_t>("its number of tensors");
    const auto entries = take<std::uint64_t>("its number of metadata entries");
    for (std::uint64_t i = 0; i < entries; ++i) read_entry();
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < tensors; ++i) offsets.push_back(read_tensor());
    place_tensors(offsets);
  }

 private:
  Error fail(ErrorKind kind, const std::string& reason) const {
    return Error(kind, "cannot read GGUF file " + file_.path.string() + ": " + reason)
        .in_file(file_.path.string());
  }
  Error fail(const std::string& reason) const { return fail(ErrorKind::malformed, reason); }
  Error fail(const GgufTensor& tensor, const std::string& reason) const {
    return fail("tensor " + in_quotes(tensor.name) + ": " + reason).in_tensor(tensor.name);
  }

  std::string_view text_at(std::uint64_t offset, std::uint64_t size) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, static_cast<std::size_t>(size)};
  }

  std::span<const std::byte> take_bytes(std::uint64_t size, const char* what) {
    if (size > bytes_.size() - at_)
      throw fail("it ends inside " + std::string(what) + " at byte " + std::to_string(at_) +
                 ": found " + std::to_string(bytes_.size() - at_) + " bytes, expected " +
                 std::to_string(size));
    const auto part = bytes_.subspan(at_, static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return part;
  }

  template <typename T>
  T take(const char* what) {
    return read_as<T>(take_bytes(sizeof(T), what).data());
  }

  std::string_view take_text(const char* what) {
    const auto size = take<std::uint64_t>(what);
    const auto part = take_bytes(size, what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  std::string_view take_name(const char* what) {
    const std::string_view name = take_text(what);
    if (!is_utf8(name)) throw fail(std::string(what) + " " + in_quotes(name) + " is not UTF-8");
    return name;
  }

  void spend(std::uint64_t bytes) {
    if (!budget_.spend(bytes))
      throw fail("its header describes more than a file of its size justifies");
  }

  void read_entry() {
    const std::string_view key = take_name("a metadata key");
    spend(kMetadataBytes + key.size());
    GgufValue value = read_value(key);
    if (!file_.metadata.emplace(std::string(key), std::move(value)).second)
      throw fail("metadata key " + in_quotes(key) + " stands twice");
  }

  void require_known(std::uint32_t type, std::string_view key) const {
    if (type >= kValueTypes)
      throw fail("metadata key " + in_quotes(key) + " has a value of type " + std::to_string(type) +
                 ", expected 0 to 12");
  }

  GgufValue read_value(std::string_view key) {
    const auto type = take<std::uint32_t>("the type of a metadata value");
    require_known(type, key);
    if (type == kText) return take_text("a text of its metadata");
    if (type == kArray) return read_array(key);
    const std::byte* data = take_bytes(kWidth[type], "a metadata value").data();
    if (type == kF32) return static_cast<double>(read_as<float>(data));
    if (type == kF64) return read_as<double>(data);
    if (type == kBool) return read_as<std::uint8_t>(data) != 0;
    const auto value = integer_at(type, data);
    if (!value) throw fail("metadata key " + in_quotes(key) + " does not fit in 63 bits");
    return *value;
  }

  GgufArray read_array(std::string_view key) {
    const auto type = take<std::uint32_t>("the type of an array");
    require_known(type, key);
    const auto size = take<std::uint64_t>("the size of an array");
    if (type == kArray)
      throw fail(ErrorKind::unsupported,
                 "metadata key " + in_quotes(key) + " is an array of arrays");
    const std::size_t begin = at_;
    if (type == kText) {
      for (std::uint64_t i = 0; i < size; ++i) take_text("a text of an array");
    } else {
      const auto bytes = checked_mul(size, kWidth[type]);
      if (!bytes) throw fail("metadata key " + in_quotes(key) + " has an array beyond 64 bits");
      take_bytes(*bytes, "an array");
    }
    return {type, size, bytes_.subspan(begin, at_ - begin)};
  }

  // Gives the tensor's offset into the data, which follows the header.
  std::uint64_t read_tensor() {
    GgufTensor tensor;
    const std::string_view name = take_name("a tensor's name");
    spend(kTensorBytes + 3 * name.size());
    tensor.name = name;
    if (!file_.places.emplace(name, file_.tensors.size()).second)
      throw fail(tensor, "found twice, expected unique names");
    const auto extents = take<std::uint32_t>("a tensor's number of extents");
    if (extents > kMostExtents)
      throw fail(tensor, "found " + std::to_string(extents) + " extents, expected at most " +
                             std::to_string(kMostExtents));
    for (std::uint32_t i = 0; i < extents; ++i) {
      const auto extent = take<std::uint64_t>("a tensor's shape");
      if (extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        throw fail(tensor, "found extent " + std::to_string(extent) + ", expected below 2^63");
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    const auto type = take<std::uint32_t>("a tensor's type");
    tensor.format = gguf_format(type);
    if (tensor.format == nullptr)
      throw fail(ErrorKind::unsupported,
                 "tensor " + in_quotes(tensor.name) + " is stored as type " + std::to_string(type) +
                     ", expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, "
                     "IQ4_NL or plain numbers")
          .in_tensor(tensor.name)
          .with_hint("quantise the original model as one of these, or export it as F16 or BF16");
    file_.tensors.push_back(std::move(tensor));
    return take<std::uint64_t>("a tensor's offset");
  }

  std::uint64_t alignment() const {
    const auto value = file_.integer("general.alignment");
    if (!value) return kDefaultAlignment;
    const auto bytes = static_cast<std::uint64_t>(*value);
    if (*value <= 0 || !std::has_single_bit(bytes) || bytes > bytes_.size())
      throw fail("general.alignment is " + std::to_string(*value) + ", expected a power of two");
    return bytes;
  }

  std::uint64_t size_of(const GgufTensor& tensor) const {
    const auto values = checked_numel(tensor.shape);
    const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (values && row % tensor.format->values != 0)
      throw fail(tensor, "its rows have " + std::to_string(row) +
                             " values, expected a multiple of " +
                             std::to_string(tensor.format->values) + " for " +
                             std::string(tensor.format->name));
    const auto size =
        values ? checked_mul(*values / tensor.format->values, tensor.format->bytes) : std::nullopt;
    if (!size) throw fail(tensor, "its shape " + shape_of(tensor) + " is too large");
    return *size;
  }

  static std::string shape_of(const GgufTensor& tensor) {
    std::string text = "[";
    for (const std::int64_t extent : tensor.shape)
      text += (text.size() == 1 ? "" : ", ") + std::to_string(extent);
    return text + "]";
  }

  void place_tensors(const std::vector<std::uint64_t>& offsets) {
    const std::uint64_t unit = alignment();
    const std::uint64_t start = (at_ + unit - 1) / unit * unit;
    struct Part {
      std::uint64_t begin, end;
      const GgufTensor* tensor;
    };
    std::vector<Part> parts;
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      GgufTensor& tensor = file_.tensors[i];
      const std::uint64_t size = size_of(tensor);
      if (offsets[i] % unit != 0)
        throw fail(tensor, "its offset " + std::to_string(offsets[i]) +
                               " is no multiple of the alignment, " + std::to_string(unit));
      const auto begin = checked_add(start, offsets[i]);
      const auto end = begin ? checked_add(*begin, size) : std::nullopt;
      if (!end || *end > bytes_.size())
        throw fail(tensor, "its " + std::to_string(size) + " bytes at offset " +
                               std::to_string(offsets[i]) + " lie outside the file of " +
                               std::to_string(bytes_.size()) + " bytes")
            .with_hint("the file is cut short: fetch it again");
      tensor.bytes = bytes_.subspan(*begin, size);
      if (size != 0) parts.push_back({*begin, *end, &tensor});
    }
    std::sort(parts.begin(), parts.end(),
              [](const Part& a, const Part& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < parts.size(); ++i)
      if (parts[i].begin < parts[i - 1].end)
        throw fail(*parts[i].tensor,
                   "it shares bytes with tensor " + in_quotes(parts[i - 1].tensor->name));
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  AllocationBudget budget_;
  std::size_t at_ = 0;
};

// The value of a key as one of the types that `read` understands.
template <typename Result, typename Read>
std::optional<Result> value_of(const GgufFile& file, std::string_view key, const char* expected,
                               Read&& read) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) return std::nullopt;
  const std::optional<Result> value = read(found->second);
  if (!value)
    throw Error(ErrorKind::malformed, "cannot read GGUF file " + file.path.string() +
                                          ": metadata key " + in_quotes(key) + " is no " + expected)
        .in_file(file.path.string());
  return value;
}

template <typename T>
std::optional<T> held(const GgufValue& value) {
  const T* found = std::get_if<T>(&value);
  return found ? std::optional(*found) : std::nullopt;
}

}  // namespace

bool GgufArray::holds_texts() const { return type_ == kText; }
bool GgufArray::holds_integers() const { return is_integer(type_); }
bool GgufArray::holds_floats() const { return type_ == kF32 || type_ == kF64; }

void GgufArray::each_text(const std::function<void(std::string_view)>& visit) const {
  if (!holds_texts()) throw Error(ErrorKind::internal, "an array of numbers was read as texts");
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < size_; ++i) {
    const auto size = static_cast<std::size_t>(read_as<std::uint64_t>(bytes_.data() + at));
    visit({reinterpret_cast<const char*>(bytes_.data()) + at + sizeof(std::uint64_t), size});
    at += sizeof(std::uint64_t) + size;
  }
}

void GgufArray::each_integer(const std::function<void(std::int64_t)>& visit) const {
  if (!holds_integers()) throw Error(ErrorKind::internal, "an array was read as integers");
  for (std::uint64_t i = 0; i < size_; ++i)
    visit(integer_at(type_, bytes_.data() + i * kWidth[type_])
              .value_or(std::numeric_limits<std::int64_t>::max()));
}

void GgufArray::each_float(const std::function<void(double)>& visit) const {
  if (!holds_floats()) throw Error(ErrorKind::internal, "an array was read as floats");
  for (std::uint64_t i = 0; i < size_; ++i) {
    const std::byte* item = bytes_.data() + i * kWidth[type_];
    visit(type_ == kF32 ? static_cast<double>(read_as<float>(item)) : read_as<double>(item));
  }
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  return value_of<std::string_view>(*this, key, "text", held<std::string_view>);
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  return value_of<std::int64_t>(*this, key, "integer", held<std::int64_t>);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  return value_of<double>(*this, key, "number", [](const GgufValue& value) {
    if (const auto integer = held<std::int64_t>(value))
      return std::optional(static_cast<double>(*integer));
    return held<double>(value);
  });
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  return value_of<bool>(*this, key, "boolean", held<bool>);
}

const GgufArray* GgufFile::array(std::string_view key) const {
  const auto array = value_of<const GgufArray*>(*this, key, "array", [](const GgufValue& value) {
    const auto* found = std::get_if<GgufArray>(&value);
    return found ? std::optional(found) : std::nullopt;
  });
  return array.value_or(nullptr);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = places.find(name);
  return found == places.end() ? nullptr : &tensors[found->second];
}

bool looks_like_gguf(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, 4> start{};
  std::ifstream in(path, std::ios::binary);
  in.read(start.data(), start.size());
  return std::string_view(start.data(), static_cast<std::size_t>(in.gcount())) == kMagic;
}

GgufFile read_gguf(const std::filesystem::path& path) {
  GgufFile file;
  file.path = path;
  file.mapping = MappedFile::open(path);
  Reader(file).read();
  return file;
}

}  // namespace lora
