#include <algorithm>
#include <array>
#include <map>

#include "lora/adapter/keys.h"
#include "lora/base/dtype.h"
#include "lora/base/equal_bytes.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"
#include "ops/saved_embeddings.h"

namespace lora::rules {
namespace {

std::string module_of(const std::string& base_name) {
  return base_name.substr(0, base_name.rfind('.'));
}

std::string megabytes(std::uint64_t bytes) {
  return figure(static_cast<double>(bytes) / 1e6) + " MB";
}

std::uint64_t file_bytes(const Adapter& adapter) {
  std::uint64_t total = 0;
  for (const auto& [key, tensor] : adapter.tensors) total += tensor.bytes.size();
  return total;
}

bool is_declared(const AdapterConfig& config, const std::string& module_path) {
  return std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                     [&](const std::string& entry) { return module_path.ends_with(entry); });
}

void embedding_payload(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  const std::uint64_t total = file_bytes(adapter);
  std::vector<std::string> names;
  std::uint64_t bytes = 0;
  std::size_t equal = 0, resized = 0;
  for (const auto& [name, tensor] : adapter.replacements) {
    const std::string path = module_of(name);
    if (!name.ends_with(".weight") || !has_embedding_name(path) ||
        is_declared(adapter.config, path))
      continue;
    names.push_back(name);
    bytes += tensor.bytes.size();
    if (subject.base == nullptr) continue;
    const Tensor* original = subject.base->find(name);
    if (original == nullptr) continue;
    if (original->shape != tensor.shape) ++resized;
    if (has_equal_bytes(*original, tensor)) ++equal;
  }
  if (names.empty() || total == 0) return;
  std::string message = figure(100.0 * static_cast<double>(bytes) / static_cast<double>(total)) +
                        " % of the weights (" + megabytes(bytes) + " of " + megabytes(total) +
                        ") are whole embedding matrices: " + report.list(names);
  std::string hint;
  if (subject.base != nullptr && equal == names.size()) {
    message += "; bit for bit those of the base";
    hint = "save without them: save_pretrained(..., save_embedding_layers=False)";
  } else if (subject.base != nullptr) {
    message += "; they differ from those of the base";
  }
  // What PEFT saves of its own accord is no fault of anyone; a copy nobody asked for is.
  const bool is_waste = subject.base != nullptr && equal == names.size() && resized == 0 &&
                        !saves_embeddings(adapter.config);
  report.add(std::move(message), {.tensor = names.front(),
                                  .module = module_of(names.front()),
                                  .hint = std::move(hint),
                                  .severity = is_waste ? Severity::warning : Severity::note});
}

void dtype_surprise(const Subject& subject, Report& report) {
  std::map<std::string, std::uint64_t> bytes_of;
  std::uint64_t wide = 0, total = 0;
  for (const auto& [key, tensor] : subject.adapter.tensors) {
    if (!is_float(tensor.dtype) || !parse_key(key).is_lora()) continue;
    bytes_of[std::string(to_string(tensor.dtype))] += tensor.bytes.size();
    total += tensor.bytes.size();
    if (tensor.dtype == DType::f32 || tensor.dtype == DType::f64) wide += tensor.bytes.size();
  }
  std::vector<std::string> table;
  for (const auto& [name, bytes] : bytes_of) table.push_back(name + " " + megabytes(bytes));
  if (table.size() > 1) report.add("LoRA tensors have several dtypes: " + report.list(table));
  if (subject.base == nullptr || total == 0 || wide != total) return;
  std::map<DType, std::uint64_t> in_base;
  for (const auto& [name, tensor] : subject.base->tensors)
    if (is_float(tensor.dtype)) in_base[tensor.dtype] += tensor.bytes.size();
  const auto most =
      std::max_element(in_base.begin(), in_base.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == in_base.end() || bits_of(most->first) >= 32 || bytes_of.size() != 1) return;
  const DType own = *dtype_from_string(bytes_of.begin()->first);
  const std::uint64_t narrow = total / bits_of(own) * bits_of(most->first);
  report.add(bytes_of.begin()->first + " adapter on a " + std::string(to_string(most->first)) +
             " base: " + megabytes(total) + ", " + megabytes(narrow) + " in " +
             std::string(to_string(most->first)));
}

}  // namespace

const std::vector<Rule>& payload_rules() {
  static const std::vector<Rule> rules{
      {{"LV105", "embedding-payload", Severity::warning,
        "embedding matrices among the tensors, their share of the bytes, and the base's matrices",
        "Whole embedding matrices ride along (a note where PEFT adds them by itself or they differ "
        "from the base).",
        "save changed rows as trainable tokens, or save with save_embedding_layers=False"},
       embedding_payload},
      {{"LV106", "dtype-surprise", Severity::note, "the dtypes of adapter and base",
        "PEFT upcasts adapters to f32 and saves them so; the file is larger than it needs to be.",
        "rewrite it in the dtype you want: lora save ADAPTER --dtype bf16 -o DIR"},
       dtype_surprise},
  };
  return rules;
}

}  // namespace lora::rules
