#include "adapter/kinds.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/diff.h"
#include "support/testing.h"

namespace lora {
namespace {

const std::filesystem::path kRoot = testing::golden("kinds");

Adapter listed() { return open_adapter(kRoot / "adapters/tokens_list"); }

// The adapter's rows with the first element of row `row` changed.
Adapter with_changed_row(std::size_t row) {
  Adapter adapter = listed();
  Tensor& rows = adapter.tokens[0].rows;
  std::vector<std::byte> bytes(rows.bytes.begin(), rows.bytes.end());
  bytes[row * bytes.size() / 3] ^= std::byte{1};
  rows = Tensor::from_bytes(rows.dtype, rows.shape, std::move(bytes));
  return adapter;
}

using Lines = std::vector<std::string>;

TEST_CASE("diff names the tokens whose rows differ") {
  REQUIRE(diff(listed(), listed(), {}).is_equal());
  // The configuration lists 7, 1, 5.
  const AdapterDiff one = diff(listed(), with_changed_row(1), {});
  REQUIRE_FALSE(one.is_equal());
  REQUIRE(one.changed_replacements == Lines{"token 1 of model.embed_tokens"});

  Adapter other = listed();
  other.tokens[0].indices = {7, 5, 1};
  REQUIRE(diff(listed(), other, {}).changed_replacements ==
          Lines{"tokens 1, 5 of model.embed_tokens"});
  other = with_changed_row(1);  // the same tokens in another order of rows
  std::vector<std::byte> bytes;
  const auto rows = other.tokens[0].rows.bytes;
  const std::size_t size = rows.size() / 3;
  for (const std::size_t row : {2, 0, 1})
    bytes.insert(bytes.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * size),
                 rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * size));
  Adapter permuted = other;
  permuted.tokens[0].indices = {5, 7, 1};
  permuted.tokens[0].rows =
      Tensor::from_bytes(other.tokens[0].rows.dtype, other.tokens[0].rows.shape, std::move(bytes));
  REQUIRE(diff(other, permuted, {}).changed_replacements.empty());
  other = listed();
  other.tokens[0].indices[0] = 9;
  REQUIRE(diff(listed(), other, {}).changed_replacements ==
          Lines{"tokens 7, 9 of model.embed_tokens"});
  other = listed();
  other.tokens.clear();
  REQUIRE(diff(other, listed(), {}).changed_replacements ==
          Lines{"tokens 1, 5, 7 of model.embed_tokens"});
}

TEST_CASE("rows that are not one a token are compared as a whole") {
  Adapter damaged = listed();
  damaged.tokens[0].indices.pop_back();
  REQUIRE(diff(damaged, damaged, {}).is_equal());
  damaged.tokens[0].rows.shape = {24};
  Adapter other = damaged;
  other.tokens[0].rows = Tensor::from_bytes(DType::u8, {0}, {});
  REQUIRE(diff(damaged, other, {}).changed_replacements ==
          Lines{"token rows of model.embed_tokens"});
}

TEST_CASE("diff with a tuned checkpoint holds its embedding against the rows of tokens") {
  const Checkpoint base = open_checkpoint((kRoot / "bases/llama").string());
  const Adapter adapter = listed();
  const std::string name = "model.embed_tokens.weight";
  Tensor embedding = *base.find(name);
  std::vector<std::byte> bytes(embedding.bytes.begin(), embedding.bytes.end());
  const TokenRows& tokens = adapter.tokens[0];
  REQUIRE(tokens.rows.dtype == embedding.dtype);
  const std::size_t row = tokens.rows.bytes.size() / tokens.indices.size();
  for (std::size_t i = 0; i < tokens.indices.size(); ++i)
    std::copy_n(tokens.rows.bytes.begin() + static_cast<std::ptrdiff_t>(i * row), row,
                bytes.begin() + tokens.indices[i] * static_cast<std::ptrdiff_t>(row));
  Checkpoint tuned = base;
  tuned.tensors[name] = Tensor::from_bytes(embedding.dtype, embedding.shape, std::move(bytes));
  REQUIRE(diff(adapter, base, tuned, {}).changed_replacements.empty());
  REQUIRE(diff(adapter, base, base, {}).changed_replacements ==
          Lines{"tokens 1, 5, 7 of model.embed_tokens"});
  REQUIRE(diff(with_changed_row(2), base, tuned, {}).changed_replacements ==
          Lines{"token 5 of model.embed_tokens"});
}

}  // namespace
}  // namespace lora
