#include <algorithm>
#include <cmath>

#include "lora/adapter/keys.h"
#include "lora/adapter/update.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/ops/diff.h"
#include "ops/diff_config.h"
#include "ops/diff_groups.h"
#include "ops/diff_tokens.h"

namespace lora {
namespace {

bool is_equal_or_absent(const std::optional<Tensor>& a, const std::optional<Tensor>& b) {
  return a.has_value() == b.has_value() && (!a || has_equal_bytes(*a, *b));
}

std::string shape_text(const LoraModule& module) {
  const MatrixShape shape = update_shape(module);
  const std::string text = shape_to_string(std::vector{shape.rows, shape.columns});
  return module.experts == 1 ? text : std::to_string(module.experts) + " of " + text;
}

bool is_finite(const LoraModule& module) {
  if (!std::isfinite(module.scaling)) return false;
  const auto holds = [](const Tensor& tensor) {
    return statistics_of(tensor).first_non_finite < 0;
  };
  for (const auto* part : {&module.bias, &module.magnitude, &module.diagonal})
    if (*part && !holds(**part)) return false;
  return holds(module.a) && holds(module.b);
}

ModuleDifference compare(const LoraModule& a, const LoraModule& b) {
  ModuleDifference result;
  result.module_path = a.module_path;
  result.place = place_of(a.module_path);
  result.rank_a = a.rank;
  result.rank_b = b.rank;
  result.scaling_a = a.scaling;
  result.scaling_b = b.scaling;
  const bool equal_factors = a.scaling == b.scaling && a.times == b.times &&
                             has_equal_bytes(a.a, b.a) && has_equal_bytes(a.b, b.b) &&
                             is_equal_or_absent(a.diagonal, b.diagonal);
  result.has_equal_bytes = equal_factors && is_equal_or_absent(a.bias, b.bias) &&
                           is_equal_or_absent(a.magnitude, b.magnitude);
  result.is_direction = a.magnitude || b.magnitude;
  result.distance = update_distance(a, b);
  const double sum = result.distance.norm_a + result.distance.norm_b;
  if (!std::isfinite(sum) || a.bias || a.magnitude || b.bias || b.magnitude) {
    result.is_finite_a = is_finite(a);
    result.is_finite_b = is_finite(b);
  }
  // Equal factors are equal, whatever rounding the general formula would show.
  if (equal_factors) result.distance.difference = result.distance.relative = 0;
  return result;
}

// Spellings of names aside.
TensorMap cleaned(const TensorMap& tensors) {
  TensorMap result;
  for (const auto& [key, tensor] : tensors) result.emplace(to_peft_key(parse_key(key)), tensor);
  return result;
}

bool has_equal_tensors(const TensorMap& x, const TensorMap& y) {
  const TensorMap a = cleaned(x), b = cleaned(y);
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const auto& first, const auto& second) {
           return first.first == second.first && has_equal_bytes(first.second, second.second);
         });
}

// A file may hold more adapters than the one whose modules are compared.
void compare_others(const Adapter& a, const Adapter& b, AdapterDiff& result) {
  const auto text = [](const std::string& name) { return "adapter " + name; };
  for (const auto& [name, tensors] : a.others) {
    const auto other = b.others.find(name);
    if (other == b.others.end()) {
      result.only_in_a.push_back(text(name));
    } else if (!has_equal_tensors(tensors, other->second)) {
      result.changed_replacements.push_back(text(name));
    }
  }
  for (const auto& [name, tensors] : b.others)
    if (!a.others.contains(name)) result.only_in_b.push_back(text(name));
}

void add_groups(AdapterDiff& result) {
  std::vector<GroupMember> members;
  std::vector<ModulePlace> places;
  std::vector<double> relative, cosines;
  for (const ModuleDifference& module : result.modules) {
    const UpdateDistance& distance = module.distance;
    members.push_back({module.place, distance.norm_a, distance.norm_b, distance.difference,
                       distance.cosine, distance.largest_angle, !module.has_equal_bytes});
    places.push_back(module.place);
    relative.push_back(distance.relative);
    cosines.push_back(distance.cosine);
  }
  const GroupDifference total = total_of(members);
  result.total_difference = total.difference;
  result.total_norm_a = total.norm_a;
  result.total_norm_b = total.norm_b;
  result.total_cosine = total.cosine;
  result.by_leaf = group_by_leaf(members);
  result.by_layer = group_by_layer(members);
  result.relative_map = heat_map(places, relative);
  result.cosine_map = heat_map(places, cosines);
}

}  // namespace

bool AdapterDiff::is_equal() const {
  return fields.empty() && only_in_a.empty() && only_in_b.empty() && changed_replacements.empty() &&
         std::all_of(modules.begin(), modules.end(),
                     [](const ModuleDifference& module) { return module.has_equal_bytes; });
}

AdapterDiff diff(const Adapter& a, const Adapter& b, const AdapterDiffOptions& options) {
  AdapterDiff result;
  result.fields = diff_fields(a.config, b.config);
  std::vector<std::pair<const LoraModule*, const LoraModule*>> common;
  std::string misshaped;
  for (const LoraModule& module : a.modules) {
    const LoraModule* other = b.find(module.module_path);
    if (other == nullptr) {
      result.only_in_a.push_back(module.module_path);
    } else if (shape_text(module) != shape_text(*other)) {
      misshaped += (misshaped.empty() ? "" : ", ") + module.module_path + " (" +
                   shape_text(module) + " and " + shape_text(*other) + ")";
    } else {
      common.emplace_back(&module, other);
    }
  }
  if (!misshaped.empty())
    throw Error(ErrorKind::incompatible,
                "cannot compare the adapters, their updates have different shapes: " + misshaped)
        .with_hint("they were made for different bases");
  for (const LoraModule& module : b.modules)
    if (a.find(module.module_path) == nullptr) result.only_in_b.push_back(module.module_path);
  for (const auto& [name, tensor] : a.replacements) {
    const auto other = b.replacements.find(name);
    if (other == b.replacements.end()) {
      result.only_in_a.push_back(name);
    } else if (!has_equal_bytes(tensor, other->second)) {
      result.changed_replacements.push_back(name);
    }
  }
  for (const auto& [name, tensor] : b.replacements)
    if (!a.replacements.contains(name)) result.only_in_b.push_back(name);
  for (std::string& tokens : changed_token_rows(a.tokens, b.tokens))
    result.changed_replacements.push_back(std::move(tokens));
  compare_others(a, b, result);

  result.modules.resize(common.size());
  parallel_for(common.size(), options.threads, [&](std::size_t i) {
    options.sinks.throw_if_cancelled();
    result.modules[i] = compare(*common[i].first, *common[i].second);
    for (const Tensor* tensor : {&common[i].first->a, &common[i].first->b})
      drop_pages(a.mappings, tensor->bytes);
    for (const Tensor* tensor : {&common[i].second->a, &common[i].second->b})
      drop_pages(b.mappings, tensor->bytes);
  });
  add_groups(result);
  return result;
}

}  // namespace lora
