#include "engine/adapter_checks.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "engine/base_change.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

// Members of adapter_config.json that change the arithmetic of every layer when they are set.
constexpr std::array<std::string_view, 5> kOtherArithmetic = {
    "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config", "use_bdlora"};

// PEFT takes the factors of each adapter out of what the one before has left.
void refuse_base_changing(const Adapter& adapter, std::size_t adapters) {
  if (base_change_of(adapter.config) && adapters > 1)
    throw Error(ErrorKind::unsupported,
                "loading several adapters of which one has init_lora_weights \"" +
                    base_changing_init(adapter.config) +
                    "\": it changes the base of the others, expected it alone")
        .in_file(adapter.path.string());
}

// Empty when the engine has a layer for this module.
std::string unsupported_kind(const LoraModule& module) {
  if (module.kind == LayerKind::parameter) return " (expert parameter)";
  if (module.kind == LayerKind::convolution) return " (convolution)";
  if (module.kind == LayerKind::attention) return " (fused attention)";
  if (module.diagonal) return " (KaSA)";
  if (module.pool > 1) return " (QALoRA)";
  if (module.blocks_a > 1 || module.blocks_b > 1) return " (block-diagonal)";
  return {};
}

void refuse_unsupported(const Adapter& adapter, std::size_t adapters) {
  refuse_base_changing(adapter, adapters);
  for (const std::string_view name : kOtherArithmetic)
    if (const Json* value = adapter.config.other.find(name); value && !value->is_null())
      throw Error(ErrorKind::unsupported, "loading an adapter with " + std::string(name) +
                                              ": the engine does not compute it")
          .in_file(adapter.path.string());
  std::vector<std::string> offenders;
  for (const LoraModule& module : adapter.modules)
    if (const std::string kind = unsupported_kind(module); !kind.empty())
      offenders.push_back(module.module_path + kind);
  if (!offenders.empty())
    throw Error(ErrorKind::unsupported,
                "loading an adapter: the engine computes LoRA on linear layers, GPT-2's Conv1D "
                "and embeddings, found " +
                    join_offenders(offenders))
        .in_file(adapter.path.string());
}

// The manual step of a family computes plain LoRA on linear layers.
void refuse_beyond_plain(const Adapter& adapter) {
  std::vector<std::string> offenders;
  for (const LoraModule& module : adapter.modules)
    if (module.magnitude || module.kind == LayerKind::embedding)
      offenders.push_back(module.module_path + (module.magnitude ? " (DoRA)" : " (embedding)"));
  for (const TokenRows& tokens : adapter.tokens)
    offenders.push_back(tokens.module_path + " (trainable tokens)");
  if (!offenders.empty())
    throw Error(ErrorKind::unsupported,
                "loading an adapter: this model takes plain LoRA on linear layers, found " +
                    join_offenders(offenders))
        .in_file(adapter.path.string());
}

void check_shape(const std::string& what, const Tensor& tensor,
                 const std::vector<std::int64_t>& expected, std::vector<std::string>& offenders) {
  if (tensor.shape != expected)
    offenders.push_back(what + " has shape " + shape_to_string(tensor.shape) + ", expected " +
                        shape_to_string(expected));
  else if (!is_float(tensor.dtype))
    offenders.push_back(what + " has dtype " + std::string(to_string(tensor.dtype)) +
                        ", expected a float");
}

void check_module(const LoraModule& module, const Sites& sites,
                  std::vector<std::string>& offenders) {
  const LoraSite* site = find_site(sites, module.module_path);
  if (site == nullptr) {
    const bool exists = find_parameter(sites, module.module_path + ".weight") != nullptr;
    offenders.push_back(module.module_path +
                        (exists ? " takes no LoRA layer" : " does not exist in the base"));
    return;
  }
  if ((module.kind == LayerKind::embedding) != (site->kind == LayerKind::embedding)) {
    offenders.push_back(module.module_path + " is " +
                        (site->kind == LayerKind::embedding ? "an embedding" : "no embedding") +
                        " in the base");
    return;
  }
  const std::string& path = module.module_path;
  check_shape("A of " + path, module.a, {module.rank, site->inputs()}, offenders);
  check_shape("B of " + path, module.b, {site->outputs(), module.rank}, offenders);
  if (module.bias)
    check_shape("the lora_B bias of " + path, *module.bias, {site->outputs()}, offenders);
  if (module.magnitude)
    check_shape("the magnitude of " + path, *module.magnitude, {site->outputs()}, offenders);
}

