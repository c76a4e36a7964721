#include "ops/verify_open.h"

#include <algorithm>
#include <cstdint>
#include <system_error>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/format/json_lenient.h"
#include "lora/format/safetensors.h"

namespace lora {
namespace {

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The JSON header of a safetensors file, checked no further than that it is inside the file.
std::string_view header_of(std::string_view file) {
  constexpr std::size_t length_bytes = 8;
  if (file.size() < length_bytes) return {};
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i)
    length |= std::uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
  return length > file.size() - length_bytes ? std::string_view()
                                             : file.substr(length_bytes, length);
}

struct Range {
  std::uint64_t begin = 0, end = 0;
};

std::optional<Range> range_of(const Json& entry) {
  const Json* offsets = entry.find("data_offsets");
  const JsonArray* ends = offsets == nullptr ? nullptr : offsets->as_array();
  if (ends == nullptr || ends->size() != 2) return std::nullopt;
  const auto begin = (*ends)[0].as_uint(), end = (*ends)[1].as_uint();
  if (!begin || !end || *begin > *end) return std::nullopt;
  return Range{*begin, *end};
}

std::string describe(const std::optional<Range>& range) {
  return range ? "[" + std::to_string(range->begin) + ", " + std::to_string(range->end) + ")"
               : std::string("unknown");
}

std::string comparison(std::string_view data, const std::optional<Range>& first,
                       const std::optional<Range>& second) {
  if (!first || !second || first->end > data.size() || second->end > data.size())
    return "which are not all in the file";
  const auto bytes = [&](const Range& range) {
    return data.substr(range.begin, range.end - range.begin);
  };
  return bytes(*first) == bytes(*second) ? "with equal contents" : "with different contents";
}

// Empty when no tensor is named twice.
std::string describe_repeated_names(const LenientJson& header, std::string_view data) {
  const JsonObject* members = header.value.as_object();
  std::string text;
  if (members == nullptr) return text;
  for (std::size_t i = 0; i < header.repeated_keys.size(); ++i) {
    const Json* last = members->find(header.repeated_keys[i]);
    if (last == nullptr) continue;
    const auto first = range_of(header.earlier_values[i]), second = range_of(*last);
    text += (text.empty() ? "the header names " : "; ") + header.repeated_keys[i] +
            " twice, at bytes " + describe(first) + " and " + describe(second) + " of the data, " +
            comparison(data, first, second);
  }
  return text;
}

}  // namespace

OpenedAdapter open_to_verify(const std::filesystem::path& path,
                             const std::optional<AdapterConfig>& config) {
  if (config || !is_adapter_directory(path)) return {open_adapter(path, config), {}};
  const std::filesystem::path file = path / kAdapterConfigName;
  CheckedConfig checked = check_adapter_config(text_of(*MappedFile::open(file)), file.string());
  return {open_adapter(path, checked.config), std::move(checked.problems)};
}

UnreadableReason reason_of(const std::filesystem::path& path) {
  constexpr std::string_view corrupt = "LV101";
  const std::filesystem::path file = is_adapter_directory(path) ? path / kAdapterWeightsName : path;
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) return {corrupt, {}};
  try {
    const auto mapped = MappedFile::open(file);
    const std::string_view all = text_of(*mapped);
    const std::string_view header = header_of(all);
    const LenientJson json = parse_json_lenient(header, file.string());
    std::string twice =
        describe_repeated_names(json, all.substr(std::min(all.size(), header.size() + 8)));
    if (!twice.empty()) return {"LV304", std::move(twice)};
    if (read_safetensors(file).tensors.empty()) return {"LV103", {}};
  } catch (const Error&) {
    // The error that the caller has says more than a second look could.
  }
  return {corrupt, {}};
}

}  // namespace lora
