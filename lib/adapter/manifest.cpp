#include "lora/adapter/manifest.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <system_error>

#include "lora/base/error.h"

namespace lora {
namespace {

constexpr const char* kSchema = "lora.manifest/1";

class Reader {
 public:
  explicit Reader(const std::string& context) : context_(context) {}

  [[noreturn]] void refuse(const std::string& where, const std::string& found,
                           const std::string& expected) const {
    throw Error(ErrorKind::malformed, "cannot read manifest " + context_ + ": " + where + " is " +
                                          found + ", expected " + expected)
        .in_file(context_);
  }

  const JsonObject& object(const Json& value, const std::string& where) const {
    const JsonObject* object = value.as_object();
    if (object == nullptr) refuse(where, std::string(value.type_name()), "an object");
    return *object;
  }

  // Exactly these members: a manifest with more was written by something newer.
  const JsonObject& object_of(const Json& value, const std::string& where,
                              std::initializer_list<std::string_view> names,
                              std::initializer_list<std::string_view> optional = {}) const {
    const JsonObject& members = object(value, where);
    const auto is_among = [](const auto& list, std::string_view name) {
      return std::find(list.begin(), list.end(), name) != list.end();
    };
    for (const std::string_view name : names)
      if (members.find(name) == nullptr)
        refuse(where, "without \"" + std::string(name) + "\"", "that member");
    for (const auto& [name, member] : members)
      if (!is_among(names, name) && !is_among(optional, name))
        refuse(where, "with the unknown member \"" + name + "\"", "no other members");
    return members;
  }

  std::string text(const Json& value, const std::string& where) const {
    if (!value.is_string()) refuse(where, std::string(value.type_name()), "a string");
    return *value.as_string();
  }

  Digest digest(const Json& value, const std::string& where) const {
    const std::string hex = text(value, where);
    const auto digest = Digest::from_hex(hex);
    if (!digest) refuse(where, "\"" + hex + "\"", "64 hexadecimal digits");
    return *digest;
  }

  double number(const Json& value, const std::string& where) const {
    const auto number = value.as_double();
    if (!number) refuse(where, std::string(value.type_name()), "a number");
    return *number;
  }

  double mean(const Json& value, const std::string& where) const {
    if (value.is_null()) return 0;
    if (const std::string* text = value.as_string()) {
      if (*text == "nan") return std::numeric_limits<double>::quiet_NaN();
      if (*text == "inf") return std::numeric_limits<double>::infinity();
      if (*text == "-inf") return -std::numeric_limits<double>::infinity();
    }
    return number(value, where);
  }

  TensorRecord record(const Json& value, const std::string& where) const {
    const JsonObject& members = object_of(value, where, {"dtype", "shape", "sha256", "mean"});
    TensorRecord record;
    record.dtype = text(*members.find("dtype"), where + ".dtype");
    if (!dtype_from_string(record.dtype))
      refuse(where + ".dtype", "\"" + record.dtype + "\"", "a dtype such as F32");
    const Json& shape = *members.find("shape");
    if (!shape.is_array()) refuse(where + ".shape", std::string(shape.type_name()), "an array");
    for (const Json& extent : *shape.as_array()) {
      const auto size = extent.as_int();
      if (!size || *size < 0) refuse(where + ".shape", dump_json(extent), "sizes");
      record.shape.push_back(*size);
    }
    record.digest = digest(*members.find("sha256"), where + ".sha256");
    record.mean = mean(*members.find("mean"), where + ".mean");
    return record;
  }

 private:
  const std::string& context_;
};

std::string member_of(const char* map, const std::string& name) {
  return std::string(map) + "[" + name + "]";
}

Json record_json(const TensorRecord& record) {
  const auto dtype = dtype_from_string(record.dtype);
  return JsonObject{{"dtype", record.dtype},
                    {"shape", JsonArray(record.shape.begin(), record.shape.end())},
                    {"sha256", record.digest.hex()},
                    {"mean", dtype && is_float(*dtype) ? Json(record.mean) : Json()}};
}

}  // namespace

Json to_json(const Manifest& manifest) {
  Json base;
  if (manifest.base_root) {
    JsonObject digests;
    for (const auto& [name, digest] : manifest.base_tensors) digests[name] = digest.hex();
    JsonObject parts{{"root", manifest.base_root->hex()}, {"tensors", std::move(digests)}};
    if (manifest.base_tokenizer) parts["tokenizer"] = manifest.base_tokenizer->hex();
    if (manifest.base_chat_template) parts["chat_template"] = manifest.base_chat_template->hex();
    base = std::move(parts);
  }
  JsonObject scaling;
  for (const auto& [path, value] : manifest.scaling) scaling[path] = value;
  JsonObject tensors;
  for (const auto& [key, record] : manifest.tensors) tensors[key] = record_json(record);
  return JsonObject{{"schema", kSchema},
                    {"base", std::move(base)},
                    {"scaling", std::move(scaling)},
                    {"tensors", std::move(tensors)},
                    {"history", manifest.history}};
}

Manifest parse_manifest(const Json& document, const std::string& context) {
  const Reader reader(context);
  const Json* schema = document.find("schema");
  if (schema != nullptr && schema->is_string() && *schema->as_string() != kSchema)
    throw Error(ErrorKind::unsupported, "cannot read manifest " + context + ": its schema is \"" +
                                            *schema->as_string() + "\", expected \"" + kSchema +
                                            "\"")
        .in_file(context);
  const JsonObject& members = reader.object_of(document, "the document",
                                               {"schema", "base", "scaling", "tensors", "history"});
  reader.text(*schema, "schema");

  Manifest manifest;
  if (const Json& base = *members.find("base"); !base.is_null()) {
    const JsonObject& parts =
        reader.object_of(base, "base", {"root", "tensors"}, {"tokenizer", "chat_template"});
    manifest.base_root = reader.digest(*parts.find("root"), "base.root");
    for (const auto& [name, digest] : reader.object(*parts.find("tensors"), "base.tensors"))
      manifest.base_tensors[name] = reader.digest(digest, member_of("base.tensors", name));
    if (const Json* digest = parts.find("tokenizer"))
      manifest.base_tokenizer = reader.digest(*digest, "base.tokenizer");
    if (const Json* digest = parts.find("chat_template"))
      manifest.base_chat_template = reader.digest(*digest, "base.chat_template");
  }
  for (const auto& [path, value] : reader.object(*members.find("scaling"), "scaling"))
    manifest.scaling[path] = reader.number(value, member_of("scaling", path));
  for (const auto& [key, record] : reader.object(*members.find("tensors"), "tensors"))
    manifest.tensors[key] = reader.record(record, member_of("tensors", key));
  const Json& history = *members.find("history");
  if (!history.is_array())
    reader.refuse("history", std::string(history.type_name()), "an array of objects");
  for (const Json& entry : *history.as_array()) reader.object(entry, "an entry of history");
  manifest.history = *history.as_array();
  return manifest;
}

void write_manifest(AtomicDirectory& directory, const Manifest& manifest) {
  directory.write(kManifestName, dump_json(to_json(manifest)) + "\n");
}

std::optional<Manifest> read_manifest(const std::filesystem::path& adapter_directory) {
  const std::filesystem::path path = adapter_directory / kManifestName;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return parse_manifest(read_json_file(path), path.string());
}

}  // namespace lora
