#include "ops/combine/assemble.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "lora/adapter/keys.h"
#include "lora/adapter/strength.h"
#include "lora/base/error.h"
#include "ops/combine/inner_products.h"
#include "ops/merge/finite.h"

namespace lora::combining {
namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// What the adapters bring to one product of a site.
Products products_of(const Site& site, std::int64_t expert) {
  std::vector<std::size_t> adapters;
  std::vector<UpdateFactor> terms;
  for (const Part& part : site.parts) {
    adapters.push_back(part.adapter);
    terms.push_back(part.terms.at(static_cast<std::size_t>(expert)));
  }
  numbers::StackGrams grams(terms);
  Matrix inner = inner_products(terms, grams);
  return {site.module_path, expert,           std::move(adapters),
          std::move(terms), std::move(grams), std::move(inner)};
}

Tensor rounded(const Site& site, const Rows& values, std::vector<std::int64_t> shape, DType dtype) {
  const auto count = static_cast<std::size_t>(values.size());
  std::vector<std::byte> bytes(count * bits_of(dtype) / 8);
  narrow(std::span(values.data(), count), dtype, bytes.data());
  if (!merging::is_finite(dtype, bytes))
    throw Error(ErrorKind::incompatible, "the combination of " + site.module_path +
                                             " has values beyond the range of " +
                                             std::string(to_string(dtype)))
        .with_hint("smaller weights, or another --dtype");
  return Tensor::from_bytes(dtype, std::move(shape), std::move(bytes));
}

// Products of the experts into one pair of factors: A expert by expert, B rank by rank.
void join_experts(const Site& site, const std::vector<Combination>& products, DType dtype,
                  SiteResult& result) {
  const LoraModule& like = site.shape_of();
  const auto experts = static_cast<Eigen::Index>(products.size());
  for (const Combination& product : products)
    result.rank = std::max<std::int64_t>(result.rank, product.a.rows());
  Rows a = Rows::Zero(result.rank * experts, products.front().a.cols());
  Rows b = Rows::Zero(products.front().b.rows(), result.rank * experts);
  for (Eigen::Index e = 0; e < experts; ++e) {
    const Combination& product = products[static_cast<std::size_t>(e)];
    a.middleRows(e * result.rank, product.a.rows()) = product.a;
    for (Eigen::Index k = 0; k < product.b.cols(); ++k) b.col(k * experts + e) = product.b.col(k);
  }
  std::vector<std::int64_t> shape_a = like.a.shape, shape_b = like.b.shape;
  shape_a[0] = a.rows();
  shape_b[1] = b.cols();
  result.a = rounded(site, a, std::move(shape_a), dtype);
  result.b = rounded(site, b, std::move(shape_b), dtype);
}

bool has_bias(const Site& site) {
  return std::any_of(site.parts.begin(), site.parts.end(),
                     [](const Part& part) { return part.module->bias.has_value(); });
}

Tensor sum_of_biases(const Site& site, const Products& products, const Recipe& recipe,
                     DType dtype) {
  const std::vector<double> coefficients = coefficients_of(products, recipe);
  Rows sum = Rows::Zero(1, site.shape_of().b.shape[0]);
  for (std::size_t i = 0; i < site.parts.size(); ++i) {
    const LoraModule& module = *site.parts[i].module;
    if (!module.bias) continue;
    const std::vector<double> values = module.bias->to_f64();
    for (Eigen::Index k = 0; k < sum.cols(); ++k)
      sum(0, k) += coefficients[i] * module.scaling * values[static_cast<std::size_t>(k)];
  }
  return rounded(site, sum, {sum.cols()}, dtype);
}

// The same bytes with zeros behind every `run` of them, so that it is `longer` long.
Tensor padded(const Tensor& tensor, std::size_t run, std::size_t longer,
              std::vector<std::int64_t> shape) {
  std::vector<std::byte> bytes(tensor.bytes.size() / run * longer);
  for (std::size_t from = 0, to = 0; from < tensor.bytes.size(); from += run, to += longer)
    std::memcpy(bytes.data() + to, tensor.bytes.data() + from, run);
  return Tensor::from_bytes(tensor.dtype, std::move(shape), std::move(bytes));
}

void pad(SiteResult& result, std::int64_t experts, std::int64_t rank) {
  if (result.rank == rank) return;
  const auto own = static_cast<std::size_t>(result.rank);
  const auto wanted = static_cast<std::size_t>(rank);
  std::vector<std::int64_t> shape_a = result.a.shape, shape_b = result.b.shape;
  shape_a[0] = rank * experts;
  shape_b[1] = rank * experts;
  const std::size_t run_a = result.a.bytes.size() / static_cast<std::size_t>(experts);
  const std::size_t run_b = result.b.bytes.size() / static_cast<std::size_t>(result.b.shape[0]);
  result.a = padded(result.a, run_a, run_a / own * wanted, std::move(shape_a));
  result.b = padded(result.b, run_b, run_b / own * wanted, std::move(shape_b));
  result.rank = rank;
}

std::string key_of(const LoraModule& module, KeyRole role) {
  ParsedKey key;
  key.role = role;
  key.module_path = module.module_path;
  return to_peft_key(key);
}

// Embedding and head of one matrix have one pair of factors, turned: A = B^T and B = A^T.
void follow_embedding(const std::vector<Site>& sites, std::vector<SiteResult>& results) {
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < sites.size(); ++i) places[sites[i].module_path] = i;
  const auto turned = [](const Tensor& tensor) {
    const std::vector<double> values = tensor.to_f64();
    const Eigen::Map<const Rows> rows(values.data(), tensor.shape[0], tensor.shape[1]);
    const Rows other = rows.transpose();
    std::vector<std::byte> bytes(tensor.bytes.size());
    narrow(std::span(other.data(), values.size()), tensor.dtype, bytes.data());
    return Tensor::from_bytes(tensor.dtype, {tensor.shape[1], tensor.shape[0]}, std::move(bytes));
  };
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const auto found = places.find(sites[i].shape_of().tied_to);
    if (sites[i].shape_of().tied_to.empty() || found == places.end()) continue;
    const SiteResult& embedding = results[found->second];
    results[i].a = turned(embedding.b);
    results[i].b = turned(embedding.a);
    results[i].rank = embedding.rank;
  }
}

}  // namespace

