// Examples of a data set, by index, to the micro-batches that a model computes on.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "engine/batch.h"
#include "lora/text/dataset.h"

namespace lora::engine {

/// Token data: rows padded on the right to the longest of them (token 0, no label), and y of
/// sequences with one label. Tables: the rows of x and y, copied.
Batch make_batch(const Dataset& data, std::span<const std::size_t> indices);

/// Token data of a causal language model with the examples of `rows[i]` in row i, one behind the
/// other.
Batch make_packed_batch(const Dataset& data, std::span<const std::span<const std::size_t>> rows);

/// Tokens the batch makes a model read: valid positions, or rows of a table.
std::int64_t token_count(const Batch& batch);

/// "data.jsonl:3, data.jsonl:9": where the examples came from, for messages; names at most eight.
std::string origins(const Dataset& data, std::span<const std::size_t> indices);

}  // namespace lora::engine
