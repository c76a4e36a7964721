#include "commands/module_tree.h"

#include <algorithm>
#include <memory>

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

class Renderer {
 public:
  explicit Renderer(const std::vector<const Adapter*>& adapters) : adapters_(adapters) {}

  // Lines of a node without its name; the first one continues "(name): ".
  std::vector<std::string> render(const Node& node) const {
    const std::string class_name =
        node.info && !node.info->class_name.empty() ? node.info->class_name : "Module";
    std::vector<std::string> body;
    for (const std::string& line : lora_lines(node)) body.push_back(line);
    for (const std::string& line : child_lines(node)) body.push_back(line);
    const std::string arguments = node.info ? node.info->arguments : "";
    if (body.empty()) return {class_name + "(" + arguments + ")"};
    std::vector<std::string> lines{class_name + "(" + arguments};
    for (const std::string& line : body) lines.push_back("  " + line);
    lines.emplace_back(")");
    return lines;
  }

 private:
  std::vector<std::string> lora_lines(const Node& node) const {
    std::vector<std::string> lines;
    if (node.info == nullptr) return lines;
    for (const Adapter* adapter : adapters_) {
      if (const LoraModule* module = adapter->find(node.info->module_path)) {
        lines.push_back("[lora] A " + shape_to_string(module->a.shape) + ", B " +
                        shape_to_string(module->b.shape) + ", r " + std::to_string(module->rank) +
                        ", alpha " + number_text(module->alpha) + ", scaling " +
                        number_text(module->scaling) + (module->magnitude ? ", DoRA" : "") +
                        (module->bias ? ", bias" : ""));
      }
      const std::string prefix = node.info->module_path + ".";
      for (const auto& [name, tensor] : adapter->replacements)
        if (name.starts_with(prefix) && name.find('.', prefix.size()) == std::string::npos)
          lines.push_back("[saved] " + name.substr(prefix.size()) + " " +
                          shape_to_string(tensor.shape));
    }
    return lines;
  }

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

  const std::vector<const Adapter*>& adapters_;
};

}  // namespace

std::vector<std::string> module_tree(const ModuleList& modules,
                                     const std::vector<const Adapter*>& adapters) {
  return Renderer(adapters).render(build(modules));
}

}  // namespace lora::cli
