// The best approximation of a matrix by one of low rank, with a proof of how close to the best.
//
// Large matrices: a random sketch, then steps of orthogonal iteration until more of them could not
// lower the error by a thousandth (Halko, Martinsson and Tropp 2011), on the Gram matrix where much
// is left out. Small ones, and ranks that are a large share of the dimension: all eigenvalues of
// the Gram matrix in f64.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ops/numbers/panels.h"

namespace lora::numbers {

/// values ~ left . right^T, component by component: column i of the two together have the length
/// of the singular value i.
struct Truncation {
  PanelMatrix left, right;       ///< [rows, k], [columns, k]
  std::vector<double> energies;  ///< squares of the k largest singular values, descending
  bool is_exact = false;         ///< of all singular values; none is left out
  /// By component: squared length of what (values . values^T) left_i has outside of the columns of
  /// left; with a `gram`, of what gram . right_i has outside of those of right. Zero when the
  /// column is a singular vector.
  std::vector<double> residuals;
  /// lower_gram of the values, where the search went on in it; right then is orthonormal, and
  /// column i of `image` is gram . right_i / energies[i].
  PanelMatrix gram, image;
};

/// How many components are wanted, from the squares of the singular values found so far; more than
/// there are asks for further ones.
using RankRule = std::function<std::int64_t(const std::vector<double>& energies)>;

/// What a truncation is for.
enum class Purpose {
  energies,  ///< alone: left and right may be empty
  factors,
  proof,  ///< least_squared_error will be asked for, which makes the Gram matrix worth its price
};

/// `values` has at least as many rows as columns; `squared_norm` is its own, between 2^-60 and
/// 2^60, so that powers of it are numbers of f32. `name` seeds the sketch: the same name gives the
/// same result on any number of threads. `before` hears how many components the next search works
/// on, which decides its memory.
Truncation truncate(const PanelMatrix& values, double squared_norm, const RankRule& rule,
                    const std::string& name, Purpose purpose,
                    const std::function<void(std::int64_t width)>& before = {});

/// Parts of all squared singular values that an approximation of rank `rank` cannot reach less
/// than, given `error`: values - the approximation by the first `rank` components, and its squared
/// norm. Proven, but for an allowance of 2^-20 of the energy for the rounding of f32.
///
/// With U the left vectors, T their energies, R the residuals: whenever no singular value of the
/// error squared exceeds t, and t' > t,
///   values . values^T <= U (T + R^T R / (t' - t)) U^T + t' (I - U U^T),
/// and by Ky Fan the `rank` largest eigenvalues of the left side sum to at most those of the right
/// one. With a `gram` the same of values^T . values and the right vectors. t is the squared
/// Frobenius norm where that is enough, else the least that a Cholesky factorisation of
/// t I - error^T error proves.
double least_squared_error(Truncation truncation, std::int64_t rank, double squared_norm,
                           const PanelMatrix& error, double squared_error);

}  // namespace lora::numbers
