#include "commands/module_tree.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "cli/units.h"

namespace lora::cli {
namespace {

struct Node {
  std::string name;
  const ModuleInfo* info = nullptr;
  std::vector<std::unique_ptr<Node>> children;

  Node& child(const std::string& child_name) {
    for (auto& existing : children)
      if (existing->name == child_name) return *existing;
    children.push_back(std::make_unique<Node>());
    children.back()->name = child_name;
    return *children.back();
  }
};

Node build(const ModuleList& modules) {
  Node root;
  for (const ModuleInfo& info : modules) {
    if (info.kind == LayerKind::parameter) continue;
    Node* node = &root;
    std::string rest = info.module_path;
    while (!rest.empty()) {
      const auto dot = rest.find('.');
      node = &node->child(rest.substr(0, dot));
      rest = dot == std::string::npos ? "" : rest.substr(dot + 1);
    }
    node->info = &info;
  }
  return root;
}

// Path of the module as the model has it: wrappers inside LoRA layers are no modules of it.
std::string without_base_layers(const std::string& module_path) {
  constexpr std::string_view kWrapper = "base_layer";
  std::string path;
  for (std::size_t begin = 0; begin <= module_path.size();) {
    const std::size_t end = std::min(module_path.find('.', begin), module_path.size());
    const std::string part = module_path.substr(begin, end - begin);
    if (part != kWrapper) path += (path.empty() ? "" : ".") + part;
    begin = end + 1;
  }
  return path;
}

std::string parent_of(const std::string& path) {
  const auto dot = path.rfind('.');
  return dot == std::string::npos ? std::string() : path.substr(0, dot);
}

// What adapters do to a model, by the path of the module it is shown at.
class Marks {
 public:
  Marks(const ModuleList& modules, const std::vector<const Adapter*>& adapters) {
    for (const ModuleInfo& info : modules) paths_.insert(info.module_path);
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      number_ = adapters.size() > 1 ? " " + std::to_string(i + 1) : std::string();
      for (const LoraModule& module : adapters[i]->modules) add_lora(module);
      for (const TokenRows& rows : adapters[i]->tokens) add_tokens(rows);
      for (const auto& [name, tensor] : adapters[i]->replacements)
        add(parent_of(name), "saved",
            name.substr(parent_of(name).empty() ? 0 : parent_of(name).size() + 1) + " " +
                shape_to_string(tensor.shape));
    }
  }

  const std::vector<std::string>& at(const std::string& path) const {
    static const std::vector<std::string> none;
    const auto found = lines_.find(path);
    return found == lines_.end() ? none : found->second;
  }

 private:
  // Where the model has no module of this name, the closest one around it shows the line.
  void add(std::string path, const std::string& tag, const std::string& text) {
    while (!path.empty() && !paths_.contains(path)) path = parent_of(path);
    lines_[path].push_back("[" + tag + number_ + "] " + text);
  }

  void add_lora(const LoraModule& module) {
    const bool is_parameter = module.kind == LayerKind::parameter;
    std::string text = "A " + shape_to_string(module.a.shape) + ", B " +
                       shape_to_string(module.b.shape) + ", r " + std::to_string(module.rank) +
                       ", alpha " + number_text(module.alpha) + ", scaling " +
                       number_text(module.scaling);
    if (module.experts > 1) text += ", " + std::to_string(module.experts) + " experts";
    if (module.times != 1) text += ", applied " + number_text(module.times) + " times";
    if (module.magnitude) text += ", DoRA magnitude " + shape_to_string(module.magnitude->shape);
    if (module.bias) text += ", bias " + shape_to_string(module.bias->shape);
    if (module.diagonal) text += ", diagonal " + shape_to_string(module.diagonal->shape);
    const std::string tag = module.kind == LayerKind::embedding ? "lora_embedding" : "lora";
    if (is_parameter && !paths_.contains(module.base_name))
      text = module.base_name.substr(module.base_name.rfind('.') + 1) + ": " + text;
    add(is_parameter ? module.base_name : without_base_layers(module.module_path), tag, text);
  }

  void add_tokens(const TokenRows& rows) {
    constexpr std::size_t kShown = 8;
    std::string indices;
    for (std::size_t i = 0; i < std::min(kShown, rows.indices.size()); ++i)
      indices += (i == 0 ? "" : ", ") + std::to_string(rows.indices[i]);
    if (rows.indices.size() > kShown)
      indices += " and " + std::to_string(rows.indices.size() - kShown) + " more";
    add(rows.module_path, "tokens", shape_to_string(rows.rows.shape) + ", rows " + indices);
  }

  std::set<std::string> paths_;
  std::string number_;  ///< of the adapter, where there are several
  std::map<std::string, std::vector<std::string>> lines_;
};

class Renderer {
 public:
  explicit Renderer(const Marks& marks) : marks_(marks) {}

  // Lines of a node without its name; the first one continues "(name): ".
  std::vector<std::string> render(const Node& node) const {
    const std::string class_name =
        node.info && !node.info->class_name.empty() ? node.info->class_name : "Module";
    std::vector<std::string> body;
    if (node.info) body = marks_.at(node.info->module_path);
    for (const std::string& line : child_lines(node)) body.push_back(line);
    const std::string arguments = node.info ? node.info->arguments : "";
    if (body.empty()) return {class_name + "(" + arguments + ")"};
    std::vector<std::string> lines{class_name + "(" + arguments};
    for (const std::string& line : body) lines.push_back("  " + line);
    lines.emplace_back(")");
    return lines;
  }

 private:
  std::vector<std::string> child_lines(const Node& node) const {
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < node.children.size();) {
      const std::vector<std::string> child = render(*node.children[i]);
      std::size_t last = i;
      if (node.info && node.info->class_name == "ModuleList")
        while (last + 1 < node.children.size() && render(*node.children[last + 1]) == child) ++last;
      const std::string head = last == i ? "(" + node.children[i]->name + "): "
                                         : "(" + node.children[i]->name + "-" +
                                               node.children[last]->name +
                                               "): " + std::to_string(last - i + 1) + " x ";
      lines.push_back(head + child.front());
      lines.insert(lines.end(), child.begin() + 1, child.end());
      i = last + 1;
    }
    return lines;
  }

  const Marks& marks_;
};

}  // namespace

std::vector<std::string> module_tree(const ModuleList& modules,
                                     const std::vector<const Adapter*>& adapters) {
  const Marks marks(modules, adapters);
  return Renderer(marks).render(build(modules));
}

}  // namespace lora::cli
