#include "ops/extract/factors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "lora/base/error.h"
#include "ops/extract/difference.h"
#include "ops/merge/finite.h"

namespace lora::extraction {
namespace {

using numbers::PanelMatrix;
using numbers::Truncation;

// Singular values below this share of the first are zero in f64 sums of squares.
constexpr double kVanished = 1e-13;
constexpr std::int64_t kFirstGuess = 16;
// Of the squared norm: an error that the arithmetic of f32 may have a part in.
constexpr double kFine = 1e-7;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

void require_finite(const std::string& name, const Tensor& base, const Tensor& tuned,
                    double squared_norm) {
  if (std::isfinite(squared_norm)) return;
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::malformed, "cannot extract from " + name + ": " + what).in_tensor(name);
  };
  if (!merging::is_finite(base.dtype, base.bytes))
    refuse("the base's tensor holds NaN or infinity");
  if (!merging::is_finite(tuned.dtype, tuned.bytes))
    refuse("the tuned tensor holds NaN or infinity");
  refuse("the values are too far apart for f32");
}

// Brings the difference to values that algebra in f32 is safe with; the exponent that takes it
// back.
int normalise(Difference& difference) {
  constexpr double kLeast = 0x1p-60, kMost = 0x1p+60;
  const double squares = difference.squared_norm;
  if (squares == 0 || (squares > kLeast && squares < kMost)) return 0;
  const int exponent = std::ilogb(squares) / 2;
  difference.values.scale(-exponent);
  difference.squared_norm = difference.values.squared_norm();
  return exponent;
}

numbers::RankRule rule_of(const RankWish& wish, std::int64_t full, double squared_norm) {
  if (wish.rank)
    return [rank = std::min(*wish.rank, full)](const std::vector<double>&) { return rank; };
  return [=, energy = *wish.energy](const std::vector<double>& energies) -> std::int64_t {
    if (energies.empty()) return std::min(kFirstGuess, full);
    double kept = 0;
    std::int64_t rank = 0;
    for (const double part : energies) {
      if (kept >= energy * squared_norm || part <= kVanished * energies[0]) return rank;
      kept += part;
      ++rank;
    }
    // Not reached: further ones are wanted, unless these are all.
    return static_cast<std::int64_t>(energies.size()) == full ? full : rank + 1;
  };
}

// Gives both factors of each component the same length, which suits every dtype and trainer.
void balance(PanelMatrix& left, PanelMatrix& right, std::int64_t rank) {
  for (std::int64_t j = 0; j < rank; ++j) {
    double a = 0, b = 0;
    for (std::int64_t i = 0; i < left.rows(); ++i)
      a += static_cast<double>(left.at(i, j)) * left.at(i, j);
    for (std::int64_t i = 0; i < right.rows(); ++i)
      b += static_cast<double>(right.at(i, j)) * right.at(i, j);
    if (!(a > 0 && b > 0)) continue;
    const auto weight = static_cast<float>(std::sqrt(std::sqrt(b / a)));
    for (std::int64_t i = 0; i < left.rows(); ++i) left.at(i, j) *= weight;
    for (std::int64_t i = 0; i < right.rows(); ++i) right.at(i, j) /= weight;
  }
}

// f32 products turn the singular vectors by a few 2^-24; where hardly anything is left out, that is
// what is left out. One step against what remains, values - left . right^T, takes it in.
void refine(const PanelMatrix& values, PanelMatrix& left, const PanelMatrix& right) {
  PanelMatrix error = values;
  numbers::subtract_product(left, right, error);
  const numbers::Matrix gram = numbers::gram_of(right);
  PanelMatrix product(left.rows(), right.columns());
  numbers::multiply(error, right, product);
  const numbers::Matrix inverse =
      gram.ldlt().solve(numbers::Matrix::Identity(gram.rows(), gram.cols()));
  const PanelMatrix change = numbers::multiply(product, inverse);
  for (std::int64_t i = 0; i < left.rows(); ++i)
    for (std::int64_t j = 0; j < left.columns(); ++j) left.at(i, j) += change.at(i, j);
}

