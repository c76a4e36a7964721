#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "lora/adapter/update.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/parallel.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/diff.h"
#include "ops/base_targets.h"
#include "ops/diff_groups.h"
#include "ops/diff_rank.h"
#include "ops/diff_tokens.h"

namespace lora {
namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::int64_t kBlockRows = 64;
// Twice the expected error of rounding, and what f64 sums of squares do not resolve.
constexpr double kRoundings = 2;
constexpr double kResolution = 1e-7;

Rows read(const Tensor& tensor, std::int64_t first, std::int64_t rows, std::int64_t columns) {
  Rows out(rows, columns);
  widen(tensor.dtype,
        tensor.bytes.data() + static_cast<std::size_t>(first) * bits_of(tensor.dtype) / 8,
        std::span(out.data(), static_cast<std::size_t>(out.size())));
  return out;
}

struct Sums {
  double update = 0, change = 0, inner = 0, rounding = 0;  // squares and inner product
};

// Rows [row, row + count) of the stored weight that one product changes, and the product's part in
// the same orientation.
class ProductBlocks {
 public:
  ProductBlocks(const UpdateFactor& factor, bool is_transposed, const MatrixShape& shape)
      : a_(read(factor.a, 0, factor.a.shape[0], factor.a.shape[1])),
        b_(factor.scaling * read(factor.b, 0, factor.b.shape[0], factor.b.shape[1])),
        is_transposed_(is_transposed) {
    columns_ = is_transposed ? b_.rows() : a_.cols();
    rows_ = is_transposed ? a_.cols() : b_.rows();
    first_ = factor.expert * shape.rows * shape.columns + factor.first_row * columns_;
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t first(std::int64_t row) const { return first_ + row * columns_; }

  Rows update(std::int64_t row, std::int64_t count) const {
    if (is_transposed_) return a_.middleCols(row, count).transpose() * b_.transpose();
    return b_.middleRows(row, count) * a_;
  }

 private:
  Rows a_, b_;
  bool is_transposed_;
  std::int64_t rows_ = 0, columns_ = 0, first_ = 0;
};

LayerKind kind_in(const ModuleList& modules, const std::string& path) {
  const auto found = std::find_if(modules.begin(), modules.end(),
                                  [&](const ModuleInfo& m) { return m.module_path == path; });
  return found == modules.end() ? LayerKind::other : found->kind;
}

class Comparison {
 public:
  Comparison(const Adapter& adapter, const Checkpoint& base, const Checkpoint& tuned,
             const AdapterDiffOptions& options)
      : adapter_(adapter),
        base_(base),
        tuned_(tuned),
        options_(options),
        modules_(list_modules(base)) {}

  TunedDiff run() {
    result_.modules.resize(adapter_.modules.size());
    sums_.resize(adapter_.modules.size());
    parallel_for(sums_.size(), options_.threads, [&](std::size_t i) { compare(i); });
    compare_replacements();
    compare_elsewhere();
    add_up();
    return std::move(result_);
  }

 private:
  std::string obstacle(const LoraModule& module) const {
    const Tensor* base = base_.find(module.base_name);
    const Tensor* tuned = tuned_.find(module.base_name);
    if (base == nullptr) return "the base has no tensor " + module.base_name;
    if (tuned == nullptr) return "the tuned checkpoint has no tensor " + module.base_name;
    if (base->shape != tuned->shape)
      return module.base_name + " is " + shape_to_string(base->shape) + " in the base and " +
             shape_to_string(tuned->shape) + " in the tuned checkpoint";
    if (!is_float(base->dtype) || !is_float(tuned->dtype)) return "the weight is quantised";
    const MatrixShape shape = update_shape(module);
    if (base->numel() != shape.rows * shape.columns * module.experts)
      return "the update is [" + std::to_string(shape.rows) + ", " + std::to_string(shape.columns) +
             "] and does not fit " + shape_to_string(base->shape);
    if (module.magnitude) return "DoRA does not add its update to the weight";
    if (const std::string init = base_changing_init(adapter_.config); !init.empty())
      return "loading rewrites the base (init_lora_weights is \"" + init + "\")";
    return {};
  }

  void compare(std::size_t i) {
    const LoraModule& module = adapter_.modules[i];
    TunedModule& row = result_.modules[i];
    row.module_path = module.module_path;
    row.place = place_of(module.module_path);
    row.not_compared = obstacle(module);
    if (!row.not_compared.empty()) return;
    const Tensor& base = *base_.find(module.base_name);
    const Tensor& tuned = *tuned_.find(module.base_name);
    const bool transposed = is_transposed(module, kind_in(modules_, module.module_path));
    const MatrixShape shape = update_shape(module);
    Sums& sums = sums_[i];
    double squares = 0;
    for (const UpdateFactor& factor : update_factors(module)) {
      const ProductBlocks blocks(factor, transposed, shape);
      for (std::int64_t r = 0; r < blocks.rows(); r += kBlockRows) {
        options_.sinks.throw_if_cancelled();
        const std::int64_t count = std::min(kBlockRows, blocks.rows() - r);
        const Rows change = read(tuned, blocks.first(r), count, blocks.columns()) -
                            read(base, blocks.first(r), count, blocks.columns());
        const Rows update = blocks.update(r, count);
        sums.update += update.squaredNorm();
        sums.change += change.squaredNorm();
        sums.inner += update.cwiseProduct(change).sum();
        sums.rounding += squared_rounding(tuned, blocks.first(r), count * blocks.columns());
        squares += (change - update).squaredNorm();
      }
    }
    drop_pages(base_.mappings, base.bytes);
    drop_pages(tuned_.mappings, tuned.bytes);
    row.update_norm = std::sqrt(sums.update);
    row.change_norm = std::sqrt(sums.change);
    row.difference = std::sqrt(squares);
    row.rounding = std::sqrt(sums.rounding);
    row.relative = relative_to(row.difference, row.update_norm);
    if (sums.update > 0) {
      row.best_scale = sums.inner / sums.update;
      row.relative_at_best =
          std::sqrt(std::max(0.0, sums.change - sums.inner * row.best_scale) / sums.update);
    }
    if (sums.update > 0 && sums.change > 0)
      row.cosine = std::clamp(sums.inner / (row.update_norm * row.change_norm), -1.0, 1.0);
    if (!std::isfinite(squares))
      row.cosine = row.best_scale = row.relative_at_best = std::numeric_limits<double>::quiet_NaN();
  }

