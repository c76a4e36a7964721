#include "ops/replay/bound.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "lora/base/parallel.h"
#include "ops/replay/factors.h"

namespace lora::replay {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double kUnit = 0x1p-24;  // half an ulp of f32 at 1
constexpr std::int64_t kGroupElements = std::int64_t{1} << 15;
constexpr std::int64_t kNormChunks = 32;

struct Format {
  int mantissa_bits;  // without the hidden one
  int least_exponent;
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return {7, -126};
    case DType::f16:
      return {10, -14};
    case DType::f64:
      return {52, -1022};
    default:
      return {23, -126};
  }
}

double ulp_at(double value, const Format& format) {
  int exponent = format.least_exponent;
  if (value != 0) exponent = std::max(std::ilogb(value), format.least_exponent);
  return std::ldexp(1.0, exponent - format.mantissa_bits);
}

Matrix matrix_of(const Tensor& tensor, std::int64_t first, std::int64_t rows,
                 std::int64_t columns) {
  Matrix values(rows, columns);
  const std::size_t item = bits_of(tensor.dtype) / 8;
  widen(tensor.dtype, tensor.bytes.data() + static_cast<std::size_t>(first * columns) * item,
        std::span<double>(values.data(), static_cast<std::size_t>(rows * columns)));
  return values;
}

struct Operands {
  Matrix left, right;  // [rows, r] and [r, columns], both as the additions of a block need them
  double scaling = 0;
};

Operands operands_of(const Addition& addition) {
  Operands operands;
  const Matrix a = matrix_of(addition.a, 0, addition.a.shape[0], addition.a.shape[1]);
  const Matrix b = matrix_of(addition.b, 0, addition.b.shape[0], addition.b.shape[1]);
  if (addition.is_transposed) {
    operands.left = a.transpose();
    operands.right = b.transpose();
  } else {
    operands.left = b;
    operands.right = a;
  }
  operands.scaling = addition.scaling;
  return operands;
}

// Rows whose float64 value and error bound are made together.
struct Group {
  std::int64_t first = 0, rows = 0;
  const std::vector<Operands>* operands = nullptr;  // null: nothing is added
  std::int64_t block_row = 0;                       // of `first` in its block
};

class Comparison {
 public:
  explicit Comparison(const Target& target) : target_(target) {
    for (const Block& block : target.blocks) {
      std::vector<Operands> operands;
      for (const Addition& addition : block.additions) operands.push_back(operands_of(addition));
      operands_.push_back(std::move(operands));
    }
    if (target.magnitude) magnitude_ = target.magnitude->to_f64();
    const std::int64_t step =
        std::max<std::int64_t>(1, kGroupElements / std::max<std::int64_t>(1, target.columns));
    const auto add = [&](std::int64_t first, std::int64_t end, const std::vector<Operands>* used) {
      for (std::int64_t row = first; row < end; row += step)
        groups_.push_back({row, std::min(step, end - row), used, row - first});
    };
    if (target.blocks.empty()) add(0, target.rows, nullptr);
    for (std::size_t i = 0; i < target.blocks.size(); ++i)
      add(target.blocks[i].first_row, target.blocks[i].first_row + target.blocks[i].rows,
          &operands_[i]);
  }

  void run(int threads, const Sinks& sinks, Outcome& outcome) {
    if (target_.magnitude && target_.is_norm_by_column) sum_columns(threads);
    std::vector<Outcome> parts(groups_.size());
    parallel_for(groups_.size(), threads, [&](std::size_t i) {
      sinks.throw_if_cancelled();
      compare(groups_[i], parts[i]);
    });
    for (const Outcome& part : parts) {
      if (part.outside != 0 && outcome.outside == 0) {
        outcome.first_outside = part.first_outside;
        outcome.found = part.found;
        outcome.expected = part.expected;
      }
      outcome.outside += part.outside;
      outcome.worst_ulps = std::max(outcome.worst_ulps, part.worst_ulps);
    }
    outcome.proof = outcome.outside == 0 ? MergeProof::one_ulp : MergeProof::differs;
  }

 private:
  Matrix sum_of(const Group& group, Matrix* error) const {
    Matrix values = matrix_of(target_.base, group.first, group.rows, target_.columns);
    if (error != nullptr) *error = Matrix::Zero(group.rows, target_.columns);
    if (group.operands == nullptr) return values;
    for (const Operands& operands : *group.operands) {
      const auto left = operands.left.middleRows(group.block_row, group.rows);
      values.noalias() += operands.scaling * (left * operands.right);
      if (error == nullptr) continue;
      const double unit =
          std::fabs(operands.scaling) * kUnit * static_cast<double>(operands.left.cols() + 2);
      error->noalias() += unit * (left.cwiseAbs() * operands.right.cwiseAbs());
    }
    return values;
  }