// The first `rank` columns in `dtype`; the matrix gets their rounded values and loses the others.
std::vector<std::byte> take_columns(PanelMatrix& matrix, std::int64_t rank, DType dtype) {
  std::vector<float> values(size(matrix.rows() * rank));
  for (std::int64_t i = 0; i < matrix.rows(); ++i)
    for (std::int64_t j = 0; j < rank; ++j) values[size(i * rank + j)] = matrix.at(i, j);
  std::vector<std::byte> bytes(values.size() * bits_of(dtype) / 8);
  narrow(values, dtype, bytes.data());
  widen(dtype, bytes.data(), std::span(values));
  PanelMatrix kept(matrix.rows(), rank);
  for (std::int64_t i = 0; i < matrix.rows(); ++i)
    for (std::int64_t j = 0; j < rank; ++j) kept.at(i, j) = values[size(i * rank + j)];
  matrix = std::move(kept);
  return bytes;
}

Tensor as_columns(const PanelMatrix& matrix, DType dtype, std::vector<std::byte> bytes) {
  return Tensor::from_bytes(dtype, {matrix.rows(), matrix.columns()}, std::move(bytes));
}

// The same transposed.
Tensor as_rows(const PanelMatrix& matrix, DType dtype, const std::vector<std::byte>& bytes) {
  const std::size_t width = bits_of(dtype) / 8;
  std::vector<std::byte> out(bytes.size());
  const std::size_t rows = size(matrix.rows()), columns = size(matrix.columns());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < columns; ++j)
      std::memcpy(out.data() + (j * rows + i) * width, bytes.data() + (i * columns + j) * width,
                  width);
  return Tensor::from_bytes(dtype, {matrix.columns(), matrix.rows()}, std::move(out));
}

struct Room {
  std::uint64_t kept, all;  ///< bytes from one width to the next, and with the width's own
};

Room room_of(const Tensor& matrix, std::int64_t width) {
  const auto longer = static_cast<std::uint64_t>(std::max(matrix.shape[0], matrix.shape[1]));
  const auto shorter = static_cast<std::uint64_t>(std::min(matrix.shape[0], matrix.shape[1]));
  const std::uint64_t columns = std::min(static_cast<std::uint64_t>(width), shorter);
  // The difference, a Gram matrix and its factor; 64 rows of the difference in parts of bf16.
  const std::uint64_t kept = 4 * (longer * shorter + 2 * shorter * shorter);
  return {kept, kept + 4 * (5 * columns * (longer + shorter) + 128 * shorter)};
}

// The part of the work space for one module, which grows with the width of its search.
class GrowingShare {
 public:
  GrowingShare(WorkSpace& space, const Tensor& matrix, std::optional<std::int64_t> rank)
      : share_(space), matrix_(matrix) {
    share_.grow(first_work_space(matrix, rank));
  }

  void operator()(std::int64_t width) {
    const Room room = room_of(matrix_, width);
    share_.grow(room.all, room.kept);
  }

 private:
  WorkSpace::Share share_;
  const Tensor& matrix_;
};

}  // namespace

