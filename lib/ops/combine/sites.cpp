#include "ops/combine/sites.h"

#include <map>

#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora::combining {
namespace {

constexpr std::size_t kShown = 5;

bool is_set(const AdapterConfig& config, const char* field) {
  const Json* value = config.other.find(field);
  if (value == nullptr || value->is_null()) return false;
  const auto flag = value->as_bool();
  const JsonArray* list = value->as_array();
  const JsonObject* object = value->as_object();
  return (!flag || *flag) && (list == nullptr || !list->empty()) &&
         (object == nullptr || !object->empty());
}

// Empty when the updates of this adapter are sums of products and nothing else.
std::string why_not(const AdapterConfig& config) {
  if (config.use_dora) return "DoRA gives the sum of weight and update a magnitude of its own";
  if (is_set(config, "kasa_config")) return "KaSA truncates the base that it is added to";
  if (is_set(config, "alora_invocation_tokens"))
    return "its update depends on tokens of the input (alora_invocation_tokens)";
  if (is_set(config, "arrow_config")) return "its updates are chosen by a router (arrow_config)";
  if (is_set(config, "use_qalora")) return "QALoRA pools the inputs of its factors";
  if (const std::string init = base_changing_init(config); !init.empty())
    return "it was initialised with " + init + ", which rewrites the base";
  return {};
}

std::string why_not(const LoraModule& module) {
  if (module.magnitude) return "has a DoRA magnitude";
  if (module.diagonal) return "has a KaSA diagonal";
  if (module.groups > 1) return "adapts a grouped convolution";
  if (module.blocks_a > 1 || module.blocks_b > 1) return "has block-diagonal factors (BD-LoRA)";
  if (module.pool > 1) return "pools its inputs (QALoRA)";
  return {};
}

void require_sums(const std::vector<const Adapter*>& adapters) {
  std::vector<std::string> reasons;
  for (const Adapter* adapter : adapters) {
    if (const std::string why = why_not(adapter->config); !why.empty()) {
      reasons.push_back(adapter->path.string() + ": " + why);
      continue;
    }
    std::map<std::string, std::vector<std::string>> sites;
    for (const LoraModule& module : adapter->modules)
      if (const std::string why = why_not(module); !why.empty())
        sites[why].push_back(module.module_path);
    for (const auto& [why, paths] : sites)
      reasons.push_back(adapter->path.string() + ": " + rules::join_some(paths) + " " + why);
  }
  if (!reasons.empty())
    throw Error(ErrorKind::unsupported, "cannot combine updates that no sum expresses: " +
                                            rules::join_some(reasons, kShown))
        .with_hint(
            "merge them into the base one after another with lora merge; an adapter with such "
            "an initialisation becomes plain with lora convert --init-adapter");
}

// The same weight of the base, read in the same way; empty when it is.
std::string difference(const LoraModule& a, const LoraModule& b) {
  const auto text = [](const LoraModule& module) {
    const MatrixShape shape = update_shape(module);
    return "[" + std::to_string(shape.rows) + ", " + std::to_string(shape.columns) + "]" +
           (module.experts == 1 ? "" : " with " + std::to_string(module.experts) + " experts");
  };
  if (text(a) != text(b)) return "is " + text(a) + " and " + text(b);
  if (a.kind != b.kind)
    return "is " + std::string(to_string(a.kind)) + " and " + std::string(to_string(b.kind));
  const bool has_same_kernel =
      std::equal(a.a.shape.begin() + 1, a.a.shape.end(), b.a.shape.begin() + 1, b.a.shape.end());
  if (!has_same_kernel) return "has two kernels";
  if (a.is_in_out != b.is_in_out)
    return "is read as [experts, in, out] and as [experts, out, in] by the recorded PEFT versions";
  if (a.base_name != b.base_name) return "stands for " + a.base_name + " and " + b.base_name;
  return {};
}

}  // namespace

std::vector<Site> sites_of(const std::vector<const Adapter*>& adapters) {
  require_sums(adapters);
  std::map<std::string, Site> sites;
  std::vector<std::string> faults;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    for (const LoraModule& module : adapters[i]->modules) {
      Site& site = sites[module.module_path];
      if (site.parts.empty()) {
        site.module_path = module.module_path;
      } else if (const std::string what = difference(site.shape_of(), module); !what.empty()) {
        faults.push_back(module.module_path + " " + what);
        continue;
      }
      Part part{i, &module, update_factors(module)};
      for (UpdateFactor& term : part.terms) term.scaling = module.scaling;
      site.parts.push_back(std::move(part));
    }
  if (!faults.empty())
    throw Error(ErrorKind::incompatible,
                "cannot combine adapters of different models: " + rules::join_some(faults, kShown));
  std::vector<Site> result;
  result.reserve(sites.size());
  for (auto& [path, site] : sites) result.push_back(std::move(site));
  return result;
}

}  // namespace lora::combining