// Rows that two adapters claim have no defined value, in PEFT neither.
void check_tokens(const TokenRows& tokens, const Sites& sites,
                  std::set<std::pair<std::string, std::int64_t>>& claimed,
                  std::vector<std::string>& offenders) {
  const Parameter* table = find_parameter(sites, tokens.module_path + ".weight");
  if (table == nullptr || table->shape.size() != 2) {
    offenders.push_back("trainable tokens of " + tokens.module_path +
                        ", which is no table of the base");
    return;
  }
  const auto count = static_cast<std::int64_t>(tokens.indices.size());
  check_shape("trainable tokens of " + tokens.module_path, tokens.rows, {count, table->shape[1]},
              offenders);
  for (const std::int64_t index : tokens.indices) {
    if (index < 0 || index >= table->shape[0])
      offenders.push_back("token " + std::to_string(index) + " of " + tokens.module_path +
                          ", expected 0 to " + std::to_string(table->shape[0] - 1));
    else if (!claimed.insert({tokens.module_path, index}).second)
      offenders.push_back("token " + std::to_string(index) + " of " + tokens.module_path +
                          " has two values");
  }
}

void check_replacement(const std::string& name, const Tensor& tensor, const Sites& sites,
                       std::map<std::string, const Tensor*>& replaced,
                       std::vector<std::string>& offenders) {
  const Parameter* parameter = find_parameter(sites, name);
  if (parameter == nullptr)
    offenders.push_back("parameter " + name + " does not exist in the base");
  else if (parameter->shape != tensor.shape)
    offenders.push_back("parameter " + name + " has shape " + shape_to_string(tensor.shape) +
                        ", expected " + shape_to_string(parameter->shape));
  else if (!is_float(tensor.dtype))
    offenders.push_back("parameter " + name + " has dtype " + std::string(to_string(tensor.dtype)) +
                        ", expected a float");
  const auto [first, is_new] = replaced.emplace(name, &tensor);
  if (!is_new && !has_equal_bytes(*first->second, tensor))
    offenders.push_back("parameter " + name + " gets two values");
}

}  // namespace

LoraSite* find_site(const Sites& sites, std::string_view module_path) {
  for (LoraSite* site : sites.layers)
    if (site->module_path == module_path) return site;
  return nullptr;
}

Parameter* find_parameter(const Sites& sites, std::string_view base_name) {
  for (Parameter& parameter : *sites.parameters)
    if (parameter.base_name == base_name) return &parameter;
  return nullptr;
}

void check_adapters(const ModelOptions& options, const Sites& sites, Gradients gradients) {
  if (options.trainable && options.adapters.size() > 1)
    throw Error(ErrorKind::usage, "loading " + std::to_string(options.adapters.size()) +
                                      " adapters as trainable, expected one");
  std::map<std::string, const Tensor*> replaced;
  std::set<std::pair<std::string, std::int64_t>> claimed;
  for (const Adapter* adapter : options.adapters) {
    refuse_unsupported(*adapter, options.adapters.size());
    if (gradients == Gradients::manual) refuse_beyond_plain(*adapter);
    std::vector<std::string> offenders;
    for (const KeyProblem& problem : adapter->problems)
      offenders.push_back(problem.key + ": " + problem.message);
    for (const LoraModule& module : adapter->modules) check_module(module, sites, offenders);
    for (const auto& [name, tensor] : adapter->replacements)
      check_replacement(name, tensor, sites, replaced, offenders);
    for (const TokenRows& tokens : adapter->tokens) check_tokens(tokens, sites, claimed, offenders);
    if (!offenders.empty())
      throw Error(ErrorKind::incompatible,
                  "putting the adapter onto the base: " + std::to_string(offenders.size()) +
                      " problems: " + join_offenders(offenders))
          .in_file(adapter->path.string());
  }
}

}  // namespace lora::engine
