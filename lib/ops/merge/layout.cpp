#include "ops/merge/layout.h"

#include <algorithm>
#include <map>

#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "ops/merge/files.h"
#include "ops/replay/plan.h"

namespace lora::merging {
namespace {

class Maker {
 public:
  Maker(const std::vector<const Adapter*>& adapters, const Checkpoint& base)
      : adapters_(adapters), base_(base) {
    layout_.form = base;
  }

  Layout run(std::optional<DType> dtype, bool as_safetensors) {
    for (const auto& [alias, canonical] : base_.aliases)
      if (becomes_different(alias, canonical)) untie(alias, canonical);
    for (const Adapter* adapter : adapters_) {
      for (const auto& [name, tensor] : adapter->replacements) place(*adapter, name, tensor);
      for (const TokenRows& rows : adapter->tokens) require_rows(*adapter, rows);
    }
    if (dtype)
      for (auto& [name, tensor] : layout_.form.tensors)
        if (is_float(tensor.dtype)) tensor.dtype = *dtype;
    lay_out_files(base_, as_safetensors, layout_);
    return std::move(layout_);
  }

 private:
  const LoraModule* module_on(const Adapter& adapter, const std::string& name) const {
    const auto found =
        std::find_if(adapter.modules.begin(), adapter.modules.end(), [&](const LoraModule& module) {
          return replay::is_stored_as(base_, module.base_name, name);
        });
    return found == adapter.modules.end() ? nullptr : &*found;
  }

  // True when an adapter changes one of the two, or both by updates of their own; one update of
  // both (ensure_weight_tying) leaves them equal. DoRA's norms differ between the two.
  bool has_own_update(const std::string& alias, const std::string& canonical) const {
    return std::any_of(adapters_.begin(), adapters_.end(), [&](const Adapter* adapter) {
      const LoraModule* first = module_on(*adapter, canonical);
      const LoraModule* second = module_on(*adapter, alias);
      if (first == nullptr && second == nullptr) return false;
      return first == nullptr || second == nullptr || second->tied_to.empty() || first->magnitude ||
             second->magnitude;
    });
  }

  const Tensor* replacement_of(const std::string& name) const {
    for (const Adapter* adapter : adapters_)
      for (const auto& [base_name, tensor] : adapter->replacements)
        if (replay::is_stored_as(base_, base_name, name)) return &tensor;
    return nullptr;
  }

  // Biases that are one parameter stay one: PEFT trains them as such.
  bool becomes_different(const std::string& alias, const std::string& canonical) const {
    if (has_own_update(alias, canonical)) return true;
    if (alias.ends_with(".bias")) return false;
    const Tensor* own = replacement_of(alias);
    const Tensor* other = replacement_of(canonical);
    if (own == nullptr && other == nullptr) return false;
    const Tensor& base = base_.tensors.at(canonical);
    const Tensor& a = own != nullptr ? *own : base;
    const Tensor& b = other != nullptr ? *other : base;
    if (a.shape != b.shape) return true;
    if (a.dtype == b.dtype) return !has_equal_bytes(a, b);
    return !has_equal_bytes(a.cast(base.dtype), b.cast(base.dtype));
  }

  void untie(const std::string& alias, const std::string& canonical) {
    layout_.form.aliases.erase(alias);
    layout_.form.tensors[alias] = base_.tensors.at(canonical);
    layout_.untied.push_back(alias);
    layout_.notes.push_back(alias + " shared the matrix " + canonical +
                            " and differs from it now: both are written, and config.json ties "
                            "them no longer");
  }

  // What an adapter brings whole may have more rows than the base's, or be new to it.
  void place(const Adapter& adapter, const std::string& name, const Tensor& tensor) {
    const std::string stored = replay::stored_name(layout_.form, name);
    if (stored.empty()) {
      Tensor& added = layout_.form.tensors[name];
      added = tensor;
      if (is_float(tensor.dtype)) added.dtype = common_dtype();
      layout_.added.push_back(name);
      layout_.notes.push_back(name + " is new to the base: it comes from " + adapter.path.string());
      return;
    }
    Tensor& place = layout_.form.tensors.at(stored);
    if (place.shape == tensor.shape) return;
    if (place.shape.size() == 2 && tensor.shape.size() == 2 && place.shape[1] == tensor.shape[1])
      resize(adapter, name, place.shape[0], tensor.shape[0]);
    place.shape = tensor.shape;
  }

  // More or fewer rows: tokens of an embedding and its head, or labels of a classifier.
  void resize(const Adapter& adapter, const std::string& name, std::int64_t found,
              std::int64_t rows) {
    const auto model = base_.config ? base_.config->token_model() : std::nullopt;
    auto& count = model && found != model->vocab_size ? layout_.labels : layout_.vocabulary;
    if (!count)
      layout_.notes.push_back(name + " has " + std::to_string(rows) + " rows, as " +
                              adapter.path.string() + " saved it; the base has " +
                              std::to_string(found));
    count = rows;
  }

  DType common_dtype() const {
    std::map<DType, std::int64_t> elements;
    for (const auto& [name, tensor] : base_.tensors)
      if (is_float(tensor.dtype)) elements[tensor.dtype] += tensor.numel();
    if (elements.empty()) return DType::f32;
    return std::max_element(elements.begin(), elements.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  }

  void require_rows(const Adapter& adapter, const TokenRows& rows) const {
    const std::string name = replay::stored_name(layout_.form, rows.module_path + ".weight");
    if (name.empty()) return;
    const std::int64_t known = layout_.form.tensors.at(name).shape.at(0);
    for (const std::int64_t index : rows.indices)
      if (index >= known)
        throw Error(ErrorKind::unsupported,
                    "cannot merge " + adapter.path.string() + ": it adds tokens (row " +
                        std::to_string(index) + " of " + rows.module_path + ", which has " +
                        std::to_string(known) +
                        "), which do not follow the rows of the base one by one")
            .in_file(adapter.path.string())
            .in_tensor(name);
  }

  const std::vector<const Adapter*>& adapters_;
  const Checkpoint& base_;
  Layout layout_;
};

}  // namespace

std::uint64_t Layout::bytes_of(const std::string& stored) const {
  const Tensor* tensor = form.find(stored);
  return static_cast<std::uint64_t>(tensor->numel()) * bits_of(tensor->dtype) / 8;
}

void tie_again(const std::map<std::string, std::string>& tied, Layout& layout) {
  layout.is_tied_again = !tied.empty();
  for (const auto& [name, canonical] : tied)
    for (OutputFile& file : layout.files)
      // In a torch file the second name costs nothing and is a key that readers may ask for.
      if (!file.shared.contains(name)) std::erase(file.tensors, name);
}

void drop_second_factors(Adapter& adapter, const Checkpoint& form) {
  std::erase_if(adapter.modules, [&](const LoraModule& module) {
    return !module.tied_to.empty() && form.aliases.contains(module.base_name);
  });
}

Layout make_layout(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
                   std::optional<DType> dtype, bool as_safetensors) {
  return Maker(adapters, base).run(dtype, as_safetensors);
}

}  // namespace lora::merging
