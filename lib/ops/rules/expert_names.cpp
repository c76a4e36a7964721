#include "ops/rules/expert_names.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <vector>

#include "lora/adapter/keys.h"
#include "lora/adapter/name_mapping.h"
#include "lora/adapter/update.h"
#include "ops/rules/grouping.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;
using Shape = std::vector<std::int64_t>;

enum Part : std::size_t { gate, up, down };

struct ExpertPath {
  std::string stack;  ///< "model.layers.0.mlp.experts"
  std::int64_t expert = 0;
  Part part = gate;
};

std::optional<Part> part_of(std::string_view leaf) {
  if (leaf == "gate_proj" || leaf == "w1") return gate;
  if (leaf == "up_proj" || leaf == "w3") return up;
  if (leaf == "down_proj" || leaf == "w2") return down;
  return std::nullopt;
}

// STACK.experts.N.LEAF
std::optional<ExpertPath> expert_path(const std::string& path) {
  const std::size_t leaf = path.rfind('.');
  if (leaf == std::string::npos || leaf == 0) return std::nullopt;
  const std::size_t index = path.rfind('.', leaf - 1);
  if (index == std::string::npos) return std::nullopt;
  ExpertPath found;
  found.stack = path.substr(0, index);
  if (found.stack != "experts" && !found.stack.ends_with(".experts")) return std::nullopt;
  const auto part = part_of(std::string_view(path).substr(leaf + 1));
  const char* const end = path.data() + leaf;
  const auto [rest, failed] = std::from_chars(path.data() + index + 1, end, found.expert);
  if (!part || failed != std::errc() || rest != end || found.expert < 0) return std::nullopt;
  found.part = *part;
  return found;
}

// Where each stack of the adapter is in the base; stacks without one certain place are absent.
std::map<std::string, std::string> place(const std::set<std::string>& stacks,
                                         const std::set<std::string>& in_base) {
  const NameMapping mapping =
      map_names({stacks.begin(), stacks.end()}, {in_base.begin(), in_base.end()});
  std::map<std::string, std::string> places(mapping.renames);
  for (const std::string& stack : stacks)
    if (in_base.contains(stack)) places[stack] = stack;
  return places;
}

std::string parameter_of(Part part) { return part == down ? "down_proj" : "gate_up_proj"; }

const char* sources_of(const std::string& parameter) {
  return parameter == "down_proj" ? "down projections" : "gate and up projections";
}

std::string list_grouped(const std::set<std::string>& names) {
  return join_some(group_layers({names.begin(), names.end()}), 3);
}

class SingleExperts {
 public:
  explicit SingleExperts(const Subject& subject) : subject_(subject) {}

  std::optional<ExpertNames> run() {
    for (const auto& [name, tensor] : subject_.base->tensors) {
      const std::size_t dot = name.rfind('.');
      const std::string leaf = name.substr(dot == std::string::npos ? 0 : dot + 1);
      if (tensor.shape.size() != 3 || (leaf != "gate_up_proj" && leaf != "down_proj")) continue;
      if (dot != std::string::npos) in_base_.insert(name.substr(0, dot));
    }
    if (in_base_.empty()) return std::nullopt;
    for (const LoraModule& module : subject_.adapter.modules)
      if (const auto path = expert_path(module.module_path)) {
        if (subject_.base->find(module.base_name) != nullptr) continue;
        stacks_[path->stack].push_back({*path, &module});
      }
    if (stacks_.empty()) return std::nullopt;
    std::set<std::string> names;
    for (const auto& [stack, sites] : stacks_) names.insert(stack);
    const auto places = place(names, in_base_);
    for (const auto& [stack, sites] : stacks_) {
      const auto found = places.find(stack);
      if (found == places.end()) {
        for (const Site& site : sites) reject(site, "no one stack of the base is its own");
      } else {
        map_stack(found->second, sites);
      }
    }
    return report();
  }

 private:
  struct Site {
    ExpertPath path;
    const LoraModule* module;
  };

  void reject(const Site& site, const std::string& why) {
    rejected_.push_back(site.module->module_path + " (" + why + ")");
    explained_.insert(site.module->module_path);
  }

  void map_stack(const std::string& stack, const std::vector<Site>& sites) {
    std::map<std::int64_t, std::array<const Site*, 3>> experts;
    for (const Site& site : sites) experts[site.path.expert][site.path.part] = &site;
    for (const auto& [expert, parts] : experts) {
      if ((parts[gate] == nullptr) != (parts[up] == nullptr)) {
        ++halves_;
        explained_.insert((parts[gate] ? parts[gate] : parts[up])->module->module_path);
      } else if (parts[gate] != nullptr) {
        for (const Part part : {gate, up}) map(stack, *parts[part]);
      }
      if (parts[down] != nullptr) map(stack, *parts[down]);
    }
  }

  void map(const std::string& stack, const Site& site) {
    const std::string name = stack + "." + parameter_of(site.path.part);
    const Tensor* tensor = subject_.base->find(name);
    if (tensor == nullptr) return reject(site, "the base has no " + name);
    if (site.path.expert >= tensor->shape.at(0))
      return reject(site, "the base has " + std::to_string(tensor->shape[0]) + " experts");
    const MatrixShape update = update_shape(*site.module);
    const std::int64_t outputs = site.path.part == down ? update.rows : 2 * update.rows;
    const std::int64_t a = tensor->shape.at(1), b = tensor->shape.at(2);
    const bool fits =
        (a == outputs && b == update.columns) || (a == update.columns && b == outputs);
    if (!fits)
      return reject(site, "update " + shape_to_string(Shape{update.rows, update.columns}) +
                              ", the stack " + shape_to_string(tensor->shape));
    targets_[parameter_of(site.path.part)].insert(name);
    explained_.insert(site.module->module_path);
    ++mapped_;
  }

