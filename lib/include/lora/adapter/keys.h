// The grammar of tensor names in adapter files.
//
// A peft_key is `base_model.model.<module_path>.<tensor>`. In memory PEFT puts the adapter name
// behind the LoRA attribute (`lora_A.default.weight`); wrappers add `module.` (DDP), `_orig_mod.`
// (torch.compile) or `_fsdp_wrapped_module.` components anywhere.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lora {

enum class KeyRole {
  lora_a,            ///< lora_A.weight
  lora_b,            ///< lora_B.weight
  lora_b_bias,       ///< lora_B.bias (lora_bias)
  embedding_a,       ///< lora_embedding_A
  embedding_b,       ///< lora_embedding_B
  magnitude,         ///< lora_magnitude_vector[.weight] (DoRA)
  trainable_tokens,  ///< token_adapter.trainable_tokens_delta
  base_layer,        ///< <module>.base_layer.<param>: saved biases and embeddings
  saved,             ///< <module>.<param>: modules_to_save, biases of unwrapped modules
  variant,           ///< lora_diag, lora_velora_embed, lora_monteclora_sampler...
  original,          ///< frozen twin of something saved: <module>.original_module.<param>,
                     ///< <module>.token_adapter.trainable_tokens_original
};

struct ParsedKey {
  KeyRole role = KeyRole::saved;
  /// Base model path, without any prefix or wrapper. `base_layer` components stay where LoRA sits
  /// inside another LoRA layer (attention output projections, expert parameters): they tell two
  /// sites apart. to_base_name leaves them out.
  std::string module_path;
  /// Last component ("weight", "bias"); empty where the role says it. For `variant` the attribute
  /// ("lora_diag", "lora_monteclora_sampler.std_prior"), for `original` all that follows.
  std::string parameter;
  std::string adapter_name;           ///< "default" when the key carried one, else empty
  bool has_peft_prefix = false;       ///< started with base_model.model.
  std::vector<std::string> wrappers;  ///< wrapper components found ("_orig_mod", "module", ...)

  bool is_lora() const {
    return role != KeyRole::saved && role != KeyRole::base_layer && role != KeyRole::original;
  }
};

/// Takes any name apart; never throws. Names that carry nothing of LoRA come back with role
/// `saved`.
///
/// The grammar is read from the end: a module may itself be called `weight`, `lora_A` or `default`.
/// `_orig_mod` and `_fsdp_wrapped_module` are wrappers anywhere; `module` only in front of
/// base_model.model., directly behind it, or as the first component of a name without that prefix,
/// because models have modules of that name.
ParsedKey parse_key(std::string_view name);

/// The adapter that a tensor belongs to: the name in its key, "default" for LoRA tensors without
/// one. Empty for parameters of the base, which belong to whatever adapter the file holds.
std::string adapter_of(const ParsedKey& key);

/// The clean peft_key of a parsed name, as PEFT writes it.
std::string to_peft_key(const ParsedKey& key);

/// A site's path without the `base_layer` components of LoRA layers around it: the module's path in
/// the base ("experts.base_layer.router" is experts.router, inside experts with LoRA on bare
/// parameters).
std::string without_base_layers(std::string_view module_path);

/// Name of the base parameter this key refers to (`<module_path>.<parameter>`).
std::string to_base_name(const ParsedKey& key);

}  // namespace lora
