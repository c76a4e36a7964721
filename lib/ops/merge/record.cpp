#include "ops/merge/record.h"

#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::merging {
namespace {

constexpr const char* kSchema = "lora.merge_record/1";

JsonObject inputs_of(const Record& record) {
  JsonArray adapters;
  for (std::size_t i = 0; i < record.adapters.size(); ++i)
    adapters.push_back(
        JsonObject{{"sha256", record.adapters[i].hex()}, {"weight", record.weights[i]}});
  return {{"schema", kSchema},
          {"base_root", record.base_root.hex()},
          {"adapters", std::move(adapters)},
          {"dtype", record.dtype.empty() ? Json() : Json(record.dtype)},
          {"compat", record.compat}};
}

std::optional<Digest> digest_in(const Json& object, std::string_view member) {
  const Json* value = object.find(member);
  const std::string* hex = value == nullptr ? nullptr : value->as_string();
  return hex == nullptr ? std::nullopt : Digest::from_hex(*hex);
}

std::string text_in(const Json& object, std::string_view member) {
  const Json* value = object.find(member);
  const std::string* text = value == nullptr ? nullptr : value->as_string();
  return text == nullptr ? std::string() : *text;
}

}  // namespace

Json to_json(const Record& record) {
  JsonObject document = inputs_of(record);
  document["root"] = record.root.hex();
  if (record.untied.empty()) return document;
  JsonObject untied;
  for (const auto& [name, canonical] : record.untied) untied[name] = canonical;
  document["untied"] = std::move(untied);
  return document;
}

JsonObject history_of(const Json& document) {
  const auto member = [&](const char* name) {
    const Json* value = document.find(name);
    if (value == nullptr)
      throw Error(ErrorKind::malformed,
                  std::string("cannot read ") + kRecordName + ": it has no " + name);
    return *value;
  };
  JsonArray inputs{JsonObject{{"base", member("base_root")}}};
  const Json adapters = member("adapters");
  if (!adapters.is_array())
    throw Error(ErrorKind::malformed,
                std::string("cannot read ") + kRecordName + ": adapters is no array");
  for (const Json& adapter : *adapters.as_array()) {
    const Json* digest = adapter.find("sha256");
    const Json* weight = adapter.find("weight");
    JsonObject input{{"adapter", digest == nullptr ? Json() : *digest}};
    if (weight != nullptr && weight->as_double() != 1) input["weight"] = *weight;
    inputs.emplace_back(std::move(input));
  }
  return {{"operation", "merge"},
          {"parameters", JsonObject{{"dtype", member("dtype")}, {"compat", member("compat")}}},
          {"inputs", std::move(inputs)},
          {"result", member("root")}};
}

std::optional<Record> read_record(const std::filesystem::path& directory) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(directory / kRecordName, ignored)) return std::nullopt;
  const Json document = read_json_file(directory / kRecordName);
  const auto base = digest_in(document, "base_root"), root = digest_in(document, "root");
  const Json* listed = document.find("adapters");
  if (text_in(document, "schema") != kSchema || !base || !root || listed == nullptr ||
      listed->as_array() == nullptr)
    return std::nullopt;
  Record record{*base, {}, {}, text_in(document, "dtype"), text_in(document, "compat"), *root, {}};
  const Json* untied = document.find("untied");
  if (untied != nullptr && untied->as_object() != nullptr)
    for (const auto& [name, canonical] : *untied->as_object())
      if (const std::string* text = canonical.as_string()) record.untied[name] = *text;
  for (const Json& one : *listed->as_array()) {
    const auto digest = digest_in(one, "sha256");
    const Json* weight = one.find("weight");
    const auto number = weight == nullptr ? std::nullopt : weight->as_double();
    if (!digest || !number) return std::nullopt;
    record.adapters.push_back(*digest);
    record.weights.push_back(*number);
  }
  return record;
}

std::string state_of(const std::filesystem::path& output, const Record& wanted, int threads,
                     const Sinks& sinks) {
  try {
    const std::optional<Record> found = read_record(output);
    if (!found) return "foreign: no merge of this program";
    if (dump_json(inputs_of(*found)) != dump_json(inputs_of(wanted)))
      return "stale: a merge of other inputs or with other settings";
    const BaseLock lock = compute_base_lock(open_checkpoint(output.string()), threads, sinks);
    return lock.root == found->root ? "up to date" : "stale: its weights were changed since";
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return "foreign: " + error.message();
  }
}

}  // namespace lora::merging
