// Typed, range-checked access to the fields of a config.json.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora {

/// Fields of one object. Absent and null both give nullopt; a value of another type, or outside the
/// stated range, throws Error(malformed) that names the document and the field.
class ConfigFields {
 public:
  /// `prefix` is put before field names in messages ("rope_scaling.").
  ConfigFields(const Json& object, std::string context, std::string prefix = {})
      : object_(object), context_(std::move(context)), prefix_(std::move(prefix)) {}

  bool has(std::string_view key) const { return object_.find(key) != nullptr; }
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t least,
                                      std::int64_t most) const;
  std::optional<double> number(std::string_view key) const;
  /// A number above zero, or the fallback when the field is absent.
  double positive(std::string_view key, double fallback) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key, std::int64_t least,
                                                    std::int64_t most) const;
  /// One integer or a list of them; nullopt when absent.
  std::optional<std::vector<std::int64_t>> ids(std::string_view key) const;
  /// Null when absent; throws unless it is an object.
  const Json* object(std::string_view key) const;

  /// Extents of a model: 1 to 2^31 - 1, so that products of two never overflow.
  std::optional<std::int64_t> extent(std::string_view key) const {
    return integer(key, 1, std::numeric_limits<std::int32_t>::max());
  }

  Error wrong(std::string_view key, const std::string& found, const std::string& expected) const;
  Error missing(std::string_view key, const std::string& expected) const;

 private:
  const Json* find(std::string_view key) const;

  const Json& object_;
  std::string context_;
  std::string prefix_;
};

}  // namespace lora
