// The 41 fields of PEFT 0.21.2's LoraConfig on disk: typed reading, defaults of the untyped ones.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/config.h"

namespace lora {

/// Typed access to the members of one adapter_config.json; every failure is Error(malformed) that
/// names the field. A reader returns its default when the member is absent.
class FieldReader {
 public:
  FieldReader(const JsonObject& document, const std::string& context)
      : document_(document), context_(context) {}

  const Json* find(std::string_view field) const { return document_.find(field); }

  bool boolean(std::string_view field, bool fallback) const;
  std::int64_t positive(std::string_view field, std::int64_t fallback) const;
  double number(std::string_view field, double fallback) const;
  std::optional<std::string> text_or_null(std::string_view field) const;
  std::string one_of(std::string_view field, std::string_view fallback,
                     std::initializer_list<std::string_view> allowed) const;
  ModuleSelector selector(std::string_view field) const;
  std::vector<std::string> names_or_null(std::string_view field, bool allow_scalar) const;
  std::vector<std::int64_t> indices_or_null(std::string_view field) const;
  NumberPattern pattern(std::string_view field, bool positive_integers) const;

  [[noreturn]] void refuse(std::string_view field, const Json& found,
                           std::string_view expected) const;

 private:
  std::vector<std::string> names(std::string_view field, const JsonArray& array) const;

  const JsonObject& document_;
  const std::string& context_;
};

/// Fields of PEFT 0.21.2 that have no typed member, with the values save_pretrained writes for them
/// by default.
const JsonObject& untyped_defaults();

/// Whether this is the name of a typed member on disk.
bool is_typed_field(std::string_view name);

/// Throws Error(malformed) unless this field of untyped_defaults() is absent or of PEFT's type.
void check_untyped_field(const FieldReader& reader, std::string_view field);

/// Reads one typed member into the configuration; throws Error(malformed).
struct TypedMember {
  std::string_view field;
  void (*read)(const FieldReader&, AdapterConfig&);
};

/// Every typed member except peft_type.
const std::vector<TypedMember>& typed_members();

}  // namespace lora
