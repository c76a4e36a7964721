#include "lora/adapter/manifest.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <system_error>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "lora/format/json_stream.h"

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
        refuse(where, "with the unknown member " + in_quotes(name), "no other members");
    return members;
  }

  std::string text(const Json& value, const std::string& where) const {
    if (!value.is_string()) refuse(where, std::string(value.type_name()), "a string");
    return *value.as_string();
  }

  Digest digest(const Json& value, const std::string& where) const {
    const std::string hex = text(value, where);
    const auto digest = Digest::from_hex(hex);
    if (!digest) refuse(where, in_quotes(hex), "64 hexadecimal digits");
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
      refuse(where + ".dtype", in_quotes(record.dtype), "a dtype such as F32");
    const Json& shape = *members.find("shape");
    if (!shape.is_array()) refuse(where + ".shape", std::string(shape.type_name()), "an array");
    for (const Json& extent : *shape.as_array()) {
      const auto size = extent.as_int();
      if (!size || *size < 0)
        refuse(where + ".shape", printable(dump_json(extent, kCompactStyle)), "sizes");
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
  return std::string(map) + "[" + printable(name) + "]";
}

const std::vector<JsonPlace>& maps() {
  static const std::vector<JsonPlace> places = {{"base", "tensors"}, {"scaling"}, {"tensors"}};
  return places;
}

// Fills a manifest from the members of its maps, in any order, and then from all the rest.
class Entries {
 public:
  explicit Entries(const std::string& context) : context_(context), reader_(context) {}

  /// False for a name seen before. A wrong entry is reported by finish(): a manifest of another
  /// schema may hold entries of another form, and that is the better complaint.
  bool take(std::size_t place, const std::string& name, const Json& value) {
    try {
      if (place == 0) {
        const std::string where = member_of("base.tensors", name);
        return manifest_.base_tensors.emplace(name, reader_.digest(value, where)).second;
      }
      if (place == 1) {
        const std::string where = member_of("scaling", name);
        return manifest_.scaling.emplace(name, reader_.number(value, where)).second;
      }
      const std::string where = member_of("tensors", name);
      return manifest_.tensors.emplace(name, reader_.record(value, where)).second;
    } catch (const Error& error) {
      if (!first_) first_ = error;
      return true;
    }
  }

  Manifest finish(const Json& rest) {
    const Json* schema = rest.find("schema");
    if (schema != nullptr && schema->is_string() && *schema->as_string() != kSchema)
      throw Error(ErrorKind::unsupported, "cannot read manifest " + context_ + ": its schema is " +
                                              in_quotes(*schema->as_string()) + ", expected \"" +
                                              kSchema + "\"")
          .in_file(context_);
    const JsonObject& members = reader_.object_of(
        rest, "the document", {"schema", "base", "scaling", "tensors", "history"});
    reader_.text(*schema, "schema");
    if (const Json& base = *members.find("base"); !base.is_null()) {
      const JsonObject& parts =
          reader_.object_of(base, "base", {"root", "tensors"}, {"tokenizer", "chat_template"});
      manifest_.base_root = reader_.digest(*parts.find("root"), "base.root");
      reader_.object(*parts.find("tensors"), "base.tensors");
      if (const Json* digest = parts.find("tokenizer"))
        manifest_.base_tokenizer = reader_.digest(*digest, "base.tokenizer");
      if (const Json* digest = parts.find("chat_template"))
        manifest_.base_chat_template = reader_.digest(*digest, "base.chat_template");
    }
    reader_.object(*members.find("scaling"), "scaling");
    reader_.object(*members.find("tensors"), "tensors");
    if (first_) throw *first_;
    const Json& history = *members.find("history");
    if (!history.is_array())
      reader_.refuse("history", std::string(history.type_name()), "an array of objects");
    for (const Json& entry : *history.as_array()) reader_.object(entry, "an entry of history");
    manifest_.history = *history.as_array();
    return std::move(manifest_);
  }

 private:
  const std::string& context_;
  Reader reader_;
  Manifest manifest_;
  std::optional<Error> first_;
};

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
  Entries entries(context);
  for (std::size_t place = 0; place < maps().size(); ++place) {
    const Json* map = &document;
    for (const std::string& key : maps()[place]) map = map != nullptr ? map->find(key) : nullptr;
    if (map == nullptr || !map->is_object()) continue;
    for (const auto& [name, value] : *map->as_object()) entries.take(place, name, value);
  }
  return entries.finish(document);
}

void write_manifest(AtomicDirectory& directory, const Manifest& manifest) {
  directory.write(kManifestName, dump_json(to_json(manifest)) + "\n");
}

std::optional<Manifest> read_manifest(const std::filesystem::path& adapter_directory) {
  const std::filesystem::path path = adapter_directory / kManifestName;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const std::string context = path.string();
  Entries entries(context);
  const Json rest =
      stream_json_file(path, maps(), [&](auto place, const auto& name, const auto& value) {
        return entries.take(place, name, value);
      });
  return entries.finish(rest);
}

}  // namespace lora