  std::optional<ExpertNames> report() const {
    Names paths;
    for (const std::string& path : explained_) paths.push_back(path);
    ExpertNames found;
    found.modules = explained_;
    found.module = paths.front();
    found.message = counted(paths.size(), "module") + " adapt single experts (" +
                    join_some(group_layers(paths), 2) +
                    ") that the base holds in fused parameters; " + std::to_string(mapped_) +
                    " of them map";
    for (const auto& [parameter, names] : targets_)
      found.message += (parameter == targets_.begin()->first ? " to " : ", ") +
                       list_grouped(names) + " (" + sources_of(parameter) + ")";
    if (halves_ != 0)
      found.message += "; " + counted(halves_, "expert") +
                       " of a fused pair have only one half, which cannot be mapped";
    if (!rejected_.empty()) found.message += "; without a place: " + join_some(rejected_, 3);
    return found;
  }

  const Subject& subject_;
  std::set<std::string> in_base_;
  std::map<std::string, std::vector<Site>> stacks_;
  std::map<std::string, std::set<std::string>> targets_;
  std::set<std::string> explained_;
  Names rejected_;
  std::size_t halves_ = 0, mapped_ = 0;
};

class FusedExperts {
 public:
  explicit FusedExperts(const Subject& subject) : subject_(subject) {}

  std::optional<ExpertNames> run() {
    std::map<std::string, Stack> stacks;
    std::set<std::string> in_base;
    for (const ModuleInfo& info : subject_.base_modules)
      if (const auto path = expert_path(info.module_path)) {
        Stack& stack = stacks[path->stack];
        stack.experts = std::max(stack.experts, path->expert + 1);
        ++stack.modules[path->part];
        stack.shapes[path->part] = {info.out_features, info.in_features};
        in_base.insert(path->stack);
      }
    if (in_base.empty()) return std::nullopt;
    std::map<std::string, std::vector<const LoraModule*>> sites;
    std::set<std::string> names;
    for (const LoraModule& module : subject_.adapter.modules) {
      const std::string path = without_base_layers(module.module_path);
      const bool is_stack = path == "experts" || path.ends_with(".experts");
      if (module.kind != LayerKind::parameter || !is_stack) continue;
      if (subject_.base->find(path + ".gate_up_proj") != nullptr ||
          subject_.base->find(path + ".down_proj") != nullptr)
        continue;
      sites[path].push_back(&module);
      names.insert(path);
    }
    if (sites.empty()) return std::nullopt;
    const auto places = place(names, in_base);
    for (const auto& [path, modules] : sites) {
      const auto found = places.find(path);
      for (const LoraModule* module : modules)
        map(*module, found == places.end() ? nullptr : &stacks.at(found->second),
            found == places.end() ? std::string() : found->second);
    }
    return report();
  }

 private:
  struct Stack {
    std::int64_t experts = 0;
    std::array<std::int64_t, 3> modules{};
    std::array<Shape, 3> shapes;  ///< [out, in] of one expert
  };

  // The key does not name the parameter; its shape does, unless both would do.
  static bool fits(const LoraModule& module, const Stack& stack, Part part) {
    if (stack.experts == 0 || stack.modules[part] != stack.experts) return false;
    if (part == gate &&
        (stack.modules[up] != stack.experts || stack.shapes[gate] != stack.shapes[up]))
      return false;
    const std::int64_t outputs = stack.shapes[part][0] * (part == gate ? 2 : 1);
    const std::int64_t inputs = stack.shapes[part][1];
    const std::int64_t a = module.a.shape.at(1), b = module.b.shape.at(0);
    return module.a.shape.at(0) % stack.experts == 0 &&
           ((a == inputs && b == outputs) || (a == outputs && b == inputs));
  }

  void map(const LoraModule& module, const Stack* stack, const std::string& path) {
    explained_.insert(module.module_path);
    const bool is_gate_up = stack != nullptr && fits(module, *stack, gate);
    const bool is_down = stack != nullptr && fits(module, *stack, down);
    if (!is_gate_up && !is_down) {
      rejected_.push_back(module.module_path);
      return;
    }
    const bool prefers_down = module.base_name.ends_with(".down_proj");
    const bool is_taken_as_down = is_down && (prefers_down || !is_gate_up);
    const std::string experts = path + ".0-" + std::to_string(stack->experts - 1) + " ";
    targets_.insert(experts + (is_taken_as_down ? "down projections" : "gate and up projections"));
    ++mapped_;
  }

  std::optional<ExpertNames> report() const {
    ExpertNames found;
    found.modules = explained_;
    found.module = *explained_.begin();
    found.message = counted(explained_.size(), "module") + " adapt stacks of experts (" +
                    list_grouped(explained_) + ") that the base holds as single modules; " +
                    std::to_string(mapped_) + " of them map";
    if (!targets_.empty())
      found.message += " to " + join_some({targets_.begin(), targets_.end()}, 3);
    if (!rejected_.empty()) found.message += "; without a place: " + join_some(rejected_, 3);
    return found;
  }

  const Subject& subject_;
  std::set<std::string> explained_, targets_;
  Names rejected_;
  std::size_t mapped_ = 0;
};

}  // namespace

std::optional<ExpertNames> single_experts_on_fused_base(const Subject& subject) {
  return SingleExperts(subject).run();
}

std::optional<ExpertNames> fused_experts_on_single_base(const Subject& subject) {
  return FusedExperts(subject).run();
}

}  // namespace lora::rules
