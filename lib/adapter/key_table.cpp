#include "adapter/key_table.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lora {
namespace {

// bias="all" also writes <module>.modules_to_save.bias, which the clean name repeats.
bool is_redundant_copy(const KeySource& source) {
  return source.parsed.role == KeyRole::saved &&
         source.file_key.find(".modules_to_save.") != std::string::npos;
}

}  // namespace

bool is_same_tensor(const Tensor& x, const Tensor& y) {
  return x.dtype == y.dtype && x.shape == y.shape &&
         std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end());
}

KeyTable take_names(TensorMap tensors, Adapter& adapter) {
  KeyTable sources;
  std::vector<std::pair<std::string, KeySource>> unclean;
  for (const auto& [name, tensor] : tensors) {
    KeySource source{name, parse_key(name)};
    std::string clean = to_peft_key(source.parsed);
    if (clean != name) {
      adapter.unclean_keys.push_back(name);
      unclean.emplace_back(std::move(clean), std::move(source));
    } else {
      adapter.tensors.emplace(clean, tensor);
      sources.emplace(std::move(clean), std::move(source));
    }
  }
  for (auto& [clean, source] : unclean) {
    const Tensor& tensor = tensors.at(source.file_key);
    const auto [kept, is_new] = adapter.tensors.emplace(clean, tensor);
    if (is_new) {
      sources.emplace(clean, std::move(source));
      continue;
    }
    const bool is_same = is_same_tensor(kept->second, tensor);
    if (!is_same || !is_redundant_copy(source))
      adapter.problems.push_back({KeyProblem::Kind::duplicate, source.file_key,
                                  "is a second name of " + clean + ", which the file holds as " +
                                      sources.at(clean).file_key + " with " +
                                      (is_same ? "equal" : "different") +
                                      " contents, expected one tensor for each name"});
  }
  return sources;
}

}  // namespace lora
