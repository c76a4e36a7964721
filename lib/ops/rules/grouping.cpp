#include "ops/rules/grouping.h"

#include <algorithm>
#include <charconv>
#include <map>

namespace lora::rules {
namespace {

struct Indexed {
  std::string front, back;  ///< around the first index
  std::int64_t index = -1;
};

Indexed split_at_index(const std::string& path) {
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    std::int64_t index = 0;
    const auto parsed = std::from_chars(path.data() + begin, path.data() + end, index);
    if (end != begin && path[begin] != '-' && parsed.ec == std::errc() &&
        parsed.ptr == path.data() + end)
      return {path.substr(0, begin), path.substr(end), index};
    begin = end + 1;
  }
  return {path, {}, -1};
}

}  // namespace

std::string ranges(const std::vector<std::int64_t>& indices) {
  std::string text;
  for (std::size_t i = 0; i < indices.size();) {
    std::size_t last = i;
    while (last + 1 < indices.size() && indices[last + 1] == indices[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(indices[i]);
    if (last != i) text += "-" + std::to_string(indices[last]);
    i = last + 1;
  }
  return text;
}

std::vector<std::string> group_layers(const std::vector<std::string>& names) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<std::int64_t>> layers;
  std::map<std::string, Indexed> parts;
  for (const std::string& name : names) {
    Indexed indexed = split_at_index(name);
    const std::string key = indexed.index < 0 ? name : indexed.front + "*" + indexed.back;
    auto [found, is_new] = layers.try_emplace(key);
    if (is_new) order.push_back(key);
    if (indexed.index >= 0) found->second.push_back(indexed.index);
    parts.try_emplace(key, std::move(indexed));
  }
  std::vector<std::string> grouped;
  for (const std::string& key : order) {
    std::vector<std::int64_t>& indices = layers.at(key);
    std::sort(indices.begin(), indices.end());
    indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
    const Indexed& part = parts.at(key);
    grouped.push_back(indices.empty() ? key : part.front + ranges(indices) + part.back);
  }
  return grouped;
}

std::int64_t layer_of(const std::string& path) { return split_at_index(path).index; }

std::string pattern_path(const LoraModule& module) {
  constexpr std::string_view projection = ".base_layer.out_proj";
  if (module.kind == LayerKind::parameter) return module.base_name;
  if (module.module_path.ends_with(projection))
    return module.module_path.substr(0, module.module_path.size() - projection.size());
  return without_base_layers(module.module_path);
}

std::set<std::string> paths_of(const ModuleList& modules) {
  std::set<std::string> paths;
  for (const ModuleInfo& module : modules)
    if (!module.module_path.empty()) paths.insert(module.module_path);
  return paths;
}

std::string prefix_before(const std::string& module_path) {
  const std::string framed = "." + module_path;
  const auto at = framed.find("." + std::string(kPeftPrefix));
  if (at == std::string::npos) return {};
  return at == 0 ? std::string(kPeftPrefix) : module_path.substr(0, at);
}

std::string counted(std::size_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace lora::rules