  void compare_replacements() {
    for (const auto& [name, tensor] : adapter_.replacements) {
      const Tensor* tuned = tuned_.find(name);
      const bool is_kept = tuned != nullptr && tuned->shape == tensor.shape &&
                           is_float(tensor.dtype) && is_float(tuned->dtype) &&
                           has_equal_bytes(tensor.cast(tuned->dtype), *tuned);
      if (!is_kept) result_.changed_replacements.push_back(name);
    }
    for (const TokenRows& tokens : adapter_.tokens) {
      std::string changed = changed_token_rows(tokens, tuned_.find(tokens.module_path + ".weight"));
      if (!changed.empty()) result_.changed_replacements.push_back(std::move(changed));
    }
  }

  void compare_elsewhere() {
    std::set<const Tensor*> touched;
    for (const LoraModule& module : adapter_.modules) touched.insert(base_.find(module.base_name));
    for (const auto& [name, tensor] : adapter_.replacements) touched.insert(base_.find(name));
    for (const TokenRows& rows : adapter_.tokens)
      touched.insert(base_.find(rows.module_path + ".weight"));
    std::vector<const TensorMap::value_type*> others;
    for (const auto& entry : base_.tensors) {
      if (tuned_.find(entry.first) == nullptr) {
        result_.only_in_base.push_back(entry.first);
      } else if (!touched.contains(&entry.second)) {
        others.push_back(&entry);
      }
    }
    for (const auto& [name, tensor] : tuned_.tensors)
      if (base_.find(name) == nullptr) result_.only_in_tuned.push_back(name);
    std::vector<char> is_changed(others.size(), 0);
    parallel_for(others.size(), options_.threads, [&](std::size_t i) {
      options_.sinks.throw_if_cancelled();
      const Tensor& base = others[i]->second;
      const Tensor& tuned = *tuned_.find(others[i]->first);
      const bool is_rounded = base.dtype != tuned.dtype && base.shape == tuned.shape &&
                              is_float(base.dtype) && is_float(tuned.dtype);
      is_changed[i] = has_equal_bytes(is_rounded ? base.cast(tuned.dtype) : base, tuned) ? 0 : 1;
      drop_pages(base_.mappings, base.bytes);
      drop_pages(tuned_.mappings, tuned.bytes);
    });
    for (std::size_t i = 0; i < others.size(); ++i)
      if (is_changed[i] != 0) result_.changed_elsewhere.push_back(others[i]->first);
  }

  void add_up() {
    Sums total;
    double squares = 0;
    std::vector<ModulePlace> places;
    std::vector<double> relative;
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      if (!result_.modules[i].not_compared.empty()) continue;
      total.update += sums_[i].update;
      total.change += sums_[i].change;
      total.inner += sums_[i].inner;
      squares += result_.modules[i].difference * result_.modules[i].difference;
      places.push_back(result_.modules[i].place);
      relative.push_back(result_.modules[i].relative);
    }
    result_.update_norm = std::sqrt(total.update);
    result_.change_norm = std::sqrt(total.change);
    result_.difference = std::sqrt(squares);
    if (total.update > 0) result_.best_scale = total.inner / total.update;
    if (total.update > 0 && total.change > 0)
      result_.cosine =
          std::clamp(total.inner / (result_.update_norm * result_.change_norm), -1.0, 1.0);
    if (!std::isfinite(squares))
      result_.cosine = result_.best_scale = std::numeric_limits<double>::quiet_NaN();
    result_.relative_map = heat_map(places, relative);
  }

  const Adapter& adapter_;
  const Checkpoint& base_;
  const Checkpoint& tuned_;
  const AdapterDiffOptions& options_;
  ModuleList modules_;
  std::vector<Sums> sums_;
  TunedDiff result_;
};

}  // namespace

bool TunedDiff::is_equal() const {
  return changed_elsewhere.empty() && only_in_base.empty() && only_in_tuned.empty() &&
         changed_replacements.empty() &&
         std::all_of(modules.begin(), modules.end(), [](const TunedModule& module) {
           return module.not_compared.empty() &&
                  module.difference <=
                      kRoundings * module.rounding + kResolution * module.update_norm;
         });
}

TunedDiff diff(const Adapter& adapter, const Checkpoint& base, const Checkpoint& tuned,
               const AdapterDiffOptions& options) {
  Adapter settled = adapter;
  settle_with(settled, base, list_modules(base));
  return Comparison(settled, base, tuned, options).run();
}

}  // namespace lora
