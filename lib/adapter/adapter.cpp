#include "lora/adapter/adapter.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "adapter/key_accounting.h"
#include "adapter/key_table.h"
#include "adapter/site.h"
#include "adapter/tied_sites.h"
#include "adapter/token_rows.h"
#include "lora/base/equal_bytes.h"

namespace lora {
namespace {

using Kind = KeyProblem::Kind;
using Sites = std::map<std::string, SiteTensors>;

class Accountant {
 public:
  explicit Accountant(Adapter& adapter) : adapter_(adapter) {}

  void run(TensorMap tensors, const std::optional<std::string>& name) {
    sources_ = take_names(std::move(tensors), name, adapter_);
    for (const auto& [clean, source] : sources_)
      if (source.parsed.is_lora()) lora_paths_.insert(source.parsed.module_path);
    sort_by_role();
    take_tied_copies();
    move_vectors_to_embeddings();
    std::vector<std::string> paths;
    for (const auto& [path, site] : linear_) paths.push_back(path);
    const SiteBuilder builder(adapter_.config, paths,
                              [this](Kind kind, const std::string& key, std::string message) {
                                report(kind, key, std::move(message));
                              });
    for (const Sites* sites : {&linear_, &embedding_})
      for (const auto& [path, site] : *sites) pair(builder, path, site);
    std::sort(
        adapter_.modules.begin(), adapter_.modules.end(),
        [](const LoraModule& x, const LoraModule& y) { return x.module_path < y.module_path; });
    mark_tied_sites(adapter_);
    std::stable_sort(adapter_.problems.begin(), adapter_.problems.end(),
                     [](const KeyProblem& x, const KeyProblem& y) { return x.key < y.key; });
  }

 private:
  void report(Kind kind, const std::string& key, std::string message) {
    adapter_.problems.push_back({kind, key, std::move(message)});
  }

  void sort_by_role() {
    for (const auto& [clean, source] : sources_) {
      const KeyRole role = source.parsed.role;
      if (!source.parsed.is_lora()) {
        take_replacement(clean, source);
      } else if (role == KeyRole::variant) {
        take_variant(clean, source);
      } else if (!is_usable(clean, source)) {
        if (is_factor(role)) broken_.insert(source.parsed.module_path);
      } else if (role == KeyRole::trainable_tokens) {
        take_tokens(clean, source);
      } else {
        take_factor(clean, source);
      }
    }
  }

  void take_replacement(const std::string& clean, const KeySource& source) {
    if (!is_explained(source.parsed, adapter_.config, lora_paths_)) {
      unexplained_.push_back(clean);
    } else if (source.parsed.role != KeyRole::original) {
      add_replacement(clean, source);
    }
  }

  void add_replacement(const std::string& clean, const KeySource& source) {
    const std::string base_name = to_base_name(source.parsed);
    const Tensor& tensor = adapter_.tensors.at(clean);
    const auto [kept, is_new] = adapter_.replacements.emplace(base_name, tensor);
    if (!is_new && !has_equal_bytes(kept->second, tensor))
      report(Kind::duplicate, source.file_key,
             "gives the base parameter " + base_name + " a second value, expected one");
  }

  // With ensure_weight_tying a head is written beside the embedding although the configuration only
  // lists that one.
  void take_tied_copies() {
    std::set<std::string> heads;
    for (const std::string& clean : unexplained_)
      if (is_tied_copy(adapter_, sources_.at(clean).parsed, adapter_.tensors.at(clean)))
        heads.insert(sources_.at(clean).parsed.module_path);
    for (const std::string& clean : unexplained_) {
      const KeySource& source = sources_.at(clean);
      if (heads.contains(source.parsed.module_path)) {
        add_replacement(clean, source);
      } else {
        report(Kind::unknown, source.file_key,
               "is the base parameter " + to_base_name(source.parsed) +
                   ", expected only LoRA tensors, modules_to_save, biases that `bias` asks for and "
                   "saved embeddings");
      }
    }
  }

  // Tensors of methods on top of LoRA. Training alone needs most of them; KaSA's diagonal is part
  // of the update.
  void take_variant(const std::string& clean, const KeySource& source) {
    const std::string& parameter = source.parsed.parameter;
    const char* const field = parameter == "lora_diag"           ? "kasa_config"
                              : parameter == "lora_velora_embed" ? "velora_config"
                                                                 : "monteclora_config";
    const Json* method = adapter_.config.other.find(field);
    if (method == nullptr || method->is_null()) {
      report(Kind::unknown, source.file_key,
             "belongs to a variant of LoRA that is off, expected " + std::string(field) +
                 " in the configuration; PEFT leaves the tensor out");
    } else if (parameter == "lora_diag" && is_usable(clean, source)) {
      linear_[source.parsed.module_path].diagonal = {&adapter_.tensors.at(clean), source.file_key};
    }
  }

  void take_tokens(const std::string& clean, const KeySource& source) {
    auto indices = token_indices(adapter_.config, source.parsed.module_path);
    if (!indices) {
      report(Kind::unknown, source.file_key,
             "holds token rows of " + source.parsed.module_path +
                 ", expected trainable_token_indices to name them; PEFT leaves the tensor out");
      return;
    }
    adapter_.tokens.push_back(
        {source.parsed.module_path, std::move(*indices), adapter_.tensors.at(clean)});
  }