  // Norms over the rows of the stored matrix, in a fixed number of parts: any thread count gives
  // the same sums.
  void sum_columns(int threads) {
    const std::size_t chunks = std::min<std::size_t>(kNormChunks, groups_.size());
    std::vector<Eigen::VectorXd> parts(chunks, Eigen::VectorXd::Zero(target_.columns));
    parallel_for(chunks, threads, [&](std::size_t chunk) {
      for (std::size_t i = chunk; i < groups_.size(); i += chunks)
        parts[chunk] += sum_of(groups_[i], nullptr).colwise().squaredNorm().transpose();
    });
    norms_ = Eigen::VectorXd::Zero(target_.columns);
    for (const Eigen::VectorXd& part : parts) norms_ += part;
    norms_ = norms_.cwiseSqrt();
  }

  void apply_magnitude(const Group& group, Matrix& values, Matrix& error) const {
    const std::int64_t terms = target_.is_norm_by_column ? target_.rows : target_.columns;
    const double norm_error = kUnit * (static_cast<double>(terms) / 2 + 4);
    for (std::int64_t i = 0; i < values.rows(); ++i) {
      const double row_norm = values.row(i).norm();
      for (std::int64_t j = 0; j < values.cols(); ++j) {
        const std::int64_t output = target_.is_norm_by_column ? j : group.first + i;
        const double factor = magnitude_[static_cast<std::size_t>(output)] /
                              (target_.is_norm_by_column ? norms_(j) : row_norm);
        values(i, j) *= factor;
        error(i, j) = std::fabs(factor) * error(i, j) + std::fabs(values(i, j)) * norm_error;
      }
    }
  }

  // safe_merge rounds the update before it is added: half an ulp of the update, which is more than
  // one of a sum that cancels.
  void add_rounding_of_update(const Group& group, const Matrix& sum, const Format& format,
                              Matrix& error) const {
    if (group.operands == nullptr || group.operands->empty()) return;
    const Matrix base = matrix_of(target_.base, group.first, group.rows, target_.columns);
    for (std::int64_t i = 0; i < sum.rows(); ++i)
      for (std::int64_t j = 0; j < sum.cols(); ++j)
        error(i, j) += ulp_at(sum(i, j) - base(i, j), format) / 2;
  }

  void compare(const Group& group, Outcome& part) const {
    Matrix error;
    Matrix expected = sum_of(group, &error);
    const Format format = format_of(target_.merged.dtype);
    if (target_.magnitude) {
      apply_magnitude(group, expected, error);
    } else if (bits_of(target_.merged.dtype) == 16) {
      add_rounding_of_update(group, expected, format, error);
    }
    const Matrix merged = matrix_of(target_.merged, group.first, group.rows, target_.columns);
    for (std::int64_t i = 0; i < group.rows; ++i) {
      if (const auto token = target_.token_of(group.first + i)) {
        expected.row(i) = matrix_of(target_.token_rows, *token, 1, target_.columns);
        error.row(i).setZero();
      }
      for (std::int64_t j = 0; j < target_.columns; ++j)
        judge(merged(i, j), expected(i, j), error(i, j), format,
              (group.first + i) * target_.columns + j, !target_.is_copy(), part);
    }
  }

  static void judge(double found, double expected, double error, const Format& format,
                    std::int64_t index, bool may_round, Outcome& part) {
    if (found == expected || (std::isnan(found) && std::isnan(expected))) return;
    const double distance = std::fabs(found - expected);
    const double ulp = ulp_at(std::max(std::fabs(found), std::fabs(expected)), format);
    if (may_round && distance <= ulp + error) {
      part.worst_ulps = std::max(part.worst_ulps, distance / ulp);
      return;
    }
    part.worst_ulps = std::isfinite(distance) ? std::max(part.worst_ulps, distance / ulp)
                                              : std::numeric_limits<double>::infinity();
    if (part.outside++ != 0) return;
    part.first_outside = index;
    part.found = found;
    part.expected = expected;
  }

  const Target& target_;
  std::vector<std::vector<Operands>> operands_;
  std::vector<double> magnitude_;
  std::vector<Group> groups_;
  Eigen::VectorXd norms_;
};

}  // namespace

void bound(const Target& target, int threads, const Sinks& sinks, Outcome& outcome) {
  if (!is_float(target.base.dtype) || !is_float(target.merged.dtype)) {
    outcome.proof = MergeProof::differs;
    outcome.outside = target.rows * target.columns;
    return;
  }
  Comparison(target).run(threads, sinks, outcome);
}

}  // namespace lora::replay
