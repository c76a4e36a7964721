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

}  // namespace

Json to_json(const Record& record) {
  JsonObject document = inputs_of(record);
  document["root"] = record.root.hex();
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

std::string state_of(const std::filesystem::path& output, const Record& wanted, int threads,
                     const Sinks& sinks) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(output / kRecordName, ignored))
    return "foreign: no merge of this program";
  try {
    const Json document = read_json_file(output / kRecordName);
    JsonObject found = document.as_object() ? *document.as_object() : JsonObject();
    const Json* text = found.find("root");
    const std::string* hex = text == nullptr ? nullptr : text->as_string();
    const auto root = hex == nullptr ? std::nullopt : Digest::from_hex(*hex);
    if (!root) return "foreign: its lora_merge.json names no root";
    found.erase("root");
    if (dump_json(found) != dump_json(inputs_of(wanted)))
      return "stale: a merge of other inputs or with other settings";
    const BaseLock lock = compute_base_lock(open_checkpoint(output.string()), threads, sinks);
    return lock.root == *root ? "up to date" : "stale: its weights were changed since";
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return "foreign: " + error.message();
  }
}

}  // namespace lora::merging