  static bool is_factor(KeyRole role) {
    return role == KeyRole::lora_a || role == KeyRole::lora_b || role == KeyRole::embedding_a ||
           role == KeyRole::embedding_b;
  }

  // nullptr when the number of dimensions is one that the role can have.
  static const char* expected_dimensions(KeyRole role, std::size_t dimensions) {
    switch (role) {
      case KeyRole::lora_a:
      case KeyRole::lora_b:
        return dimensions >= 2 && dimensions <= 5 ? nullptr
                                                  : "2 dimensions, or 3 to 5 for a convolution";
      case KeyRole::embedding_a:
      case KeyRole::embedding_b:
      case KeyRole::trainable_tokens:
        return dimensions == 2 ? nullptr : "2 dimensions";
      case KeyRole::magnitude:
        return dimensions >= 1 && dimensions <= 5 ? nullptr : "1 dimension";
      default:
        return dimensions == 1 ? nullptr : "1 dimension";
    }
  }

  bool is_usable(const std::string& clean, const KeySource& source) {
    const Tensor& tensor = adapter_.tensors.at(clean);
    const std::string found =
        std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape);
    if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) {
      report(Kind::bad_shape, source.file_key,
             "is empty (" + found +
                 "), expected values; it was saved from sharded training without gathering");
      return false;
    }
    const char* const expected = expected_dimensions(source.parsed.role, tensor.shape.size());
    if (expected != nullptr || !is_float(tensor.dtype)) {
      report(Kind::bad_shape, source.file_key,
             "is " + found + ", expected a float tensor" +
                 (expected == nullptr ? "" : std::string(" of ") + expected));
      return false;
    }
    return true;
  }

  void take_factor(const std::string& clean, const KeySource& source) {
    const std::string& path = source.parsed.module_path;
    const SiteTensor found{&adapter_.tensors.at(clean), source.file_key};
    switch (source.parsed.role) {
      case KeyRole::lora_a:
        linear_[path].a = found;
        return;
      case KeyRole::lora_b:
        linear_[path].b = found;
        return;
      case KeyRole::lora_b_bias:
        linear_[path].bias = found;
        return;
      case KeyRole::magnitude:
        linear_[path].magnitude = found;
        return;
      case KeyRole::embedding_a:
        embedding_[path].a = found;
        return;
      case KeyRole::embedding_b:
        embedding_[path].b = found;
        return;
      default:
        return;
    }
  }

  // The key of a magnitude is the same for both kinds.
  void move_vectors_to_embeddings() {
    for (auto& [path, site] : embedding_) {
      site.is_embedding = true;
      const auto found = linear_.find(path);
      if (found == linear_.end() || found->second.a.tensor || found->second.b.tensor) continue;
      site.magnitude = std::exchange(found->second.magnitude, {});
    }
  }

  void pair(const SiteBuilder& builder, const std::string& path, const SiteTensors& site) {
    if (!site.a.tensor || !site.b.tensor) {
      report_unpaired(path, site);
    } else if (auto module = builder.build(path, site)) {
      adapter_.modules.push_back(std::move(*module));
    }
  }

  void report_unpaired(const std::string& path, const SiteTensors& site) {
    // The missing factor may be there and be reported already.
    if (broken_.contains(path)) return;
    const std::string name = site.is_embedding ? "lora_embedding_" : "lora_";
    if (site.a.tensor)
      report(Kind::unpaired, site.a.file_key,
             "has no counterpart: " + name + "B of " + path + " is missing");
    if (site.b.tensor)
      report(Kind::unpaired, site.b.file_key,
             "has no counterpart: " + name + "A of " + path + " is missing");
    for (const SiteTensor* extra : {&site.bias, &site.magnitude, &site.diagonal})
      if (extra->tensor)
        report(Kind::unpaired, extra->file_key,
               "belongs to no pair of factors: A or B of " + path + " is missing");
  }

  Adapter& adapter_;
  KeyTable sources_;
  std::set<std::string> lora_paths_;
  Sites linear_;
  Sites embedding_;
  std::set<std::string> broken_;          ///< module paths with a factor that is none
  std::vector<std::string> unexplained_;  ///< clean keys of base parameters
};

}  // namespace

const LoraModule* Adapter::find(std::string_view module_path) const {
  const auto found = std::lower_bound(modules.begin(), modules.end(), module_path,
                                      [](const LoraModule& module, std::string_view wanted) {
                                        return module.module_path < wanted;
                                      });
  return found != modules.end() && found->module_path == module_path ? &*found : nullptr;
}

std::filesystem::path Adapter::directory() const {
  return std::filesystem::is_directory(path) ? path : path.parent_path();
}

Adapter make_adapter(AdapterConfig config, TensorMap tensors, std::filesystem::path path,
                     const std::optional<std::string>& name) {
  Adapter adapter;
  adapter.path = path;
  adapter.weights_path = std::move(path);
  adapter.config = std::move(config);
  Accountant(adapter).run(std::move(tensors), name);
  return adapter;
}

}  // namespace lora
