#include "ops/first_factors.h"

#include <algorithm>
#include <cmath>

#include "lora/base/error.h"
#include "ops/numbers/combine.h"
#include "ops/numbers/top_svd.h"

namespace lora {
namespace {

using numbers::Matrix;
using numbers::MatrixView;
using numbers::Side;
using numbers::Vector;

// left [rows, k] and right [columns, k] with left . right^T the part that was taken out, without
// the scaling.
struct Part {
  Matrix left, right;
};

// The best approximation of rank k, half of each singular value in both as PEFT has it.
Part largest_part(const LoraModule& module, const Tensor& weight) {
  const numbers::TopSvd svd = numbers::top_svd(MatrixView(weight), module.rank, module.module_path,
                                               numbers::Accuracy::vectors);
  const Vector roots = svd.values.cwiseSqrt();
  return {svd.left * roots.asDiagonal(), svd.right * roots.asDiagonal()};
}

// The first k columns of Q and rows of R: the projection on what the first k columns span.
Part first_part(const Tensor& weight, std::int64_t k) {
  const MatrixView view(weight);
  Matrix start = Matrix::Zero(view.rows, k);
  Matrix chosen = Matrix::Zero(view.columns, k);
  chosen.topRows(k).setIdentity();
  numbers::combine(view, Side::columns, chosen, start);
  const Eigen::HouseholderQR<Matrix> qr(start);
  Part part;
  part.left = qr.householderQ() * Matrix::Identity(view.rows, k);
  part.right = Matrix::Zero(view.columns, k);
  numbers::combine(view, Side::rows, part.left, part.right);
  return part;
}

Tensor as_rows(const Matrix& matrix) {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(matrix.size()));
  for (Eigen::Index i = 0; i < matrix.rows(); ++i)
    for (Eigen::Index j = 0; j < matrix.cols(); ++j)
      values.push_back(static_cast<float>(matrix(i, j)));
  return Tensor::from_f32({matrix.rows(), matrix.cols()}, values);
}

bool is_olora(const std::string& init) { return !init.starts_with("pissa"); }

}  // namespace

void require_known_init(const std::string& init, const std::string& adapter) {
  const bool is_other = init.starts_with("corda") || init == "loftq" || init == "lora_ga";
  if (init == "pissa" || (is_olora(init) && !is_other)) return;
  throw Error(ErrorKind::unsupported,
              "cannot find the first factors of " + adapter + " in the base: " + init +
                  (is_other ? " draws them from more than its weights"
                            : " finds them with random columns, other ones each time"))
      .in_file(adapter)
      .with_hint("give the adapter as it was before training: --init-adapter DIR");
}

FactorPair first_factors(const std::string& init, const LoraModule& module, const Tensor& weight,
                         bool is_conv1d) {
  const auto refuse = [&](ErrorKind kind, const std::string& reason) {
    throw Error(kind, "cannot find the first factors of " + module.module_path + ": " + reason);
  };
  const std::int64_t most = std::min(weight.shape.at(0), weight.shape.at(1));
  if (module.rank > most)
    refuse(ErrorKind::incompatible, "the rank is " + std::to_string(module.rank) +
                                        ", expected at most " + std::to_string(most) +
                                        ", the smaller side of its weight");
  if (is_olora(init) && is_conv1d)
    refuse(ErrorKind::unsupported,
           "it is a Conv1D, whose weight PEFT's OLoRA takes for its "
           "transpose");
  if (!is_olora(init) && !(module.scaling > 0))
    refuse(ErrorKind::incompatible,
           "its scaling is " + std::to_string(module.scaling) + ", expected more than 0");
  Part part = is_olora(init) ? first_part(weight, module.rank) : largest_part(module, weight);
  if (!is_olora(init)) {
    const double root = std::sqrt(module.scaling);
    part.left /= root;
    part.right /= root;
  }
  if (is_conv1d) std::swap(part.left, part.right);
  return {as_rows(part.right.transpose()), as_rows(part.left)};
}

}  // namespace lora
