// Which documents share a row of a packed batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lora {

/// Documents of `lengths` tokens in rows of at most `capacity`; every document is in one row,
/// whole, and those of a row keep their order in it. Documents are drawn in the order of
/// epoch_order(..., epoch 0) and packed window by window, the longest of a window first, each into
/// the fullest row that has room; so rows are mixtures of neighbours in that order, and without
/// `shuffle` of neighbours in the file. A pure function of its arguments. Throws Error(internal)
/// for a document longer than `capacity`.
std::vector<std::vector<std::size_t>> pack_documents(std::span<const std::int64_t> lengths,
                                                     std::int64_t capacity, std::uint64_t seed,
                                                     bool shuffle);

}  // namespace lora
