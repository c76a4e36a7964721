#include "format/safetensors_header.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "format/allocation_budget.h"
#include "format/in_quotes.h"
#include "format/json_text.h"
#include "lora/base/checked.h"

namespace lora {
namespace {

constexpr std::size_t kMaxDepth = 128;
constexpr std::string_view kMetadataKey = "__metadata__";

/// What a tensor costs that does not hold a byte: its entry here, and what the verbs say about it.
constexpr std::uint64_t kTensorBytes = 1536;
constexpr std::uint64_t kExtentBytes = 3 * sizeof(std::int64_t);
constexpr std::uint64_t kMetadataBytes = 192;

enum class Place {
  outside,   // before the opening brace and after the closing one
  top,       // names of tensors
  metadata,  // string to string
  entry,     // fields of one tensor
  shape,
  offsets,
};

// Reads the header from events: a document tree would cost several times the header and would hide
// duplicate keys.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::uint64_t file_size, SafetensorsFile& file) : file_(file), budget_(file_size) {}

  std::vector<SafetensorsEntry> take() { return std::move(entries_); }

  bool null() override {
    if (place_ == Place::top && key_ == kMetadataKey) return true;
    return scalar("null");
  }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return scalar("the negative number " + std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return scalar("the number " + in_quotes(text));
  }
  bool binary(binary_t&) override { return scalar("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (skipped_depth_ == 0 && place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        throw fail("found extent " + std::to_string(value) + " in its shape, expected below 2^63");
      spend(kExtentBytes);
      tensor_->second.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (skipped_depth_ == 0 && place_ == Place::offsets) {
      if (offset_count_ == 2) throw fail("found more than 2 data_offsets, expected [begin, end]");
      offsets_[offset_count_++] = value;
      return true;
    }
    return scalar("the number " + std::to_string(value));
  }

  bool string(string_t& text) override {
    if (skipped_depth_ == 0 && place_ == Place::metadata) {
      spend(kMetadataBytes + key_.size() + text.size());
      if (!file_.metadata.emplace(std::move(key_), std::move(text)).second)
        throw malformed_safetensors(file_, "duplicate key in __metadata__");
      return true;
    }
    if (skipped_depth_ == 0 && place_ == Place::entry && key_ == "dtype") {
      const auto dtype = dtype_from_string(text);
      if (!dtype)
        throw fail("found dtype " + in_quotes(text) +
                   ", expected one of the format's (F32, BF16, ...)");
      tensor_->second.dtype = *dtype;
      return true;
    }
    return scalar("the string " + in_quotes(text));
  }

  bool start_object(std::size_t) override {
    if (skipped_depth_ > 0 || (place_ == Place::entry && !is_known_field())) return skip_deeper();
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top && key_ == kMetadataKey) {
      file_.has_metadata = true;
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      place_ = Place::entry;
    } else {
      return scalar("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (skipped_depth_ > 0) return true;
    key_ = std::move(name);
    if (place_ == Place::top) start_member();
    if (place_ == Place::metadata && file_.metadata.contains(key_))
      throw malformed_safetensors(file_, "duplicate key " + in_quotes(key_) + " in __metadata__");
    if (place_ == Place::entry) note_field();
    return true;
  }

  bool end_object() override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
    } else if (place_ == Place::top) {
      place_ = Place::outside;
    } else {
      if (place_ == Place::entry) finish_entry();
      place_ = Place::top;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (skipped_depth_ > 0 || (place_ == Place::entry && !is_known_field())) return skip_deeper();
    if (place_ == Place::entry && key_ == "shape") {
      place_ = Place::shape;
    } else if (place_ == Place::entry && key_ == "data_offsets") {
      place_ = Place::offsets;
    } else {
      return scalar("an array");
    }
    return true;
  }

  bool end_array() override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return true;
    }
    if (place_ == Place::offsets && offset_count_ != 2)
      throw fail("found " + std::to_string(offset_count_) + " data_offsets, expected [begin, end]");
    place_ = Place::entry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& failure) override {
    throw malformed_safetensors(file_, "its header is not valid JSON at byte " +
                                           std::to_string(position) + ": " + reason_of(failure));
  }

 private:
  static constexpr unsigned kDType = 1;
  static constexpr unsigned kShape = 2;
  static constexpr unsigned kOffsets = 4;

  bool is_known_field() const {
    return key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
  }

  Error fail(const std::string& reason) const {
    return malformed_safetensors(file_, tensor_->first, reason);
  }

  void spend(std::uint64_t bytes) {
    if (!budget_.spend(bytes))
      throw malformed_safetensors(file_,
                                  "its header describes more than a file of its size justifies (" +
                                      std::to_string(file_.tensors.size()) + " tensors so far)");
  }

