#include "ops/sibling_gaps.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "lora/adapter/keys.h"
#include "ops/selection.h"

namespace lora {
namespace {

using Names = std::set<std::string>;
using Layers = std::map<std::int64_t, Names>;  ///< by index: what stands behind it

// A stack this short shows what one layer has beside others of its parent; without such others, or
// at its ends, where hybrid models have their odd layers, it must be longer.
constexpr std::int64_t kShortStack = 4, kStack = 6, kLongStack = 12;
constexpr std::int64_t kMostGaps = 10;  ///< one in so many layers may have a gap

std::optional<std::int64_t> index_of(std::string_view component) {
  std::int64_t index = 0;
  const char* const end = component.data() + component.size();
  const auto parsed = std::from_chars(component.data(), end, index);
  if (component.empty() || component[0] == '-' || parsed.ec != std::errc() || parsed.ptr != end)
    return std::nullopt;
  return index;
}

std::string parent_of(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == std::string::npos ? std::string() : name.substr(0, dot);
}

class Gaps {
 public:
  explicit Gaps(const Adapter& adapter) : selection_(adapter.config) {
    if (selection_.needs_base()) return;
    for (const auto& [key, tensor] : adapter.tensors) {
      const ParsedKey parsed = parse_key(key);
      const std::string path = without_base_layers(parsed.module_path);
      present_.insert(path);
      if (parsed.is_lora()) add(path);
    }
  }

  std::vector<std::string> take() {
    for (const auto& [container, layers] : stacks_) look_at(container, layers);
    return {gaps_.begin(), gaps_.end()};
  }

 private:
  // Every index that has something behind it may be that of a layer; in a list of modules
  // themselves each may be of another class.
  void add(const std::string& path) {
    for (std::size_t begin = 0; begin < path.size();) {
      const std::size_t end = path.find('.', begin);
      if (end == std::string::npos) return;
      if (const auto index = index_of(std::string_view(path).substr(begin, end - begin)))
        stacks_[path.substr(0, begin)][*index].insert(path.substr(end + 1));
      begin = end + 1;
    }
  }

  void look_at(const std::string& container, const Layers& layers) {
    const std::int64_t count = layers.rbegin()->first + 1;
    const std::int64_t most = std::max<std::int64_t>(1, count / kMostGaps);
    if (count < kShortStack || layers.begin()->first != 0 ||
        count - static_cast<std::int64_t>(layers.size()) > most)
      return;
    const Names& usual = usual_names(layers);
    std::vector<std::int64_t> absent;
    std::map<std::string, std::vector<std::int64_t>> lacking;
    std::int64_t other = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto layer = layers.find(i);
      if (layer == layers.end()) {
        absent.push_back(i);
        ++other;
      } else if (layer->second != usual) {
        ++other;
        const bool is_part =
            std::includes(usual.begin(), usual.end(), layer->second.begin(), layer->second.end());
        if (!is_part) continue;
        for (const std::string& name : usual)
          if (!layer->second.contains(name)) lacking[name].push_back(i);
      }
    }
    if (other > most) return;
    if (count >= kStack && is_run(absent))
      for (const std::int64_t i : absent)
        for (const std::string& name : usual) ask(container, i, name);
    for (const auto& [name, where] : lacking)
      for (const std::int64_t i : where)
        if (is_certain(name, layers.at(i), where, i, count)) ask(container, i, name);
  }

  static const Names& usual_names(const Layers& layers) {
    std::map<Names, std::int64_t> frequency;
    const Names* usual = nullptr;
    std::int64_t most = 0;
    for (const auto& [index, names] : layers)
      if (const std::int64_t times = ++frequency[names]; times > most) {
        most = times;
        usual = &names;
      }
    return *usual;
  }

  static bool is_run(const std::vector<std::int64_t>& indices) {
    return !indices.empty() &&
           indices.back() - indices.front() + 1 == static_cast<std::int64_t>(indices.size());
  }

  static bool is_certain(const std::string& name, const Names& present,
                         const std::vector<std::int64_t>& where, std::int64_t index,
                         std::int64_t count) {
    const bool is_inside = index > 0 && index + 1 < count;
    const std::string parent = parent_of(name);
    const bool has_others =
        !parent.empty() && std::any_of(present.begin(), present.end(), [&](const auto& other) {
          return parent_of(other) == parent;
        });
    if (has_others) return is_inside || count >= kLongStack;
    return is_inside && count >= kStack && is_run(where);
  }

  void ask(const std::string& container, std::int64_t index, const std::string& name) {
    const std::string path = container + std::to_string(index) + "." + name;
    if (!present_.contains(path) && selection_.selects(path)) gaps_.insert(path);
  }

  Selection selection_;
  Names present_;
  std::map<std::string, Layers> stacks_;  ///< by all that stands before the index
  Names gaps_;
};

}  // namespace

std::vector<std::string> sibling_gaps(const Adapter& adapter) { return Gaps(adapter).take(); }

}  // namespace lora
