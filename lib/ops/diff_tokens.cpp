#include "ops/diff_tokens.h"

#include <map>
#include <set>

#include "lora/base/equal_bytes.h"

namespace lora {
namespace {

Tensor row_of(const Tensor& matrix, std::size_t row) {
  const std::size_t size = matrix.bytes.size() / static_cast<std::size_t>(matrix.shape[0]);
  return {
      matrix.dtype, {matrix.shape[1]}, matrix.bytes.subspan(row * size, size), matrix.keep_alive};
}

using Rows = std::map<std::int64_t, Tensor>;  // by token

// A damaged file may hold another number of rows than the configuration names; they are nobody's.
bool has_a_row_each(const TokenRows& tokens) {
  const std::vector<std::int64_t>& shape = tokens.rows.shape;
  return shape.size() == 2 && shape[0] > 0 &&
         static_cast<std::size_t>(shape[0]) == tokens.indices.size();
}

Rows rows_of(const TokenRows& tokens) {
  Rows rows;
  if (!has_a_row_each(tokens)) return rows;
  for (std::size_t i = 0; i < tokens.indices.size(); ++i)
    rows.insert_or_assign(tokens.indices[i], row_of(tokens.rows, i));
  return rows;
}

std::set<std::int64_t> changed_tokens(const Rows& a, const Rows& b) {
  std::set<std::int64_t> changed;
  for (const auto& [from, to] : {std::pair(&a, &b), std::pair(&b, &a)})
    for (const auto& [token, row] : *from) {
      const auto other = to->find(token);
      if (other == to->end() || !has_equal_bytes(row, other->second)) changed.insert(token);
    }
  return changed;
}

std::string line(const std::set<std::int64_t>& tokens, const std::string& module_path) {
  constexpr std::size_t kShown = 8;
  std::string text = tokens.size() == 1 ? "token " : "tokens ";
  std::size_t shown = 0;
  for (const std::int64_t token : tokens) {
    if (shown == kShown) break;
    text += (shown++ == 0 ? "" : ", ") + std::to_string(token);
  }
  if (tokens.size() > shown) text += " and " + std::to_string(tokens.size() - shown) + " more";
  return text + " of " + module_path;
}

}  // namespace

std::vector<std::string> changed_token_rows(const std::vector<TokenRows>& a,
                                            const std::vector<TokenRows>& b) {
  std::map<std::string, std::pair<const TokenRows*, const TokenRows*>> embeddings;
  for (const TokenRows& tokens : a) embeddings[tokens.module_path].first = &tokens;
  for (const TokenRows& tokens : b) embeddings[tokens.module_path].second = &tokens;
  std::vector<std::string> lines;
  for (const auto& [path, sides] : embeddings) {
    const auto& [left, right] = sides;
    const std::set<std::int64_t> changed =
        changed_tokens(left ? rows_of(*left) : Rows(), right ? rows_of(*right) : Rows());
    if (!changed.empty()) {
      lines.push_back(line(changed, path));
      continue;
    }
    const bool is_complete = left && right && has_a_row_each(*left) && has_a_row_each(*right);
    const bool is_same = left && right && has_equal_bytes(left->rows, right->rows);
    if (!is_complete && !is_same) lines.push_back("token rows of " + path);
  }
  return lines;
}

std::string changed_token_rows(const TokenRows& tokens, const Tensor* embedding) {
  const bool fits = embedding != nullptr && has_a_row_each(tokens) &&
                    embedding->shape.size() == 2 && embedding->shape[1] == tokens.rows.shape[1] &&
                    is_float(embedding->dtype) && is_float(tokens.rows.dtype);
  std::set<std::int64_t> changed;
  for (const auto& [token, row] : rows_of(tokens)) {
    const bool has_row = fits && token >= 0 && token < embedding->shape[0];
    if (!has_row || !has_equal_bytes(row.cast(embedding->dtype),
                                     row_of(*embedding, static_cast<std::size_t>(token))))
      changed.insert(token);
  }
  return changed.empty() ? std::string() : line(changed, tokens.module_path);
}

}  // namespace lora