SiteResult combine_site(const Site& site, const Recipe& recipe, DType dtype) {
  SiteResult result;
  result.squared_error = 0;
  std::vector<Combination> products;
  for (std::int64_t expert = 0; expert < site.experts(); ++expert) {
    const Products parts = products_of(site, expert);
    if (expert == 0) {
      result.inner = parts.inner;
      if (has_bias(site)) result.bias = sum_of_biases(site, parts, recipe, dtype);
    } else {
      result.inner += parts.inner;
    }
    Combination& one =
        products.emplace_back(needs_equal_ranks(recipe.method) ? combine_factors(parts, recipe)
                              : is_dense(recipe.method)        ? combine_dense(parts, recipe)
                                                               : combine_updates(parts, recipe));
    result.squares += one.squares;
    if (one.squared_error && result.squared_error) {
      *result.squared_error += *one.squared_error;
    } else {
      result.squared_error.reset();
    }
  }
  join_experts(site, products, dtype, result);
  return result;
}

std::int64_t peft_rank(const AdapterConfig& config) {
  std::int64_t rank = config.rank;
  for (const auto& [pattern, value] : config.rank_pattern)
    rank = std::max(rank, static_cast<std::int64_t>(value));
  return rank;
}

Assembled assemble(const std::vector<Site>& sites, std::vector<SiteResult> results, Carried carried,
                   std::optional<std::int64_t> common_rank) {
  follow_embedding(sites, results);
  std::map<std::string, std::int64_t> ranks;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    std::int64_t& rank = ranks[pattern_path(sites[i].shape_of())];
    rank = std::max({rank, results[i].rank, common_rank.value_or(0)});
  }
  Assembled assembled{std::move(carried.config), std::move(carried.tensors)};
  const bool has_biases = std::any_of(results.begin(), results.end(),
                                      [](const SiteResult& result) { return bool(result.bias); });
  std::map<std::string, SiteStrength> strengths;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const LoraModule& module = sites[i].shape_of();
    SiteResult& result = results[i];
    const std::int64_t rank = ranks.at(pattern_path(module));
    pad(result, module.experts, rank);
    strengths[pattern_path(module)] = {rank, 1};
    if (module.kind == LayerKind::embedding) {
      assembled.tensors[key_of(module, KeyRole::embedding_a)] = std::move(result.a);
      assembled.tensors[key_of(module, KeyRole::embedding_b)] = std::move(result.b);
      continue;
    }
    const DType dtype = result.b.dtype;
    assembled.tensors[key_of(module, KeyRole::lora_a)] = std::move(result.a);
    assembled.tensors[key_of(module, KeyRole::lora_b)] = std::move(result.b);
    if (!has_biases) continue;
    if (!result.bias)
      result.bias = rounded(sites[i], Rows::Zero(1, module.b.shape[0]), {module.b.shape[0]}, dtype);
    assembled.tensors[key_of(module, KeyRole::lora_b_bias)] = std::move(*result.bias);
  }
  AdapterConfig& config = assembled.config;
  config.lora_bias = has_biases;
  if (common_rank) {
    config.rank = *common_rank;
    config.alpha = static_cast<double>(*common_rank);
    config.rank_pattern.clear();
    config.alpha_pattern.clear();
  } else {
    config.use_rslora = false;
    set_strengths(config, strengths);
  }
  return assembled;
}

}  // namespace lora::combining
