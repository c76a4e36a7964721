// An adapter made from others: new factors and strengths, all the rest as its source has it.
#pragma once

#include <map>
#include <string>

#include "lora/ops/derived.h"
#include "ops/lineage.h"

namespace lora {

/// What takes the place of a site's factors, in the shapes of LoraModule::a and b but for the rank.
struct SiteFactors {
  Tensor a, b;
  std::int64_t rank = 0;  ///< of one product
  double scaling = 0;     ///< of b . a, without LoraModule::times
};

/// Throws, before anything is computed: Error(malformed) when `adapter` has key problems, no LoRA
/// layer and no token rows, or values that are not finite, all of them by name; Error(usage) when
/// the output is or holds it; Error(output) when the output exists. `verb` is "resize" or the like.
void require_source(const std::string& verb, const Adapter& adapter, const DerivedOptions& options);

/// The adapter's tensors with these factors by module_path in place of its own; biases of lora_B
/// scaled so that what is added stays the same. A head whose factors are those of its tied
/// embedding, transposed, follows the embedding. Sites that are not named stay as they are.
TensorMap with_factors(const Adapter& adapter, const std::map<std::string, SiteFactors>& factors);

/// The configuration with ranks and scalings of these factors, written as little different as
/// possible. Throws Error(internal) when two sites with one key in the patterns differ.
AdapterConfig with_strengths(const Adapter& adapter,
                             const std::map<std::string, SiteFactors>& factors);

/// Writes PEFT's two files, tokenizer files that lie beside `source`, and a manifest with the
/// source's record of its base and the history. Everything appears at once or not at all.
DerivedReport write_derived(const Adapter& source, AdapterConfig config, TensorMap tensors,
                            const Operation& operation, const DerivedOptions& options);

}  // namespace lora
