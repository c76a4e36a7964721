// Rows of token embeddings (trainable_token_indices) that differ.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"

namespace lora {

/// One line for each embedding of either side whose rows are not the same tokens with the same
/// bytes: "tokens 5, 17 of model.embed_tokens".
std::vector<std::string> changed_token_rows(const std::vector<TokenRows>& a,
                                            const std::vector<TokenRows>& b);

/// The same for rows that an embedding [vocabulary, width] does not hold, rounded to its dtype;
/// empty: it holds them all.
std::string changed_token_rows(const TokenRows& rows, const Tensor* embedding);

}  // namespace lora