  // A value that is not what this place holds. Unknown fields of an entry are allowed.
  bool scalar(const std::string& found) {
    if (skipped_depth_ > 0) return true;
    switch (place_) {
      case Place::outside:
        throw malformed_safetensors(file_, "found " + found + " as its header, expected an object");
      case Place::top:
        if (key_ == kMetadataKey)
          throw malformed_safetensors(file_,
                                      "found " + found + " as __metadata__, expected an object");
        throw fail("found " + found + ", expected an object with dtype, shape and data_offsets");
      case Place::metadata:
        throw malformed_safetensors(file_, "found " + found + " as __metadata__ value of " +
                                               in_quotes(key_) + ", expected a string");
      case Place::entry:
        if (!is_known_field()) return true;
        throw fail("found " + found + " as " + key_ + ", expected " +
                   (key_ == "dtype" ? "a string" : "an array of numbers"));
      case Place::shape:
        throw fail("found " + found + " in its shape, expected non-negative integers");
      case Place::offsets:
        throw fail("found " + found + " in its data_offsets, expected non-negative integers");
    }
    return true;
  }

  bool skip_deeper() {
    if (++skipped_depth_ > kMaxDepth)
      throw fail("found JSON nested deeper than " + std::to_string(kMaxDepth) + " levels");
    return true;
  }

  void start_member() {
    if (key_ == kMetadataKey) {
      if (seen_metadata_) throw malformed_safetensors(file_, "duplicate __metadata__");
      seen_metadata_ = true;
      return;
    }
    spend(kTensorBytes + 3 * key_.size());
    const auto [position, is_new] = file_.tensors.try_emplace(key_);
    tensor_ = position;
    if (!is_new) throw fail("found twice, expected unique names");
    seen_fields_ = 0;
    offset_count_ = 0;
  }

  void note_field() {
    const unsigned field = key_ == "dtype"          ? kDType
                           : key_ == "shape"        ? kShape
                           : key_ == "data_offsets" ? kOffsets
                                                    : 0;
    if ((seen_fields_ & field) != 0) throw fail("found field " + key_ + " twice");
    seen_fields_ |= field;
  }

  void finish_entry() {
    for (const auto& [field, name] :
         {std::pair{kDType, "dtype"}, {kShape, "shape"}, {kOffsets, "data_offsets"}})
      if ((seen_fields_ & field) == 0) throw fail(std::string("field ") + name + " is missing");
    const auto [begin, end] = offsets_;
    if (end < begin)
      throw fail("found data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                 "], expected begin <= end");
    check_size(end - begin);
    entries_.push_back({tensor_, begin, end});
  }

  void check_size(std::uint64_t found) const {
    const Tensor& tensor = tensor_->second;
    const auto count = checked_numel(tensor.shape);
    const auto checked = count ? checked_mul(*count, bits_of(tensor.dtype)) : std::nullopt;
    const std::uint64_t bits = checked.value_or(0);
    if (checked && bits % 8 == 0 && bits / 8 == found) return;
    const std::string what = std::string(to_string(tensor.dtype)) + " of shape " +
                             printable(shape_to_string(tensor.shape));
    if (!checked) throw fail("the size of " + what + " does not fit in 64 bits");
    if (bits % 8 != 0)
      throw fail("found " + what + ", which takes " + std::to_string(bits) +
                 " bits, expected whole bytes");
    throw fail("found " + std::to_string(found) + " bytes in its data_offsets, expected " +
               std::to_string(bits / 8) + " for " + what);
  }

  SafetensorsFile& file_;
  AllocationBudget budget_;
  std::vector<SafetensorsEntry> entries_;
  Place place_ = Place::outside;
  std::string key_;
  std::size_t skipped_depth_ = 0;  // levels inside the value of an unknown field
  TensorMap::iterator tensor_;
  unsigned seen_fields_ = 0;
  bool seen_metadata_ = false;
  std::array<std::uint64_t, 2> offsets_{};
  std::size_t offset_count_ = 0;
};

}  // namespace

Error malformed_safetensors(const SafetensorsFile& file, const std::string& reason) {
  return Error(ErrorKind::malformed, "cannot read " + file.path.string() + ": " + reason)
      .in_file(file.path.string());
}

Error malformed_safetensors(const SafetensorsFile& file, const std::string& tensor,
                            const std::string& reason) {
  return malformed_safetensors(file, "tensor " + in_quotes(tensor) + ": " + reason)
      .in_tensor(tensor);
}

std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view text,
                                                       std::uint64_t file_size,
                                                       SafetensorsFile& file) {
  // nlohmann skips a byte order mark and takes a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF"))
    throw malformed_safetensors(file, "its header starts with a byte order mark");
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw malformed_safetensors(file,
                                "its header has a NUL byte at offset " + std::to_string(nul + 8));
  if (has_longer_token(text, kLongestTokenOfFile))
    throw malformed_safetensors(file, "its header has a string or number of more than " +
                                          std::to_string(kLongestTokenOfFile) + " bytes");
  HeaderReader reader(file_size, file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

}  // namespace lora
