#include "lora/ops/adapter_index.h"

#include <algorithm>

#include "lora/adapter/update.h"
#include "lora/base/equal_bytes.h"
#include "ops/set_claims.h"
#include "ops/verify_open.h"

namespace lora {
namespace {

std::pair<std::int64_t, std::int64_t> shape_of(const LoraModule& module) {
  const MatrixShape shape = update_shape(module);
  return {shape.rows, shape.columns};
}

bool is_bias(const std::string& base_name) { return base_name.ends_with(".bias"); }

}  // namespace

void AdapterIndex::open(const std::filesystem::path& path,
                        const std::optional<AdapterConfig>& config) {
  if (by_path_.contains(path)) return;
  OpenedAdapter opened = open_to_verify(path, config);
  std::optional<Manifest> manifest = read_manifest(opened.adapter.directory());
  StatedBase base = stated_base(opened.adapter, manifest);
  by_path_.emplace(path, entries_.size());
  entries_.push_back({std::move(opened.adapter), std::move(opened.config_problems),
                      std::move(manifest), std::move(base)});
  // What PEFT refuses to read is loaded together with nothing.
  if (entries_.back().config_problems.empty()) index(entries_.size() - 1);
}

const AdapterIndex::Entry* AdapterIndex::find(const std::filesystem::path& path) const {
  const auto found = by_path_.find(path);
  return found == by_path_.end() ? nullptr : &entries_[found->second];
}

void AdapterIndex::index(std::size_t position) {
  const Adapter& adapter = entries_[position].adapter;
  for (const LoraModule& module : adapter.modules) {
    adapting_[module.module_path].push_back(position);
    if (has_weight_shape(module)) shapes_[module.module_path][shape_of(module)].push_back(position);
  }
  for (const auto& [base_name, tensor] : adapter.replacements) {
    if (!is_bias(base_name)) replacing_[owner_of_parameter(base_name)].push_back(position);
    std::vector<Values>& known = replacements_[base_name];
    auto same = std::find_if(known.begin(), known.end(), [&](const Values& values) {
      return has_equal_bytes(values.tensor, tensor);
    });
    if (same == known.end()) same = known.insert(same, {tensor, {}});
    same->members.push_back(position);
  }
  for (const TokenRows& rows : adapter.tokens) {
    adapting_[rows.module_path].push_back(position);
    for (const std::int64_t row : rows.indices)
      token_rows_[{rows.module_path, row}].push_back(position);
  }
  if (auto parameters = target_parameters_of(adapter.config); !parameters.empty())
    parameters_[std::move(parameters)].push_back(position);
  if (adapter.config.bias != BiasMode::none) with_biases_.push_back(position);
  (has_kasa(adapter.config) ? with_kasa_ : without_kasa_).push_back(position);
  if (!base_changing_init(adapter.config).empty()) rewriting_base_.push_back(position);
}

std::vector<const AdapterIndex::Entry*> AdapterIndex::conflicting(const Adapter& adapter) const {
  std::set<std::size_t> found;
  const auto add = [&](const Members& members) { found.insert(members.begin(), members.end()); };
  const auto add_from = [&](const auto& table, const auto& key) {
    if (const auto entry = table.find(key); entry != table.end()) add(entry->second);
  };
  for (const LoraModule& module : adapter.modules) {
    add_from(replacing_, module.module_path);
    const auto shapes = shapes_.find(module.module_path);
    if (shapes == shapes_.end() || !has_weight_shape(module)) continue;
    for (const auto& [shape, members] : shapes->second)
      if (shape != shape_of(module)) add(members);
  }
  for (const auto& [base_name, tensor] : adapter.replacements) {
    if (!is_bias(base_name)) add_from(adapting_, owner_of_parameter(base_name));
    const auto known = replacements_.find(base_name);
    if (known == replacements_.end()) continue;
    for (const Values& values : known->second)
      if (!has_equal_bytes(values.tensor, tensor)) add(values.members);
  }
  for (const TokenRows& rows : adapter.tokens) {
    add_from(replacing_, rows.module_path);
    for (const std::int64_t row : rows.indices)
      add_from(token_rows_, std::pair(rows.module_path, row));
  }
  if (const auto parameters = target_parameters_of(adapter.config); !parameters.empty())
    for (const auto& [others, members] : parameters_)
      if (others != parameters) add(members);
  if (adapter.config.bias != BiasMode::none) add(with_biases_);
  add(has_kasa(adapter.config) ? without_kasa_ : with_kasa_);
  add(rewriting_base_);
  if (!base_changing_init(adapter.config).empty())
    for (const Members* all : {&with_kasa_, &without_kasa_}) add(*all);
  std::vector<const Entry*> entries;
  for (const std::size_t position : found)
    if (entries_[position].adapter.path != adapter.path) entries.push_back(&entries_[position]);
  std::sort(entries.begin(), entries.end(),
            [](const Entry* x, const Entry* y) { return x->adapter.path < y->adapter.path; });
  return entries;
}

}  // namespace lora
