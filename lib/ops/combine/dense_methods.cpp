// The methods that look at every element of every update: formed block of rows by block of rows, as
// often as the method has to see it, and only what comes out stands in memory, in f32.
#include <algorithm>
#include <cmath>

#include "ops/combine/recipe.h"
#include "ops/combine/sparse.h"
#include "ops/numbers/top_svd.h"

namespace lora::combining {
namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using numbers::Accuracy;
using numbers::MatrixView;

// Values formed at once.
constexpr std::int64_t kBlockValues = 1 << 18;

// s * B . A, some rows at a time. The updates that PEFT trims are f32; so are these.
class UpdateRows {
 public:
  UpdateRows(const UpdateFactor& term, double scaling)
      : a_(matrix(term.a)), b_(matrix(term.b) * scaling) {}

  std::int64_t rows() const { return b_.rows(); }

  /// The rows from `first` on, into as many as `out` has.
  void read(std::int64_t first, Rows& out) const {
    out.noalias() = b_.middleRows(first, out.rows()) * a_;
    out = out.cast<float>().cast<double>();
  }

 private:
  static Rows matrix(const Tensor& tensor) {
    const std::vector<double> values = tensor.to_f64();
    return Eigen::Map<const Rows>(values.data(), tensor.shape.at(0), tensor.shape.at(1));
  }

  Rows a_, b_;
};

std::span<double> all(Rows& rows) { return {rows.data(), static_cast<std::size_t>(rows.size())}; }

template <typename Use>
void for_blocks(std::int64_t rows, std::int64_t columns, Use&& use) {
  const std::int64_t step = std::max<std::int64_t>(1, kBlockValues / columns);
  for (std::int64_t first = 0; first < rows; first += step)
    use(first, std::min(step, rows - first));
}

struct Task {
  UpdateRows update;
  Trim trim;
  Drop drop;
  Rows block;
};

Tensor combined(const Products& products, const Recipe& recipe) {
  const CombineMethod method = recipe.method;
  const std::int64_t rows = products.rows();
  const std::int64_t columns = products.columns();
  const bool is_dropped =
      method == CombineMethod::dare_linear_svd || method == CombineMethod::dare_ties_svd;
  const bool has_signs =
      method == CombineMethod::ties_svd || method == CombineMethod::dare_ties_svd;
  std::vector<Task> tasks;
  std::vector<double> weights;
  for (std::size_t i = 0; i < products.terms.size(); ++i) {
    const UpdateFactor& term = products.terms[i];
    const std::size_t adapter = products.adapters[i];
    weights.push_back(recipe.weights[adapter] *
                      (recipe.compat == PeftCompat::v0_20 ? term.scaling : 1));
    Task& task = tasks.emplace_back(
        Task{UpdateRows(term, term.scaling), Trim(rows * columns, is_dropped ? 1 : recipe.density),
             Drop(recipe.seed, mask_stream(adapter, products.name), recipe.density), Rows()});
    if (!task.trim.is_needed()) continue;
    for (int pass = 0; pass < 2; ++pass) {
      for_blocks(rows, columns, [&](std::int64_t first, std::int64_t count) {
        task.block.resize(count, columns);
        task.update.read(first, task.block);
        task.trim.see(all(task.block));
      });
      task.trim.settle();
    }
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows * columns) * sizeof(float));
  Eigen::Map<FloatRows> result(reinterpret_cast<float*>(bytes.data()), rows, columns);
  Rows out;
  for_blocks(rows, columns, [&](std::int64_t first, std::int64_t count) {
    std::vector<std::span<double>> spans;
    for (Task& task : tasks) {
      task.block.resize(count, columns);
      task.update.read(first, task.block);
      task.trim.keep(all(task.block));
      if (is_dropped)
        task.drop.keep(all(task.block),
                       static_cast<std::uint64_t>((products.expert * rows + first) * columns));
      spans.push_back(all(task.block));
    }
    out.resize(count, columns);
    if (has_signs) {
      elect(spans, weights, recipe.majority_sign, recipe.is_election_unweighted(), all(out));
    } else {
      add_weighted(spans, weights, all(out));
    }
    result.middleRows(first, count) = out.cast<float>();
  });
  return Tensor::from_bytes(DType::f32, {rows, columns}, std::move(bytes));
}

// The least rank that keeps the share, found by doubling.
numbers::TopSvd keeping(const MatrixView& matrix, double share, const std::string& name) {
  const std::int64_t most = std::min(matrix.rows, matrix.columns);
  for (std::int64_t rank = 16;; rank *= 2) {
    numbers::TopSvd svd = numbers::top_svd(matrix, rank, name, Accuracy::energy);
    double kept = 0;
    Eigen::Index needed = 0;
    while (needed < svd.values.size() && kept < share * svd.energy)
      kept += std::pow(svd.values(needed++), 2);
    if (kept < share * svd.energy && rank < most) continue;
    needed = std::max<Eigen::Index>(1, needed);
    svd.values.conservativeResize(needed);
    svd.left = svd.left.leftCols(needed).eval();
    svd.right = svd.right.leftCols(needed).eval();
    return svd;
  }
}

}  // namespace

Combination combine_dense(const Products& products, const Recipe& recipe) {
  const Tensor whole = combined(products, recipe);
  const MatrixView matrix(whole);
  const numbers::TopSvd svd =
      recipe.energy ? keeping(matrix, *recipe.energy, products.name)
                    : numbers::top_svd(matrix, recipe.rank.value_or(products.largest_rank()),
                                       products.name, Accuracy::energy);
  const Vector roots = svd.values.cwiseSqrt();
  Combination result;
  result.b = svd.left * roots.asDiagonal();
  result.a = roots.asDiagonal() * svd.right.transpose();
  result.squares = svd.energy;
  result.squared_error = std::max(0.0, svd.energy - svd.values.squaredNorm());
  return result;
}

}  // namespace lora::combining
