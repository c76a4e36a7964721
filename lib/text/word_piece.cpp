#include "text/word_piece.h"

#include <algorithm>
#include <utility>

#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), is_utf8_start));
}

}  // namespace

WordPiece::WordPiece(const TokenTables& tables, WordPieceOptions options, AllocationBudget& budget,
                     const std::string& context)
    : options_(std::move(options)),
      by_spelling_(index_of(tables, context)),
      trie_(tables, budget, context),
      unk_id_(by_spelling_.find(options_.unk_token)) {
  if (unk_id_ == TokenIndex::kNone)
    throw malformed_tokenizer("unk_token \"" + options_.unk_token + "\" is not in the vocabulary",
                              context);
  continuing_ = TokenTrie::kRoot;
  for (const char c : options_.prefix)
    if (continuing_ != TokenTrie::kNone)
      continuing_ = trie_.child(continuing_, static_cast<unsigned char>(c));
}

void WordPiece::encode(std::string_view piece, std::vector<std::uint32_t>& out) const {
  if (count_characters(piece) > options_.most_characters) {
    out.push_back(unk_id_);
    return;
  }
  for (std::size_t start = 0; start < piece.size();) {
    std::uint32_t node = start == 0 ? TokenTrie::kRoot : continuing_;
    std::uint32_t best = TokenTrie::kNone;
    std::size_t end = start;
    for (std::size_t i = start; node != TokenTrie::kNone && i < piece.size();) {
      node = trie_.child(node, static_cast<unsigned char>(piece[i++]));
      if (node == TokenTrie::kNone || trie_.token(node) == TokenTrie::kNone) continue;
      best = trie_.token(node);
      end = i;
    }
    if (best == TokenTrie::kNone) {
      out.assign(1, unk_id_);
      return;
    }
    out.push_back(best);
    start = end;
  }
}

}  // namespace lora::text
