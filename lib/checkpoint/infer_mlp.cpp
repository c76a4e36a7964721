#include "checkpoint/infer_mlp.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "checkpoint/module_names.h"
#include "checkpoint/natural_order.h"

namespace lora {
namespace {

struct Layer {
  std::string path;
  std::int64_t in = 0;
  std::int64_t out = 0;
};
using Layers = std::vector<Layer>;

bool chains(const Layers& layers) {
  for (std::size_t i = 1; i < layers.size(); ++i)
    if (layers[i - 1].out != layers[i].in) return false;
  return true;
}

bool are_numbered(const Layers& layers) {
  return std::all_of(layers.begin(), layers.end(), [&](const Layer& layer) {
    return differ_only_in_numbers(layer.path, layers.front().path);
  });
}

// Depth-first search for orders that chain; stops at two, and after a bounded number of steps,
// because a file may hold thousands of layers with equal sizes.
class ChainSearch {
 public:
  explicit ChainSearch(const Layers& layers) : layers_(layers), used_(layers.size()) { extend(); }
  bool is_complete() const { return steps_ <= kMaxSteps; }
  const std::vector<Layers>& found() const { return found_; }

 private:
  void extend() {
    if (found_.size() == 2 || ++steps_ > kMaxSteps) return;
    if (chain_.size() == layers_.size()) {
      found_.push_back(chain_);
      return;
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (used_[i] || (!chain_.empty() && chain_.back().out != layers_[i].in)) continue;
      used_[i] = true;
      chain_.push_back(layers_[i]);
      extend();
      chain_.pop_back();
      used_[i] = false;
    }
  }

  static constexpr std::size_t kMaxSteps = 2000;
  const Layers& layers_;
  std::vector<bool> used_;
  Layers chain_;
  std::vector<Layers> found_;
  std::size_t steps_ = 0;
};

// Returns the reason when the tensors are no set of Linear layers.
std::string collect_layers(const TensorMap& tensors, Layers& layers) {
  const auto refuse = [](const std::string& name, const Tensor& tensor, const char* why) {
    return "tensor " + name + " " + std::string(to_string(tensor.dtype)) +
           shape_to_string(tensor.shape) + " " + why;
  };
  for (const auto& [name, tensor] : tensors) {
    if (name.find("lora_") != std::string::npos)
      return refuse(name, tensor, "belongs to an adapter");
    const auto [path, parameter] = split_parameter(name);
    if (path.empty() || !is_float(tensor.dtype) || (parameter != "weight" && parameter != "bias"))
      return refuse(name, tensor, "is no weight or bias of a Linear");
    if (parameter == "bias") {
      const auto weight = tensors.find(path + ".weight");
      if (weight == tensors.end() || tensor.shape.size() != 1 || weight->second.shape.empty() ||
          weight->second.shape[0] != tensor.shape[0])
        return refuse(name, tensor, "is no bias of a Linear beside it");
      continue;
    }
    if (tensor.shape.size() != 2 || tensor.shape[0] == 0 || tensor.shape[1] == 0)
      return refuse(name, tensor, "is no weight of a Linear");
    if (is_embedding_name(path)) return refuse(name, tensor, "is an embedding by its name");
    layers.push_back({path, tensor.shape[1], tensor.shape[0]});
  }
  return layers.empty() ? "there are no tensors" : "";
}

void sort_by_file_order(Layers& layers, const std::vector<std::string>& file_order) {
  std::map<std::string, std::size_t> position;
  for (std::size_t i = 0; i < file_order.size(); ++i) position.emplace(file_order[i], i);
  const auto of = [&](const Layer& layer) {
    const auto found = position.find(layer.path + ".weight");
    return found == position.end() ? file_order.size() : found->second;
  };
  std::stable_sort(layers.begin(), layers.end(),
                   [&](const Layer& a, const Layer& b) { return of(a) < of(b); });
}

// Puts the layers in order; returns the reason when there is no certain one.
std::string order_layers(Layers& layers, const std::vector<std::string>& file_order) {
  std::sort(layers.begin(), layers.end(),
            [](const Layer& a, const Layer& b) { return natural_less(a.path, b.path); });
  if (are_numbered(layers))
    return chains(layers) ? ""
                          : "its numbered layers do not chain (out of one is not in of the next)";
  if (!file_order.empty()) {
    sort_by_file_order(layers, file_order);
    if (chains(layers)) return {};
  }
  const ChainSearch search(layers);
  if (search.found().empty())
    return search.is_complete() ? "its layers do not chain (out of one is not in of the next)"
                                : "its layers have too many possible orders";
  if (search.found().size() > 1 || !search.is_complete())
    return "its layers chain in more than one order, for example from " +
           search.found()[0].front().path + " and from " + search.found().back().front().path;
  layers = search.found().front();
  return {};
}

}  // namespace

InferredMlp infer_mlp(const TensorMap& tensors, const std::vector<std::string>& file_order) {
  Layers layers;
  std::string reason = collect_layers(tensors, layers);
  if (reason.empty()) reason = order_layers(layers, file_order);
  if (!reason.empty()) return {std::nullopt, std::move(reason)};
  MlpConfig mlp;
  mlp.hidden_sizes.push_back(layers.front().in);
  for (const Layer& layer : layers) {
    mlp.layers.push_back(layer.path);
    mlp.hidden_sizes.push_back(layer.out);
  }
  return {std::move(mlp), {}};
}

}  // namespace lora
