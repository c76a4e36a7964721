#include "ops/lineage.h"

#include <algorithm>

#include "ops/adapter_digest.h"

namespace lora {
namespace {

const std::string* text_of(const Json& entry, const char* member) {
  const Json* value = entry.find(member);
  return value == nullptr ? nullptr : value->as_string();
}

// The digest that an entry with exactly one adapter among its inputs was made from.
const std::string* only_adapter(const Json& entry) {
  const Json* inputs = entry.find("inputs");
  const JsonArray* list = inputs == nullptr ? nullptr : inputs->as_array();
  const std::string* found = nullptr;
  if (list == nullptr) return nullptr;
  for (const Json& input : *list) {
    if (input.find(LineageInput::kAdapter) == nullptr) continue;
    if (found != nullptr) return nullptr;
    found = text_of(input, LineageInput::kAdapter);
  }
  return found;
}

std::string name_of(const Json& entry) {
  const std::string* name = text_of(entry, "operation");
  return name == nullptr ? "an operation without a name" : *name;
}

std::string shorten(const std::string& hex) { return hex.substr(0, 12); }

}  // namespace

LineageInput lineage_of(const Adapter& adapter, const std::optional<Manifest>& manifest,
                        int threads) {
  LineageInput input;
  input.digest = adapter_digest(adapter, threads);
  if (manifest) input.history = manifest->history;
  return input;
}

JsonArray history_after(const Operation& operation, const Digest& result) {
  JsonArray history, inputs;
  const auto is_adapter = [](const LineageInput& input) {
    return input.kind == LineageInput::kAdapter;
  };
  const bool is_line =
      std::count_if(operation.inputs.begin(), operation.inputs.end(), is_adapter) == 1;
  for (const LineageInput& input : operation.inputs) {
    JsonObject entry{{input.kind, input.digest.hex()}};
    if (input.weight != 1) entry["weight"] = input.weight;
    if (is_line && is_adapter(input)) {
      history = input.history;
    } else if (!input.history.empty()) {
      entry["history"] = input.history;
    }
    inputs.emplace_back(std::move(entry));
  }
  history.emplace_back(JsonObject{{"operation", operation.name},
                                  {"parameters", operation.parameters},
                                  {"inputs", std::move(inputs)},
                                  {"result", result.hex()}});
  return history;
}

std::vector<std::string> lineage_faults(const JsonArray& history, const Digest& now) {
  std::vector<std::string> faults;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const std::string* input = only_adapter(history[i]);
    const std::string* before = i == 0 ? nullptr : text_of(history[i - 1], "result");
    if (input != nullptr && before != nullptr && *input != *before)
      faults.push_back("step " + std::to_string(i + 1) + " (" + name_of(history[i]) +
                       ") was made from " + shorten(*input) + ", and step " + std::to_string(i) +
                       " (" + name_of(history[i - 1]) + ") gave " + shorten(*before));
  }
  const std::string* last = history.empty() ? nullptr : text_of(history.back(), "result");
  if (last != nullptr && *last != now.hex())
    faults.push_back("the last step (" + name_of(history.back()) + ") gave " + shorten(*last) +
                     ", and this adapter is " + shorten(now.hex()));
  return faults;
}

}  // namespace lora