Factors factor(const std::string& name, const Tensor& base, const Tensor& tuned,
               const RankWish& wish, bool is_in_out, DType dtype, WorkSpace& space) {
  GrowingShare share(space, base, wish.rank);
  Difference difference = difference_of(base, tuned);
  require_finite(name, base, tuned, difference.squared_norm);
  Factors out;
  out.full_rank = difference.values.columns();
  if (difference.squared_norm == 0) return out;
  const int exponent = normalise(difference);
  const double squares = difference.squared_norm;
  const auto rule = rule_of(wish, out.full_rank, squares);
  Truncation found = numbers::truncate(difference.values, squares, rule, name,
                                       numbers::Purpose::proof, std::ref(share));
  out.rank = rule(found.energies);
  out.is_exact = found.is_exact;
  PanelMatrix left = found.left, right = found.right;
  balance(left, right, out.rank);
  double left_out = squares;
  for (std::int64_t i = 0; i < out.rank; ++i) left_out -= found.energies[size(i)];
  if (left_out <= kFine * squares) {
    take_columns(left, out.rank, DType::f32);
    take_columns(right, out.rank, DType::f32);
    refine(difference.values, left, right);
  }
  const int half = exponent / 2, other_half = exponent - half;
  left.scale(half);
  right.scale(other_half);
  std::vector<std::byte> left_bytes = take_columns(left, out.rank, dtype);
  std::vector<std::byte> right_bytes = take_columns(right, out.rank, dtype);
  // Rows of the factored matrix are outputs unless exactly one of the two layouts turns them.
  const bool is_left_out = difference.is_transposed == is_in_out;
  out.b = is_left_out ? as_columns(left, dtype, std::move(left_bytes))
                      : as_columns(right, dtype, std::move(right_bytes));
  out.a = is_left_out ? as_rows(right, dtype, right_bytes) : as_rows(left, dtype, left_bytes);
  left.scale(-half);
  right.scale(-other_half);
  // The proof is about the components themselves, not about their rounding to 16 bits.
  const bool is_rounded = dtype != DType::f32 && !found.is_exact && found.gram.columns() == 0;
  PanelMatrix unrounded;
  if (is_rounded) {
    unrounded = difference.values;
    PanelMatrix first_left = found.left, first_right = found.right;
    take_columns(first_left, out.rank, DType::f32);
    take_columns(first_right, out.rank, DType::f32);
    numbers::subtract_product(first_left, first_right, unrounded);
  }
  numbers::subtract_product(left, right, difference.values);
  const double error = difference.values.squared_norm();
  const PanelMatrix& left_by_components = is_rounded ? unrounded : difference.values;
  const double least =
      numbers::least_squared_error(std::move(found), out.rank, squares, left_by_components,
                                   is_rounded ? unrounded.squared_norm() : error);
  out.squared_norm = std::ldexp(squares, 2 * exponent);
  out.squared_error = std::ldexp(error, 2 * exponent);
  out.least_squared_error = std::ldexp(std::min(error, least), 2 * exponent);
  constexpr double kRoundings = 1.5, kArithmetic = 0x1p-21, kSmallShare = 0.1;
  if (out.squared_error <= kSmallShare * out.squared_norm) {
    const double bound = kRoundings * std::sqrt(squared_rounding_of(tuned)) +
                         kArithmetic * std::sqrt(out.squared_norm);
    out.is_rounding = std::sqrt(out.squared_error) <= bound;
  }
  return out;
}

std::vector<double> spectrum(const std::string& name, const Tensor& base, const Tensor& tuned,
                             std::int64_t count, WorkSpace& space) {
  GrowingShare share(space, base, count);
  Difference difference = difference_of(base, tuned);
  require_finite(name, base, tuned, difference.squared_norm);
  if (difference.squared_norm == 0) return {};
  const int exponent = normalise(difference);
  const double squares = difference.squared_norm;
  const auto rule = rule_of({count, std::nullopt}, difference.values.columns(), squares);
  std::vector<double> energies = numbers::truncate(difference.values, squares, rule, name,
                                                   numbers::Purpose::energies, std::ref(share))
                                     .energies;
  for (double& energy : energies) energy = std::ldexp(energy, 2 * exponent);
  return energies;
}

std::uint64_t first_work_space(const Tensor& matrix, std::optional<std::int64_t> rank) {
  constexpr std::int64_t kMargin = 40;
  return room_of(matrix, rank.value_or(kFirstGuess) + kMargin).all;
}

}  // namespace lora::extraction
