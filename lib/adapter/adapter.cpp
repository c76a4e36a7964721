#include "lora/adapter/adapter.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "adapter/key_accounting.h"

namespace lora {
namespace {

using Kind = KeyProblem::Kind;

struct Source {
  std::string file_key;
  ParsedKey parsed;
};

struct Factor {
  const Tensor* tensor = nullptr;
  std::string file_key;
};

struct Factors {
  Factor a, b, bias, magnitude;
};

bool same_bytes(const Tensor& x, const Tensor& y) {
  return x.dtype == y.dtype && x.shape == y.shape &&
         std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end());
}

class Accountant {
 public:
  explicit Accountant(Adapter& adapter) : adapter_(adapter), patterns_(adapter.config) {}

  void run(TensorMap tensors) {
    take_names(std::move(tensors));
    sort_by_role();
    move_embedding_magnitudes();
    for (const auto& [site, factors] : linear_) pair(site, factors, LayerKind::linear);
    for (const auto& [site, factors] : embedding_) pair(site, factors, LayerKind::embedding);
    std::sort(
        adapter_.modules.begin(), adapter_.modules.end(),
        [](const LoraModule& x, const LoraModule& y) { return x.module_path < y.module_path; });
    std::stable_sort(adapter_.problems.begin(), adapter_.problems.end(),
                     [](const KeyProblem& x, const KeyProblem& y) { return x.key < y.key; });
  }

 private:
  void report(Kind kind, const std::string& key, std::string message) {
    adapter_.problems.push_back({kind, key, std::move(message)});
  }

  // Clean names first, so that they win over other spellings of the same key.
  void take_names(TensorMap tensors) {
    std::vector<std::pair<std::string, Source>> unclean;
    for (const auto& [name, tensor] : tensors) {
      Source source{name, parse_key(name)};
      std::string clean = to_peft_key(source.parsed);
      if (clean != name) {
        adapter_.unclean_keys.push_back(name);
        unclean.emplace_back(std::move(clean), std::move(source));
      } else {
        adapter_.tensors.emplace(clean, tensor);
        sources_.emplace(std::move(clean), std::move(source));
      }
    }
    for (auto& [clean, source] : unclean) {
      const Tensor& tensor = tensors.at(source.file_key);
      const auto [kept, is_new] = adapter_.tensors.emplace(clean, tensor);
      if (is_new) {
        sources_.emplace(clean, std::move(source));
      } else if (!is_redundant_copy(source) || !same_bytes(kept->second, tensor)) {
        report(Kind::duplicate, source.file_key,
               "is a second name of " + clean + ", which the file holds as " +
                   sources_.at(clean).file_key + ", expected one tensor for each name");
      }
    }
  }

  static bool is_redundant_copy(const Source& source) {
    return source.parsed.role == KeyRole::saved &&
           source.file_key.find(".modules_to_save.") != std::string::npos;
  }

  void sort_by_role() {
    std::set<std::string> lora_paths;
    for (const auto& [clean, source] : sources_)
      if (source.parsed.is_lora()) lora_paths.insert(source.parsed.module_path);
    for (const auto& [clean, source] : sources_) {
      if (!source.parsed.is_lora()) {
        take_replacement(clean, source, lora_paths);
      } else if (!is_usable(clean, source)) {
        if (!is_vector(source.parsed.role)) broken_.insert(source.parsed.module_path);
      } else {
        take_factor(clean, source);
      }
    }
  }

  void take_replacement(const std::string& clean, const Source& source,
                        const std::set<std::string>& lora_paths) {
    const std::string base_name = to_base_name(source.parsed);
    if (!is_explained(source.parsed, adapter_.config, lora_paths)) {
      report(Kind::unknown, source.file_key,
             "is the base parameter " + base_name +
                 ", expected only LoRA tensors, modules_to_save, biases that `bias` asks for and "
                 "saved embeddings");
      return;
    }
    if (source.parsed.role == KeyRole::original) return;
    const Tensor& tensor = adapter_.tensors.at(clean);
    const auto [kept, is_new] = adapter_.replacements.emplace(base_name, tensor);
    if (!is_new && !same_bytes(kept->second, tensor))
      report(Kind::duplicate, source.file_key,
             "gives the base parameter " + base_name + " a second value, expected one");
  }

  static bool is_vector(KeyRole role) {
    return role == KeyRole::lora_b_bias || role == KeyRole::magnitude;
  }

