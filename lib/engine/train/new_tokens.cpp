#include "engine/train/new_tokens.h"

#include <ATen/ops/index_select.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/base_weight.h"
#include "engine/bridge.h"
#include "engine/train/new_layer.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

constexpr const char* kField = "trainable_token_indices";

struct TokenTable {
  std::string module_path;
  std::vector<std::int64_t> indices;
};

std::vector<std::int64_t> indices_of(const Json& list) {
  std::vector<std::int64_t> indices;
  for (const Json& item : *list.as_array()) {
    const auto index = item.as_int();
    if (!index)
      throw Error(ErrorKind::usage, std::string(kField) + " holds " +
                                        dump_json(item, kCompactStyle) +
                                        ", expected ids of tokens");
    indices.push_back(*index);
  }
  return indices;
}

bool is_table(const ModuleInfo& module) {
  return module.kind == LayerKind::embedding || module.is_output_head;
}

std::vector<TokenTable> tables_of(const Json& field, const ModuleList& modules) {
  std::vector<TokenTable> tables;
  if (field.is_array()) {
    const auto first = std::find_if(modules.begin(), modules.end(), [](const ModuleInfo& module) {
      return module.kind == LayerKind::embedding;
    });
    if (first == modules.end())
      throw Error(ErrorKind::usage,
                  "the base has no embedding, expected one for --trainable-tokens");
    tables.push_back({first->module_path, indices_of(field)});
  } else if (const JsonObject* named = field.as_object()) {
    for (const auto& [name, list] : *named) {
      const std::size_t before = tables.size();
      for (const ModuleInfo& module : modules)
        if (is_table(module) && module.module_path.ends_with(name) && list.is_array())
          tables.push_back({module.module_path, indices_of(list)});
      if (tables.size() == before)
        throw Error(ErrorKind::usage, std::string(kField) + " names " + name +
                                          ", which is no embedding or head of the base");
    }
  }
  return tables;
}

void refuse_second_change(const TokenTable& table, const ResolvedTargets& targets) {
  const auto refuse = [&](const char* where) {
    throw Error(ErrorKind::usage, table.module_path + " is in " + where +
                                      " and has trainable tokens, expected one of them")
        .with_hint("name the tokens, or adapt the whole table");
  };
  const auto is_this = [&](const ModuleInfo& module) {
    return module.module_path == table.module_path;
  };
  if (std::any_of(targets.lora.begin(), targets.lora.end(), is_this)) refuse("target_modules");
  if (std::any_of(targets.saved.begin(), targets.saved.end(), is_this)) refuse("modules_to_save");
}

void check_indices(const TokenTable& table, std::int64_t rows) {
  std::set<std::int64_t> seen;
  for (const std::int64_t index : table.indices) {
    if (index < 0 || index >= rows)
      throw Error(ErrorKind::usage, "token " + std::to_string(index) + " cannot be trained: " +
                                        table.module_path + " has " + std::to_string(rows) +
                                        " rows, expected 0 to " + std::to_string(rows - 1));
    if (!seen.insert(index).second)
      throw Error(ErrorKind::usage,
                  "token " + std::to_string(index) + " is given twice, expected once");
  }
}

}  // namespace

void add_token_rows(TensorMap& tensors, const AdapterConfig& config, const ResolvedTargets& targets,
                    const Checkpoint& base, Compute compute) {
  const Json* field = config.other.find(kField);
  if (field == nullptr || field->is_null()) return;
  for (const TokenTable& table : tables_of(*field, list_modules(base))) {
    if (table.indices.empty()) continue;
    refuse_second_change(table, targets);
    const at::Tensor weight = base_weight(base, table.module_path, compute, "cannot train tokens");
    check_indices(table, weight.size(0));
    const auto count = static_cast<std::int64_t>(table.indices.size());
    const at::Tensor rows =
        at::index_select(weight, 0, view_of(Tensor::from_i64({count}, table.indices)));
    tensors[key_of(KeyRole::trainable_tokens, table.module_path)] = to_lora(rows.to(at::kFloat));
  }
}

}  // namespace lora::engine
