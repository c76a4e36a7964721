#include "lora/text/packing.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "lora/base/error.h"
#include "lora/text/dataset.h"

namespace lora {
namespace {

// Large enough that a window's last rows, which stay open, do not count.
constexpr std::size_t kWindow = 8192;

using Rows = std::vector<std::vector<std::size_t>>;

// `documents`: places in the order, as are those of the result.
Rows pack_window(std::vector<std::size_t> documents, const std::vector<std::int64_t>& lengths,
                 std::int64_t capacity) {
  std::stable_sort(documents.begin(), documents.end(),
                   [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  Rows rows;
  std::set<std::pair<std::int64_t, std::size_t>> open;  // free tokens, row
  for (const std::size_t document : documents) {
    auto place = open.lower_bound({lengths[document], 0});
    if (place == open.end()) {
      place = open.emplace(capacity, rows.size()).first;
      rows.emplace_back();
    }
    const auto [free, row] = *place;
    open.erase(place);
    rows[row].push_back(document);
    if (free > lengths[document]) open.emplace(free - lengths[document], row);
  }
  for (auto& row : rows) std::sort(row.begin(), row.end());
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

std::vector<std::vector<std::size_t>> pack_documents(std::span<const std::int64_t> lengths,
                                                     std::int64_t capacity, std::uint64_t seed,
                                                     bool shuffle) {
  const std::vector<std::size_t> order = epoch_order(lengths.size(), 0, seed, shuffle);
  std::vector<std::int64_t> ordered;
  ordered.reserve(order.size());
  for (const std::size_t document : order) {
    ordered.push_back(lengths[document]);
    if (ordered.back() > capacity)
      throw Error(ErrorKind::internal, "packing a document of " + std::to_string(ordered.back()) +
                                           " tokens into rows of " + std::to_string(capacity));
  }
  Rows result;
  for (std::size_t begin = 0; begin < order.size(); begin += kWindow) {
    std::vector<std::size_t> window(std::min(kWindow, order.size() - begin));
    for (std::size_t i = 0; i < window.size(); ++i) window[i] = begin + i;
    for (auto& row : pack_window(std::move(window), ordered, capacity)) {
      for (std::size_t& document : row) document = order[document];
      result.push_back(std::move(row));
    }
  }
  return result;
}

}  // namespace lora
