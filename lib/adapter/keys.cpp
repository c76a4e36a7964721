#include "lora/adapter/keys.h"

#include <algorithm>
#include <array>
#include <optional>

namespace lora {
namespace {

using Parts = std::vector<std::string_view>;

constexpr std::string_view kPeftPrefix = "base_model.model.";
constexpr std::array<std::string_view, 3> kVariantAttributes{"lora_diag", "lora_velora_embed",
                                                             "lora_monteclora_sampler"};

bool is_wrapper_anywhere(std::string_view part) {
  return part == "_orig_mod" || part == "_fsdp_wrapped_module";
}

Parts split(std::string_view name) {
  Parts parts;
  while (true) {
    const std::size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

std::string join(const Parts& parts, std::size_t begin, std::size_t end) {
  std::string text;
  for (std::size_t i = begin; i < end; ++i) {
    if (i != begin) text += '.';
    text += parts[i];
  }
  return text;
}

void take_front(Parts& parts, std::vector<std::string>& wrappers) {
  wrappers.emplace_back(parts.front());
  parts.erase(parts.begin());
}

// The last component is never a wrapper: something must be wrapped.
void strip_wrappers(Parts& parts, ParsedKey& key) {
  for (std::size_t i = 0; i + 1 < parts.size();) {
    if (is_wrapper_anywhere(parts[i])) {
      key.wrappers.emplace_back(parts[i]);
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  const auto leads_to_prefix = [&] {
    const auto first = std::find_if(parts.begin(), parts.end(),
                                    [](std::string_view part) { return part != "module"; });
    return parts.end() - first > 2 && *first == "base_model" && *(first + 1) == "model";
  };
  if (leads_to_prefix()) {
    while (parts.front() == "module") take_front(parts, key.wrappers);
    parts.erase(parts.begin(), parts.begin() + 2);
    key.has_peft_prefix = true;
  }
  while (parts.size() > 1 && parts.front() == "module") take_front(parts, key.wrappers);
}

class Grammar {
 public:
  Grammar(const Parts& parts, ParsedKey& key) : parts_(parts), key_(key), size_(parts.size()) {}

  void run() {
    if (weight_factor("lora_A", KeyRole::lora_a) || weight_factor("lora_B", KeyRole::lora_b) ||
        bare_factor("lora_embedding_A", KeyRole::embedding_a) ||
        bare_factor("lora_embedding_B", KeyRole::embedding_b) || magnitude() || tokens() ||
        variant() || saved_copy() || base_layer())
      return;
    finish(KeyRole::saved, size_ - 1, parts_.back());
  }

 private:
  // Component `back` places before the end; empty when that would leave no module path.
  std::string_view from_end(std::size_t back) const {
    return size_ > back + 1 ? parts_[size_ - 1 - back] : std::string_view();
  }

  bool finish(KeyRole role, std::size_t path_parts, std::string_view parameter = {}) {
    key_.role = role;
    key_.module_path = join(parts_, 0, path_parts);
    key_.parameter = parameter;
    return true;
  }

  // lora_A.weight, lora_A.<adapter>.weight; lora_B.bias of lora_bias likewise.
  bool weight_factor(std::string_view attribute, KeyRole role) {
    const bool is_bias = parts_.back() == "bias" && role == KeyRole::lora_b;
    if (parts_.back() != "weight" && !is_bias) return false;
    const KeyRole found = is_bias ? KeyRole::lora_b_bias : role;
    if (from_end(1) == attribute) return finish(found, size_ - 2);
    // lora_A.lora_B.weight is the B of a module named lora_A, not an adapter named lora_B.
    if (from_end(2) != attribute || from_end(1) == "lora_A" || from_end(1) == "lora_B")
      return false;
    key_.adapter_name = from_end(1);
    return finish(found, size_ - 3);
  }

  // lora_embedding_A, lora_embedding_A.<adapter>.
  bool bare_factor(std::string_view attribute, KeyRole role) {
    if (from_end(0) == attribute) return finish(role, size_ - 1);
    if (from_end(1) != attribute) return false;
    if (parts_.back() != "weight") key_.adapter_name = parts_.back();
    return finish(role, size_ - 2);
  }

  // PEFT has written the magnitude with and without `.weight`, a parameter and a module.
  bool magnitude() {
    constexpr std::string_view attribute = "lora_magnitude_vector";
    if (bare_factor(attribute, KeyRole::magnitude)) return true;
    if (from_end(2) != attribute || parts_.back() != "weight") return false;
    key_.adapter_name = from_end(1);
    return finish(KeyRole::magnitude, size_ - 3);
  }

  bool tokens() {
    for (const std::size_t back : {std::size_t{0}, std::size_t{1}}) {
      const std::string_view attribute = from_end(back);
      if (from_end(back + 1) != "token_adapter") continue;
      const bool is_delta = attribute == "trainable_tokens_delta";
      if (!is_delta && attribute != "trainable_tokens_original") continue;
      if (back == 1) key_.adapter_name = parts_.back();
      const std::size_t path = size_ - 2 - back;
      return is_delta ? finish(KeyRole::trainable_tokens, path)
                      : finish(KeyRole::original, path, "token_adapter.trainable_tokens_original");
    }
    return false;
  }

  // lora_diag, lora_diag.<adapter>, lora_monteclora_sampler[.<adapter>].<buffer>.
  bool variant() {
    for (std::size_t back = 0; back < 3; ++back) {
      const std::string_view attribute = from_end(back);
      if (std::find(kVariantAttributes.begin(), kVariantAttributes.end(), attribute) ==
          kVariantAttributes.end())
        continue;
      const bool is_module = attribute == "lora_monteclora_sampler";
      if (back == 2 && !is_module) continue;
      if (back == 2 || (back == 1 && !is_module)) key_.adapter_name = parts_[size_ - back];
      std::string parameter(attribute);
      if (is_module && back > 0) parameter += "." + std::string(parts_.back());
      return finish(KeyRole::variant, size_ - 1 - back, parameter);
    }
    return false;
  }

  // <module>.modules_to_save[.<adapter>].<param...>, <module>.original_module.<param...>.
  bool saved_copy() {
    for (std::size_t i = 1; i + 1 < size_; ++i) {
      if (parts_[i] == "original_module")
        return finish(KeyRole::original, i, "original_module." + join(parts_, i + 1, size_));
      if (parts_[i] != "modules_to_save") continue;
      std::size_t rest = i + 1;
      if (rest + 1 < size_) key_.adapter_name = parts_[rest++];
      Parts whole(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(i));
      whole.insert(whole.end(), parts_.begin() + static_cast<std::ptrdiff_t>(rest), parts_.end());
      key_.role = KeyRole::saved;
      key_.module_path = join(whole, 0, whole.size() - 1);
      key_.parameter = whole.back();
      return true;
    }
    return false;
  }

  bool base_layer() {
    if (from_end(1) != "base_layer") return false;
    const std::size_t path = from_end(2) == "token_adapter" ? size_ - 3 : size_ - 2;
    return finish(KeyRole::base_layer, path, parts_.back());
  }

  const Parts& parts_;
  ParsedKey& key_;
  std::size_t size_;
};

std::string_view suffix_of(KeyRole role) {
  switch (role) {
    case KeyRole::lora_a:
      return "lora_A.weight";
    case KeyRole::lora_b:
      return "lora_B.weight";
    case KeyRole::lora_b_bias:
      return "lora_B.bias";
    case KeyRole::embedding_a:
      return "lora_embedding_A";
    case KeyRole::embedding_b:
      return "lora_embedding_B";
    case KeyRole::magnitude:
      return "lora_magnitude_vector";
    case KeyRole::trainable_tokens:
      return "token_adapter.trainable_tokens_delta";
    case KeyRole::base_layer:
      return "base_layer.";
    case KeyRole::saved:
    case KeyRole::variant:
    case KeyRole::original:
      return "";
  }
  return "";
}

ParsedKey parse_once(std::string_view name) {
  ParsedKey key;
  Parts parts = split(name);
  strip_wrappers(parts, key);
  Grammar(parts, key).run();
  return key;
}

}  // namespace

// What is taken off can leave a name that reads otherwise (a module called lora_embedding_A inside
// modules_to_save). Such a name means what its clean form means, so that a file that was read and
// written again means the same.
ParsedKey parse_key(std::string_view name) {
  ParsedKey key = parse_once(name);
  std::string clean = to_peft_key(key);
  if (clean == name) return key;
  while (true) {
    ParsedKey again = parse_once(clean);
    std::string cleaner = to_peft_key(again);
    if (cleaner.size() >= clean.size()) return key;
    again.has_peft_prefix = key.has_peft_prefix;
    again.wrappers.insert(again.wrappers.begin(), key.wrappers.begin(), key.wrappers.end());
    if (!key.adapter_name.empty()) again.adapter_name = key.adapter_name;
    key = std::move(again);
    clean = std::move(cleaner);
  }
}

std::string adapter_of(const ParsedKey& key) {
  if (!key.adapter_name.empty()) return key.adapter_name;
  return key.is_lora() ? "default" : "";
}

std::string to_peft_key(const ParsedKey& key) {
  std::string text(kPeftPrefix);
  if (!key.module_path.empty()) text += key.module_path + ".";
  return text.append(suffix_of(key.role)).append(key.parameter);
}

std::string without_base_layers(std::string_view module_path) {
  if (module_path.find("base_layer") == std::string_view::npos) return std::string(module_path);
  Parts parts = split(module_path);
  std::erase(parts, "base_layer");
  return join(parts, 0, parts.size());
}

std::string to_base_name(const ParsedKey& key) {
  std::string text = without_base_layers(key.module_path);
  constexpr std::string_view original = "original_module.";
  std::string_view parameter = key.parameter;
  if (key.role == KeyRole::original) {
    parameter = parameter.starts_with(original) ? parameter.substr(original.size()) : "weight";
  } else if (key.role == KeyRole::lora_b_bias) {
    parameter = "bias";
  } else if (key.is_lora()) {
    parameter = "weight";
  }
  if (!text.empty()) text += '.';
  return text.append(parameter);
}

}  // namespace lora
