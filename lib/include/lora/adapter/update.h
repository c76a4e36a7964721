// The update of a LoRA site as plain products of matrices, whatever the kind of its layer.
//
// Norms, ranks, distances, merges and replays all work on these products and know nothing of
// kinds. Formulas are those of PEFT 0.21.2 (docs/formats.md has them by kind).
#pragma once

#include <cstdint>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/module.h"

namespace lora {

/// One product: the update block is scaling * b . a, [b rows, a columns].
struct UpdateFactor {
  Tensor a;                    ///< float [r, columns]; F64 where a diagonal was folded in
  Tensor b;                    ///< float [rows, r]
  double scaling = 0;          ///< the module's scaling times `times`
  std::int64_t expert = 0;     ///< index along dimension 0 of a stacked parameter
  std::int64_t first_row = 0;  ///< of the block in the update matrix (see update_factors)
};

/// The products of a site. A linear layer, GPT-2 Conv1D, embedding, attention projection or
/// ungrouped convolution gives one; a stack of experts one an expert; a grouped convolution one a
/// group and BD-LoRA with blocks in B one a block, each filling its own rows of the update. Factors
/// are views of the module's bytes where the layout allows and copies otherwise (rank-major B of
/// experts, KaSA's diagonal folded into a, BD-LoRA's blocks in A and QALoRA's pooled inputs
/// expanded). DoRA's magnitude and lora_bias are not part of the product.
std::vector<UpdateFactor> update_factors(const LoraModule& module);

/// Rows and columns of the whole update matrix of one expert. That of a convolution is
/// [out, in * kernel] with all inputs of the layer: a group's B sees factors of every input, so the
/// update of a grouped convolution does not fit into its weight [out, in / groups, kernel...].
struct MatrixShape {
  std::int64_t rows = 0, columns = 0;
};
MatrixShape update_shape(const LoraModule& module);

/// True when the update must be transposed to be added to the stored weight: embeddings, GPT-2
/// Conv1D (which only the base can tell: `base_kind`), and experts stored [E, in, out].
bool is_transposed(const LoraModule& module, LayerKind base_kind);

}  // namespace lora