  bool is_usable(const std::string& clean, const Source& source) {
    const Tensor& tensor = adapter_.tensors.at(clean);
    const KeyRole role = source.parsed.role;
    if (role == KeyRole::variant) return true;
    const std::string found =
        std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape);
    if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) {
      report(Kind::bad_shape, source.file_key,
             "is empty (" + found +
                 "), expected values; it was saved from sharded training without gathering");
      return false;
    }
    const std::size_t rank = is_vector(role) ? 1 : 2;
    if (tensor.shape.size() != rank || !is_float(tensor.dtype)) {
      report(Kind::bad_shape, source.file_key,
             "is " + found + ", expected a float tensor of " + std::to_string(rank) +
                 (rank == 1 ? " dimension" : " dimensions"));
      return false;
    }
    return true;
  }

  void take_factor(const std::string& clean, const Source& source) {
    const std::string& path = source.parsed.module_path;
    const Factor factor{&adapter_.tensors.at(clean), source.file_key};
    switch (source.parsed.role) {
      case KeyRole::lora_a:
        linear_[path].a = factor;
        return;
      case KeyRole::lora_b:
        linear_[path].b = factor;
        return;
      case KeyRole::lora_b_bias:
        linear_[path].bias = factor;
        return;
      case KeyRole::magnitude:
        linear_[path].magnitude = factor;
        return;
      case KeyRole::embedding_a:
        embedding_[path].a = factor;
        return;
      case KeyRole::embedding_b:
        embedding_[path].b = factor;
        return;
      default:
        return;
    }
  }

  // The key of a magnitude is the same for both kinds.
  void move_embedding_magnitudes() {
    for (auto& [path, factors] : embedding_) {
      const auto found = linear_.find(path);
      if (found == linear_.end() || found->second.a.tensor || found->second.b.tensor) continue;
      factors.magnitude = std::exchange(found->second.magnitude, {});
    }
  }

  void pair(const std::string& path, const Factors& factors, LayerKind kind) {
    if (!factors.a.tensor || !factors.b.tensor) {
      report_unpaired(path, factors, kind);
      return;
    }
    const Tensor& a = *factors.a.tensor;
    const Tensor& b = *factors.b.tensor;
    const std::int64_t rank = a.shape[0];
    if (b.shape[1] != rank) {
      report(Kind::rank_mismatch, factors.a.file_key,
             "has " + std::to_string(rank) + " rows and B of " + path + " has " +
                 std::to_string(b.shape[1]) + " columns, expected one rank");
      return;
    }
    LoraModule module;
    module.module_path = path;
    module.kind = kind;
    module.a = a;
    module.b = b;
    module.rank = rank;
    module.base_name = path + ".weight";
    module.alpha = patterns_.alpha_of(path);
    module.scaling = patterns_.scaling_of(path, rank);
    if (fits(factors.bias, b.shape[0])) module.bias = *factors.bias.tensor;
    if (fits(factors.magnitude, b.shape[0])) module.magnitude = *factors.magnitude.tensor;
    check_configured_rank(path, factors.a.file_key, rank);
    adapter_.modules.push_back(std::move(module));
  }

  void report_unpaired(const std::string& path, const Factors& factors, LayerKind kind) {
    // The missing factor may be there and be reported already.
    if (broken_.contains(path)) return;
    const std::string name = kind == LayerKind::embedding ? "lora_embedding_" : "lora_";
    if (factors.a.tensor)
      report(Kind::unpaired, factors.a.file_key,
             "has no counterpart: " + name + "B of " + path + " is missing");
    if (factors.b.tensor)
      report(Kind::unpaired, factors.b.file_key,
             "has no counterpart: " + name + "A of " + path + " is missing");
    for (const Factor* extra : {&factors.bias, &factors.magnitude})
      if (extra->tensor)
        report(Kind::unpaired, extra->file_key,
               "belongs to no pair of factors: A or B of " + path + " is missing");
  }

  bool fits(const Factor& vector, std::int64_t width) {
    if (vector.tensor == nullptr) return false;
    if (vector.tensor->shape[0] == width) return true;
    report(Kind::bad_shape, vector.file_key,
           "has shape " + shape_to_string(vector.tensor->shape) + ", expected [" +
               std::to_string(width) + "], the rows of B");
    return false;
  }

  void check_configured_rank(const std::string& path, const std::string& key, std::int64_t rank) {
    // Expert parameters stack the ranks of all experts in one factor.
    const Json* parameters = adapter_.config.other.find("target_parameters");
    if (parameters != nullptr && !parameters->is_null()) return;
    const std::int64_t configured = patterns_.rank_of(path);
    if (rank != configured)
      report(Kind::rank_mismatch, key,
             "has rank " + std::to_string(rank) + ", expected " + std::to_string(configured) +
                 " from the configuration (r, rank_pattern)");
  }

  Adapter& adapter_;
  PatternTable patterns_;
  std::map<std::string, Source> sources_;  ///< by clean peft_key
  std::map<std::string, Factors> linear_;
  std::map<std::string, Factors> embedding_;
  std::set<std::string> broken_;  ///< module paths with a factor that is no matrix
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

Adapter make_adapter(AdapterConfig config, TensorMap tensors, std::filesystem::path path) {
  Adapter adapter;
  adapter.path = path;
  adapter.weights_path = std::move(path);
  adapter.config = std::move(config);
  Accountant(adapter).run(std::move(tensors));
  return adapter;
}

}  // namespace lora
