#include <algorithm>
#include <string>
#include <string_view>

#include "lora/adapter/targets.h"
#include "lora/base/error.h"

namespace lora {
namespace {

// Bounds what a configuration can make of a small model.
constexpr std::size_t kMostLayers = 4096;

Error refuse(const std::string& found) {
  return Error(ErrorKind::incompatible, "cannot replicate layers: " + found);
}

bool has_module(const ModuleList& modules, const std::string& path) {
  return std::any_of(modules.begin(), modules.end(),
                     [&](const ModuleInfo& module) { return module.module_path == path; });
}

std::string container_of(const ModuleList& modules) {
  std::string prefix;
  while (has_module(modules, prefix + "model")) prefix += "model.";
  if (has_module(modules, prefix + "bert")) prefix += "bert.";
  for (const std::string_view name : {"layers", "encoder.layer", "h"})
    if (const std::string path = prefix + std::string(name); has_module(modules, path)) return path;
  throw refuse("the model has no list of layers named layers, encoder.layer or h, expected one");
}

// Indices of the layers to take, in their new order.
std::vector<std::int64_t> layer_order(const Json& ranges) {
  std::vector<std::int64_t> order;
  const JsonArray* listed = ranges.as_array();
  for (const Json& range : listed == nullptr ? JsonArray{} : *listed) {
    const JsonArray* ends = range.as_array();
    const auto start = ends != nullptr && ends->size() == 2 ? (*ends)[0].as_int() : std::nullopt;
    const auto end = ends != nullptr && ends->size() == 2 ? (*ends)[1].as_int() : std::nullopt;
    if (!start || !end || *start < 0)
      throw refuse("layer_replication holds " + dump_json(range, kCompactStyle) +
                   ", expected [start, end) pairs");
    for (std::int64_t i = *start; i < *end; ++i) {
      if (order.size() == kMostLayers)
        throw refuse("layer_replication gives more than " + std::to_string(kMostLayers) +
                     " layers, expected fewer");
      order.push_back(i);
    }
  }
  return order;
}

void append_layer(ModuleList& result, const ModuleList& modules, const std::string& container,
                  std::int64_t from, std::size_t to) {
  const std::string source = container + "." + std::to_string(from);
  const std::string target = container + "." + std::to_string(to);
  const std::size_t before = result.size();
  for (const ModuleInfo& module : modules) {
    const std::string& path = module.module_path;
    if (path != source && !path.starts_with(source + ".")) continue;
    result.push_back(module);
    result.back().module_path = target + path.substr(source.size());
  }
  if (result.size() == before)
    throw refuse("layer_replication names layer " + std::to_string(from) + ", and " + container +
                 " has none of that index");
}

}  // namespace

ModuleList replicate_layers(const AdapterConfig& config, const ModuleList& modules) {
  const Json* ranges = config.other.find("layer_replication");
  const JsonArray* listed = ranges == nullptr ? nullptr : ranges->as_array();
  if (listed == nullptr || listed->empty()) return modules;
  const std::string container = container_of(modules);
  const std::vector<std::int64_t> order = layer_order(*ranges);
  ModuleList result;
  for (const ModuleInfo& module : modules) {
    if (module.module_path.starts_with(container + ".")) continue;
    result.push_back(module);
    if (module.module_path != container) continue;
    for (std::size_t i = 0; i < order.size(); ++i)
      append_layer(result, modules, container, order[i], i);
  }
  return result;
}

}  // namespace lora
